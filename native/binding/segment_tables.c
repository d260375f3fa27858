/* The tables of a segment one by one, for people: its areas, and what each process counted in them.
 * Loads only, so also of a segment that was opened for reading. */
#include "segment_args.h"

#include "area.h"

/* Seconds for which an area is in step from now on; None: it never was. */
static PyObject *in_step_for(const struct acc_segment *seg, const struct acc_area_slot *slot) {
    uint64_t until = acc_load_acquire(&slot->fresh_until), now = acc_now_long(seg);
    if (until == 0 || (until > now && until - now > ACC_FRESH_MOST)) {
        Py_RETURN_NONE;
    }
    return PyFloat_FromDouble((double)(int64_t)(until - now) / ACC_UNITS_PER_SECOND);
}

static bool is_plain(const struct acc_segment *seg, uint32_t id) {
    return id < seg->geometry.areas && acc_load_acquire(&acc_area_slot(seg, id)->state) == 1 &&
           acc_area_base(seg, id) == id;
}

/* Takes the reference.  False with an exception. */
static bool append_own(PyObject *list, PyObject *one) {
    bool done = one != NULL && PyList_Append(list, one) == 0;
    Py_XDECREF(one);
    return done;
}

PyObject *segment_areas(PyObject *op, PyObject *unused) {
    (void)unused;
    const struct acc_segment *seg = seg_of(op);
    PyObject *list = PyList_New(0);
    for (uint32_t id = 0; list != NULL && id < seg->geometry.areas; id++) {
        const struct acc_area_slot *slot = acc_area_slot(seg, id);
        if (is_plain(seg, id) &&
            !append_own(list, Py_BuildValue("(NNN)", segment_area_name(seg, id),
                                            PyBool_FromLong(acc_load_acquire(&slot->watched) == 1),
                                            in_step_for(seg, slot)))) {
            Py_CLEAR(list);
        }
    }
    return list;
}

static PyObject *numbers(const uint64_t *at, uint32_t count) {
    PyObject *tuple = PyTuple_New(count);
    for (uint32_t i = 0; tuple != NULL && i < count; i++) {
        PyObject *n = PyLong_FromUnsignedLongLong(acc_load_relaxed(&at[i]));
        if (n == NULL) {
            Py_CLEAR(tuple);
            break;
        }
        PyTuple_SET_ITEM(tuple, i, n);
    }
    return tuple;
}

PyObject *segment_blocks(PyObject *op, PyObject *unused) {
    (void)unused;
    const struct acc_segment *seg = seg_of(op);
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; list != NULL && i < seg->geometry.stats; i++) {
        const struct acc_stats *block = acc_stats_block(seg, i);
        uint32_t id = acc_load_acquire(&block->area) - 1; /* of a free one: no area's */
        if (is_plain(seg, id) &&
            !append_own(list, Py_BuildValue("(IINNNN)", i, acc_load_acquire(&block->owner),
                                            segment_area_name(seg, id),
                                            numbers(block->counter, ACC_COUNTERS),
                                            numbers(block->load_latency, ACC_LATENCY_SLOTS),
                                            numbers(block->l2_latency, ACC_LATENCY_SLOTS)))) {
            Py_CLEAR(list);
        }
    }
    return list;
}
