/* accelerator._native.Bell: how the end of a flight reaches an event loop. */
#include "state.h"

#include "doorbell.h"

#include <errno.h>
#include <stddef.h>
#include <unistd.h>

typedef struct {
    PyObject_HEAD PyObject *weakrefs;
    SegmentObject *segment;
    PyObject *on_ring; /* for code that serves the twin too: never called here */
    int fd;
    pid_t pid; /* who made it: a forked child has a copy of the descriptor, and no bell */
} BellObject;

PyObject *segment_bell(PyObject *op, PyObject *unused) {
    (void)unused;
    SegmentObject *segment = (SegmentObject *)op;
    struct binding *binding = binding_of_type(Py_TYPE(op));
    if (binding == NULL) {
        return NULL;
    }
    enum acc_status status = acc_segment_register(segment->seg);
    if (status != ACC_OK) {
        return raise_status(status, "making a bell");
    }
    BellObject *self = (BellObject *)binding->bell_type->tp_alloc(binding->bell_type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->segment = (SegmentObject *)Py_NewRef(op);
    self->pid = getpid();
    self->fd = acc_doorbell_open(segment->seg);
    if (self->fd < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static void close_bell(BellObject *self) {
    int fd = self->fd;
    self->fd = -1;
    if (fd >= 0 && self->pid != getpid()) {
        close(fd);
    } else if (fd >= 0) {
        acc_doorbell_close(self->segment->seg, fd);
    }
}

static void bell_dealloc(PyObject *op) {
    BellObject *self = (BellObject *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    close_bell(self);
    Py_XDECREF(self->segment);
    Py_XDECREF(self->on_ring);
    type->tp_free(op);
    Py_DECREF(type);
}

static int bell_traverse(PyObject *op, visitproc visit, void *arg) {
    BellObject *self = (BellObject *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->segment);
    Py_VISIT(self->on_ring);
    return 0;
}

static int bell_gc_clear(PyObject *op) {
    Py_CLEAR(((BellObject *)op)->on_ring);
    return 0;
}

static PyObject *bell_fileno(PyObject *op, PyObject *unused) {
    (void)unused;
    return PyLong_FromLong(((BellObject *)op)->fd);
}

static PyObject *bell_clear(PyObject *op, PyObject *unused) {
    (void)unused;
    uint64_t count;
    /* Nothing to read is no error: it has been cleared before. */
    ssize_t n = read(((BellObject *)op)->fd, &count, sizeof count);
    (void)n;
    Py_RETURN_NONE;
}

static PyObject *bell_arm(PyObject *op, PyObject *arg) {
    BellObject *self = (BellObject *)op;
    int change = (int)PyLong_AsLong(arg);
    if (change == -1 && PyErr_Occurred()) {
        return NULL;
    }
    acc_doorbell_arm(self->segment->seg, self->fd, change);
    Py_RETURN_NONE;
}

static PyObject *bell_close(PyObject *op, PyObject *unused) {
    (void)unused;
    close_bell((BellObject *)op);
    Py_RETURN_NONE;
}

static PyMethodDef bell_methods[] = {
    {"fileno", bell_fileno, METH_NOARGS, NULL},
    {"clear", bell_clear, METH_NOARGS, NULL},
    {"arm", bell_arm, METH_O, NULL},
    {"close", bell_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyMemberDef bell_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(BellObject, weakrefs), READONLY, NULL},
    {"on_ring", T_OBJECT, offsetof(BellObject, on_ring), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot bell_slots[] = {
    {Py_tp_dealloc, bell_dealloc}, {Py_tp_traverse, bell_traverse}, {Py_tp_clear, bell_gc_clear},
    {Py_tp_methods, bell_methods}, {Py_tp_members, bell_members},   {0, NULL},
};

PyType_Spec bell_spec = {
    .name = "accelerator._native.Bell",
    .basicsize = sizeof(BellObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = bell_slots,
};
