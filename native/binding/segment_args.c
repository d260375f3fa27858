#include "segment_args.h"

#include <math.h>

bool writable(struct acc_segment *seg) {
    if (seg->readonly) {
        raise_status(ACC_READONLY, "changing a segment");
    }
    return !seg->readonly;
}

bool is_entered(struct acc_segment *seg) {
    return acc_incarnation(seg) != 0 || acc_segment_register(seg) == ACC_OK;
}

bool ns_of(double seconds, uint64_t *out) {
    if (isnan(seconds)) {
        PyErr_SetString(PyExc_ValueError, "a time must be a number");
        return false;
    }
    *out = seconds <= 0 ? 0 : seconds >= 9e9 ? (uint64_t)9e18 : (uint64_t)(seconds * 1e9);
    return true;
}

bool time_of(double seconds, uint64_t *out) {
    if (!isfinite(seconds)) {
        PyErr_SetString(PyExc_ValueError, "a time must be finite");
        return false;
    }
    return ns_of(seconds, out);
}

bool ns_from(PyObject *object, uint64_t *out) {
    double seconds = PyFloat_AsDouble(object);
    return !(seconds == -1.0 && PyErr_Occurred()) && ns_of(seconds, out);
}

bool number_from(PyObject *object, uint64_t *out) {
    *out = PyLong_AsUnsignedLongLong(object);
    return !(*out == (uint64_t)-1 && PyErr_Occurred());
}

bool append_own(PyObject *list, PyObject *one) {
    bool done = one != NULL && PyList_Append(list, one) == 0;
    Py_XDECREF(one);
    return done;
}

bool area_from(struct acc_segment *seg, PyObject *name, struct acc_area_slot **out) {
    Py_ssize_t size;
    const char *text = PyUnicode_Check(name) ? PyUnicode_AsUTF8AndSize(name, &size) : NULL;
    if (text == NULL) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError, "the name of an area is a str");
        }
        return false;
    }
    *out = acc_area_find(seg, text, (size_t)size);
    return true;
}

PyObject *names_of(struct acc_segment *seg, bool (*has)(struct acc_segment *seg, uint32_t area)) {
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; list != NULL && i < seg->geometry.areas; i++) {
        if (acc_load_acquire(&acc_area_slot(seg, i)->state) != 1 || !has(seg, i)) {
            continue;
        }
        PyObject *name = segment_area_name(seg, i);
        if (name == NULL || PyList_Append(list, name) != 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(name);
    }
    return list;
}
