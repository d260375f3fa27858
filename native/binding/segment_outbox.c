/* The outbox, as Segment and Area offer it: see outbox.h in the core. */
#include "segment_args.h"

#include "outbox.h"

PyObject *area_note(PyObject *op, PyObject *args) {
    AreaObject *self = (AreaObject *)op;
    PyObject *key_object;
    int kind;
    uint8_t buffer[KEY_BUFFER];
    struct acc_key key;
    if (!PyArg_ParseTuple(args, "Oi:_note", &key_object, &kind)) {
        return NULL;
    }
    if (kind < ACC_NOTE_FORGET || kind >= ACC_NOTE_CLEAR) {
        PyErr_SetString(PyExc_ValueError, "_note: no such kind of a note of one key");
        return NULL;
    }
    if (!area_ready(self) || !area_key(self, key_object, buffer, &key)) {
        return NULL;
    }
    return PyLong_FromUnsignedLongLong(acc_outbox_append(&self->area, &key, (enum acc_note)kind));
}

PyObject *area_note_clear(PyObject *op, PyObject *unused) {
    (void)unused;
    AreaObject *self = (AreaObject *)op;
    if (!area_ready(self)) {
        return NULL;
    }
    return PyLong_FromUnsignedLongLong(acc_outbox_append(&self->area, NULL, ACC_NOTE_CLEAR));
}

PyObject *segment_outbox_settle(PyObject *op, PyObject *args) {
    PyObject *number_object;
    int sent;
    uint64_t number;
    if (!PyArg_ParseTuple(args, "Op:outbox_settle", &number_object, &sent) ||
        !number_from(number_object, &number) || !writable(seg_of(op))) {
        return NULL;
    }
    acc_outbox_settle(seg_of(op), number, sent != 0);
    Py_RETURN_NONE;
}

static PyObject *entry_tuple(const struct acc_segment *seg, const struct acc_outbox_entry *entry) {
    return Py_BuildValue("(KNIy#)", (unsigned long long)entry->number,
                         segment_area_name(seg, entry->area), entry->kind, (const char *)entry->key,
                         (Py_ssize_t)entry->key_size);
}

/* Takes over `entries`. */
static PyObject *entry_list(const struct acc_segment *seg, enum acc_status status,
                            struct acc_outbox_entry *entries, uint32_t count) {
    PyObject *list = status == ACC_OK ? PyList_New(count) : PyErr_NoMemory();
    for (uint32_t i = 0; list != NULL && i < count; i++) {
        PyObject *one = entry_tuple(seg, &entries[i]);
        if (one == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, i, one);
    }
    free(entries);
    return list;
}

PyObject *segment_outbox_due(PyObject *op, PyObject *args) {
    struct acc_segment *seg = seg_of(op);
    unsigned int limit = 256;
    struct acc_outbox_entry *entries;
    uint32_t count;
    enum acc_status status;
    if (!PyArg_ParseTuple(args, "|I:outbox_due", &limit) || !writable(seg)) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
        status = acc_outbox_due(seg, limit, &entries, &count);
    Py_END_ALLOW_THREADS
    return entry_list(seg, status, entries, count);
}

PyObject *segment_outbox_recent(PyObject *op, PyObject *arg) {
    struct acc_segment *seg = seg_of(op);
    struct acc_outbox_entry *entries;
    uint32_t count;
    uint64_t ns;
    enum acc_status status;
    if (!ns_from(arg, &ns)) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
        status = acc_outbox_recent(seg, ns, &entries, &count);
    Py_END_ALLOW_THREADS
    return entry_list(seg, status, entries, count);
}

PyObject *segment_outbox_heard(PyObject *op, PyObject *arg) {
    uint64_t number;
    if (!number_from(arg, &number) || !writable(seg_of(op))) {
        return NULL;
    }
    return PyBool_FromLong(acc_outbox_heard(seg_of(op), number));
}

PyObject *segment_outbox_given_up(PyObject *op, PyObject *arg) {
    uint64_t number;
    if (!number_from(arg, &number)) {
        return NULL;
    }
    return PyBool_FromLong(acc_outbox_given_up(seg_of(op), number));
}

PyObject *segment_outbox_unsent(PyObject *op, PyObject *arg) {
    struct acc_segment *seg = seg_of(op);
    struct acc_area_slot *slot;
    struct acc_outbox_entry *entries = NULL;
    uint32_t count = 0;
    bool whole = false;
    enum acc_status status = ACC_OK;
    if (!area_from(seg, arg, &slot)) {
        return NULL;
    }
    if (slot != NULL) {
        Py_BEGIN_ALLOW_THREADS /* it is long when Redis was away */
            status = acc_outbox_unsent(seg, id_of(seg, slot), &entries, &count, &whole);
        Py_END_ALLOW_THREADS
    }
    PyObject *keys = status != ACC_OK ? PyErr_NoMemory()
                     : whole          ? Py_NewRef(Py_None)
                                      : PyFrozenSet_New(NULL);
    for (uint32_t i = 0; keys != NULL && !whole && i < count; i++) {
        PyObject *key = PyBytes_FromStringAndSize((const char *)entries[i].key,
                                                  (Py_ssize_t)entries[i].key_size);
        if (key == NULL || PySet_Add(keys, key) != 0) {
            Py_CLEAR(keys);
        }
        Py_XDECREF(key);
    }
    free(entries);
    return keys;
}

PyObject *segment_outbox_owe(PyObject *op, PyObject *arg) {
    struct acc_segment *seg = seg_of(op);
    struct acc_area_slot *slot;
    if (!area_from(seg, arg, &slot) || !writable(seg)) {
        return NULL;
    }
    if (slot == NULL) {
        PyErr_Format(PyExc_KeyError, "outbox_owe: no such area: %S", arg);
        return NULL;
    }
    acc_outbox_owe(seg, id_of(seg, slot));
    Py_RETURN_NONE;
}

PyObject *segment_outbox_owed(PyObject *op, PyObject *unused) {
    (void)unused;
    return names_of(seg_of(op), acc_outbox_owed);
}

PyObject *segment_outbox_paid(PyObject *op, PyObject *arg) {
    struct acc_segment *seg = seg_of(op);
    struct acc_area_slot *slot;
    if (!area_from(seg, arg, &slot) || !writable(seg)) {
        return NULL;
    }
    if (slot != NULL) {
        acc_outbox_paid(seg, id_of(seg, slot));
    }
    Py_RETURN_NONE;
}
