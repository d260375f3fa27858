/* What loads need of an area: its flights, notes of failures, latencies; and what runs. */
#include "state.h"

#include "flight.h"

#include <math.h>

/* --- entering --------------------------------------------------------------------------------- */

static bool lease_units(double lease, uint32_t *out) {
    if (!(lease > 0 && isfinite(lease))) {
        PyErr_SetString(PyExc_ValueError, "a lease must be more than 0 seconds, and finite");
        return false;
    }
    *out = acc_clock_after(0, lease);
    return true;
}

/* For a thread that runs an event loop, and comes back a little later: long enough for a holder who
 * is at work, and not for one who has lost the processor. */
#define ON_LOOP_NS 200000ull

/* First with the GIL, which costs less than a switch while the lock is free; then without. */
static enum acc_status enter(AreaObject *self, const struct acc_key *key, int mode, uint32_t lease,
                             uint64_t budget_ns, struct acc_ticket *ticket) {
    enum acc_load_mode how = mode == LOAD_REFRESH ? ACC_LOAD_LEAD : ACC_LOAD_JOIN;
    uint32_t window = mode == LOAD_JOIN                                   ? 0
                      : mode == LOAD_REFRESH && self->refresh_window != 0 ? self->refresh_window
                                                                          : ACC_WINDOW_ALL;
    enum acc_status status = acc_load_enter(&self->area, key, how, window, lease, 0, ticket);
    if (acc_unlikely(status == ACC_BUSY)) {
        struct held held = hold(self);
        Py_BEGIN_ALLOW_THREADS
            status = acc_load_enter(&held.area, key, how, window, lease, budget_ns, ticket);
        Py_END_ALLOW_THREADS
        Py_DECREF(held.segment);
    }
    return status;
}

/* The key that stands for a lock's name. */
static bool name_key(AreaObject *self, PyObject *name, uint8_t *buffer, struct acc_key *key) {
    if (!PyUnicode_Check(name)) {
        PyErr_Format(PyExc_TypeError, "a lock's name must be a str, not %.100s",
                     Py_TYPE(name)->tp_name);
        return false;
    }
    if (!area_key_plain(self, name, buffer, key)) {
        return false;
    }
    key->tag = ACC_TAG_LOCK;
    key->hash = acc_key_hash(&self->area, key);
    return true;
}

static PyObject *busy(AreaObject *self) {
    acc_count(self->area.stats, ACC_LOCK_GIVEUP);
    PyErr_SetString(PyExc_BlockingIOError, acc_status_text(ACC_BUSY));
    return NULL;
}

PyObject *area_enter(PyObject *op, PyObject *args) {
    AreaObject *self = (AreaObject *)op;
    PyObject *key_object;
    double lease;
    int mode = LOAD_JOIN, waits = 1;
    uint32_t units;
    uint8_t buffer[KEY_BUFFER];
    struct acc_key key;
    struct acc_ticket ticket;
    if (!PyArg_ParseTuple(args, "Od|ip:_enter", &key_object, &lease, &mode, &waits) ||
        !lease_units(lease, &units)) {
        return NULL;
    }
    if (mode < LOAD_JOIN || mode > LOAD_LOCK) {
        PyErr_SetString(PyExc_ValueError, "_enter: mode out of range");
        return NULL;
    }
    if (!area_ready(self) || !(mode == LOAD_LOCK ? name_key(self, key_object, buffer, &key)
                                                 : area_key(self, key_object, buffer, &key))) {
        return NULL;
    }
    switch (enter(self, &key, mode, units, waits ? ACC_LOCK_BUDGET_NS : ON_LOOP_NS, &ticket)) {
    case ACC_OK:
        return flight_new(self, &key, &ticket, ticket.leading ? FLIGHT_LEADING : FLIGHT_JOINED);
    case ACC_PRESENT:
    case ACC_LED: Py_RETURN_NONE;
    case ACC_FULL: return flight_new(self, &key, &ticket, FLIGHT_CROWDED);
    default: return busy(self);
    }
}

PyObject *area_enter_alone(PyObject *op, PyObject *args) {
    AreaObject *self = (AreaObject *)op;
    PyObject *key_object, *most_object;
    double lease;
    uint32_t units;
    unsigned long most = 0;
    uint8_t buffer[KEY_BUFFER];
    struct acc_key key;
    struct acc_ticket ticket;
    if (!PyArg_ParseTuple(args, "OdO:_enter_alone", &key_object, &lease, &most_object) ||
        !lease_units(lease, &units)) {
        return NULL;
    }
    if (most_object != Py_None) {
        most = PyLong_AsUnsignedLong(most_object);
        if (most == (unsigned long)-1 && PyErr_Occurred()) {
            return NULL;
        }
        if (most == 0) {
            Py_RETURN_NONE;
        }
    }
    if (!area_ready(self) || !area_key(self, key_object, buffer, &key)) {
        return NULL;
    }
    struct held held = hold(self);
    enum acc_status status;
    Py_BEGIN_ALLOW_THREADS
        status = acc_load_alone(&held.area, &key, most > UINT32_MAX ? UINT32_MAX : (uint32_t)most,
                                units, ACC_LOCK_BUDGET_NS, &ticket);
    Py_END_ALLOW_THREADS
    Py_DECREF(held.segment);
    if (status == ACC_FULL) {
        Py_RETURN_NONE;
    }
    if (status != ACC_OK) {
        return busy(self);
    }
    return flight_new(self, &key, &ticket, FLIGHT_LEADING);
}

