/* What a segment shows to people beside its tables: hot keys, and how areas are configured. */
#include "segment_args.h"

#include "area.h"
#include "facts.h"
#include "hotkeys.h"

/* --- hot keys --------------------------------------------------------------------------------- */

static PyObject *row_of(const struct acc_segment *seg, const struct acc_hot_key *key) {
    return Py_BuildValue("(NKd)", segment_area_name(seg, key->area), (unsigned long long)key->hash,
                         key->rate);
}

PyObject *segment_hot_keys(PyObject *op, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"limit", NULL};
    const struct acc_segment *seg = seg_of(op);
    Py_ssize_t limit = 20;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|n:hot_keys", names, &limit)) {
        return NULL;
    }
    if (limit < 0) {
        PyErr_SetString(PyExc_ValueError, "hot_keys: limit must not be below 0");
        return NULL;
    }
    uint32_t most = acc_hot_entries(seg);
    most = (size_t)limit < most ? (uint32_t)limit : most;
    struct acc_hot_key *keys = PyMem_Calloc(most + 1, sizeof *keys);
    if (keys == NULL) {
        return PyErr_NoMemory();
    }
    uint32_t n = acc_hot_top(seg, keys, most);
    PyObject *list = PyList_New(n);
    for (uint32_t i = 0; list != NULL && i < n; i++) {
        PyObject *row = row_of(seg, &keys[i]);
        if (row == NULL) {
            Py_CLEAR(list);
        } else {
            PyList_SET_ITEM(list, i, row);
        }
    }
    PyMem_Free(keys);
    return list;
}

PyObject *segment_hot_total(PyObject *op, PyObject *unused) {
    (void)unused;
    return PyFloat_FromDouble(acc_hot_total(seg_of(op)));
}

/* --- facts ------------------------------------------------------------------------------------ */

/* False with an exception. */
static bool facts_from(PyObject *sequence, uint32_t facts[ACC_FACTS], uint32_t *count) {
    PyObject *given = PySequence_Tuple(sequence);
    bool done = given != NULL;
    Py_ssize_t n = done ? PyTuple_GET_SIZE(given) : 0;
    if (done && n > (Py_ssize_t)ACC_FACTS) {
        PyErr_Format(PyExc_ValueError, "area_facts_write: at most %u numbers", ACC_FACTS);
        done = false;
    }
    for (Py_ssize_t i = 0; done && i < n; i++) {
        unsigned long long fact = PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(given, i));
        done = !PyErr_Occurred();
        if (done && fact > UINT32_MAX) {
            PyErr_SetString(PyExc_OverflowError, "area_facts_write: a number must have 32 bits");
            done = false;
        }
        facts[i] = (uint32_t)fact;
    }
    *count = (uint32_t)n;
    Py_XDECREF(given);
    return done;
}

PyObject *segment_area_facts_write(PyObject *op, PyObject *args) {
    struct acc_segment *seg = seg_of(op);
    PyObject *name, *sequence;
    struct acc_area_slot *slot;
    uint32_t facts[ACC_FACTS], count;
    if (!PyArg_ParseTuple(args, "OO:area_facts_write", &name, &sequence) ||
        !facts_from(sequence, facts, &count) || !area_from(seg, name, &slot) || !writable(seg)) {
        return NULL;
    }
    if (slot == NULL) {
        PyErr_SetObject(PyExc_KeyError, name);
        return NULL;
    }
    return PyBool_FromLong(acc_facts_write(seg, id_of(seg, slot), facts, count));
}

static PyObject *tuple_of(const uint32_t facts[ACC_FACTS], uint32_t changed) {
    PyObject *tuple = PyTuple_New(ACC_FACTS + 1);
    for (uint32_t i = 0; tuple != NULL && i <= ACC_FACTS; i++) {
        PyObject *number = PyLong_FromUnsignedLong(i < ACC_FACTS ? facts[i] : changed);
        if (number == NULL) {
            Py_CLEAR(tuple);
        } else {
            PyTuple_SET_ITEM(tuple, i, number);
        }
    }
    return tuple;
}

static bool put_facts(PyObject *dict, const struct acc_segment *seg, uint32_t area) {
    uint32_t facts[ACC_FACTS], changed;
    if (!acc_facts_read(seg, area, facts, &changed)) {
        return true;
    }
    PyObject *name = segment_area_name(seg, area), *tuple = tuple_of(facts, changed);
    bool done = name != NULL && tuple != NULL && PyDict_SetItem(dict, name, tuple) == 0;
    Py_XDECREF(name);
    Py_XDECREF(tuple);
    return done;
}

PyObject *segment_area_facts(PyObject *op, PyObject *unused) {
    (void)unused;
    const struct acc_segment *seg = seg_of(op);
    PyObject *dict = PyDict_New();
    for (uint32_t i = 0; dict != NULL && i < seg->geometry.areas; i++) {
        if (acc_load_acquire(&acc_area_slot(seg, i)->state) == 1 && !put_facts(dict, seg, i)) {
            Py_CLEAR(dict);
        }
    }
    return dict;
}