/* --- pauses and latencies --------------------------------------------------------------------- */

PyObject *area_pause(PyObject *op, PyObject *args) {
    AreaObject *self = (AreaObject *)op;
    PyObject *key_object;
    double seconds;
    uint8_t buffer[KEY_BUFFER];
    struct acc_key key;
    if (!PyArg_ParseTuple(args, "Od:_pause", &key_object, &seconds) || !area_ready(self) ||
        !area_key(self, key_object, buffer, &key)) {
        return NULL;
    }
    if (!(seconds >= 0)) {
        PyErr_SetString(PyExc_ValueError, "a pause must not be less than 0 seconds");
        return NULL;
    }
    if ((self->flags & AREA_OFF) == 0) {
        acc_load_pause(&self->area, &key, seconds > 0 ? acc_clock_after(0, seconds) : 0, 0);
    }
    Py_RETURN_NONE;
}

PyObject *area_pausing(PyObject *op, PyObject *key_object) {
    AreaObject *self = (AreaObject *)op;
    uint8_t buffer[KEY_BUFFER];
    struct acc_key key;
    if (!area_ready(self) || !area_key(self, key_object, buffer, &key)) {
        return NULL;
    }
    return PyBool_FromLong(acc_load_pausing(&self->area, &key));
}

static PyObject *add_latency(PyObject *op, PyObject *arg,
                             void (*add)(struct acc_stats *stats, uint64_t us)) {
    AreaObject *self = (AreaObject *)op;
    double seconds = PyFloat_AsDouble(arg);
    if (seconds == -1.0 && PyErr_Occurred()) {
        return NULL;
    }
    if (!(seconds >= 0 && seconds < 1e12)) {
        PyErr_SetString(PyExc_ValueError, "a latency must be finite, and not less than 0 seconds");
        return NULL;
    }
    if (!area_ready(self)) {
        return NULL;
    }
    add(self->area.stats, (uint64_t)(seconds * 1e6));
    Py_RETURN_NONE;
}

PyObject *area_latency(PyObject *op, PyObject *arg) {
    return add_latency(op, arg, acc_stats_load);
}

PyObject *area_l2_latency(PyObject *op, PyObject *arg) {
    return add_latency(op, arg, acc_stats_l2);
}

static PyObject *all_latencies(PyObject *op,
                               void (*sum)(const struct acc_segment *seg, uint32_t area,
                                           uint64_t out[ACC_LATENCY_SLOTS])) {
    AreaObject *self = (AreaObject *)op;
    uint64_t sums[ACC_LATENCY_SLOTS];
    if (!area_ready(self)) {
        return NULL;
    }
    sum(self->area.seg, self->area.base, sums);
    PyObject *list = PyList_New(ACC_LATENCY_SLOTS);
    for (uint32_t i = 0; list != NULL && i < ACC_LATENCY_SLOTS; i++) {
        PyObject *n = PyLong_FromUnsignedLongLong(sums[i]);
        if (n == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, i, n);
    }
    return list;
}

PyObject *area_latencies(PyObject *op, PyObject *unused) {
    (void)unused;
    return all_latencies(op, acc_stats_sum_loads);
}

PyObject *area_l2_latencies(PyObject *op, PyObject *unused) {
    (void)unused;
    return all_latencies(op, acc_stats_sum_l2);
}

/* --- what runs -------------------------------------------------------------------------------- */

PyObject *segment_area_name(const struct acc_segment *seg, uint32_t id) {
    if (id < seg->geometry.areas) {
        const struct acc_area_slot *slot = acc_area_slot(seg, id);
        if (acc_load_acquire(&slot->state) == 1 && slot->name_size <= ACC_AREA_NAME_MAX) {
            return PyUnicode_DecodeUTF8(slot->name, slot->name_size, "replace");
        }
    }
    return PyUnicode_FromString("?");
}

static PyObject *describe(const struct acc_segment *seg, const struct acc_flight_info *info) {
    const struct acc_process *slot = acc_process_find(seg, info->owner);
    bool own = info->owner == acc_incarnation(seg);
    uint32_t now = acc_now(seg);
    return Py_BuildValue(
        "{s:N,s:K,s:I,s:I,s:N,s:d,s:d,s:I,s:N,s:N,s:N,s:N}", "area",
        segment_area_name(seg, info->area), "hash", (unsigned long long)info->hash, "pid",
        slot == NULL ? 0u : slot->pid, "incarnation", info->owner, "alive",
        PyBool_FromLong(own || !acc_process_dead(seg, info->owner)), "age",
        (double)(int32_t)(now - info->started) / ACC_UNITS_PER_SECOND, "lease_left",
        (double)(int32_t)(info->deadline - now) / ACC_UNITS_PER_SECOND, "waiters", info->waiting,
        "alone", PyBool_FromLong(info->alone), "lock", PyBool_FromLong(info->locked), "overtaken",
        PyBool_FromLong(info->overtaken), "own", PyBool_FromLong(own));
}

PyObject *segment_flights(PyObject *op, PyObject *unused) {
    (void)unused;
    const struct acc_segment *seg = ((SegmentObject *)op)->seg;
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; list != NULL && i < acc_flight_records(seg); i++) {
        struct acc_flight_info info;
        if (!acc_flight_look(seg, i, &info)) {
            continue;
        }
        PyObject *one = describe(seg, &info);
        if (one == NULL || PyList_Append(list, one) != 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(one);
    }
    return list;
}
