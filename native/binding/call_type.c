/* accelerator._native.Call: what a decorator leaves in place of a function.  A call with one
 * argument whose value is known runs no Python frame; every other call is Python's, which is given
 * it as it came.
 *
 * Its attributes (the function's name, invalidate() and so on) are in the dict that Python fills. */
#include "objects.h"

#include <stddef.h>

typedef struct {
    PyObject_HEAD vectorcallfunc vectorcall;
    PyObject *dict;
    PyObject *weakrefs;
    PyObject *otherwise; /* called with the arguments of a call that is no plain hit */
    PyObject *bound_to;  /* (call, receiver) -> what an attribute of an object gives */
    AreaObject *view;    /* whose keys are the one argument of a plain call; NULL: there is none */
    Py_ssize_t position; /* of that argument: 1 behind a receiver */
} CallObject;

static PyObject *call(PyObject *op, PyObject *const *args, size_t flagged, PyObject *kwnames) {
    CallObject *self = (CallObject *)op;
    Py_ssize_t nargs = PyVectorcall_NARGS(flagged);
    if (acc_likely(self->view != NULL && kwnames == NULL && nargs == self->position + 1) &&
        acc_likely(object_key_type(args[self->position]))) {
        PyObject *object;
        int found = area_hit(self->view, args[self->position], &object);
        if (acc_likely(found != 0)) {
            return found == 1 ? object : NULL;
        }
    }
    return PyObject_Vectorcall(self->otherwise, args, (size_t)nargs, kwnames);
}

static PyObject *call_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"otherwise", "bound_to", "view", "position", NULL};
    struct binding *binding = binding_of_type(type);
    PyObject *otherwise, *bound_to, *view = Py_None;
    Py_ssize_t position = 0;
    if (binding == NULL || !PyArg_ParseTupleAndKeywords(args, kwargs, "OO|On:Call", names,
                                                        &otherwise, &bound_to, &view, &position)) {
        return NULL;
    }
    if (view != Py_None && !PyObject_TypeCheck(view, binding->area_type)) {
        PyErr_SetString(PyExc_TypeError, "Call: the view must be an Area or None");
        return NULL;
    }
    if (position < 0 || position > 1) {
        PyErr_SetString(PyExc_ValueError, "Call: the position must be 0 or 1");
        return NULL;
    }
    CallObject *self = (CallObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->vectorcall = call;
    self->otherwise = Py_NewRef(otherwise);
    self->bound_to = Py_NewRef(bound_to);
    self->view = view == Py_None ? NULL : (AreaObject *)Py_NewRef(view);
    self->position = position;
    self->dict = PyDict_New();
    if (self->dict == NULL) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static int call_traverse(PyObject *op, visitproc visit, void *arg) {
    CallObject *self = (CallObject *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->dict);
    Py_VISIT(self->otherwise);
    Py_VISIT(self->bound_to);
    Py_VISIT(self->view);
    return 0;
}

static int call_clear(PyObject *op) {
    CallObject *self = (CallObject *)op;
    Py_CLEAR(self->dict);
    Py_CLEAR(self->view);
    /* A cycle that dies may be called once more, by a finaliser. */
    Py_XSETREF(self->otherwise, Py_NewRef(Py_None));
    Py_XSETREF(self->bound_to, Py_NewRef(Py_None));
    return 0;
}

static void call_dealloc(PyObject *op) {
    CallObject *self = (CallObject *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    Py_CLEAR(self->dict);
    Py_CLEAR(self->otherwise);
    Py_CLEAR(self->bound_to);
    Py_CLEAR(self->view);
    type->tp_free(op);
    Py_DECREF(type);
}

/* As a function: an attribute of an object is bound to it, one of a class is this. */
static PyObject *call_get(PyObject *op, PyObject *receiver, PyObject *owner) {
    (void)owner;
    if (receiver == NULL || receiver == Py_None) {
        return Py_NewRef(op);
    }
    return PyObject_CallFunctionObjArgs(((CallObject *)op)->bound_to, op, receiver, NULL);
}

static PyObject *call_repr(PyObject *op) {
    PyObject *name = PyObject_GetAttrString(op, "__qualname__");
    if (name == NULL) {
        PyErr_Clear();
        return PyUnicode_FromFormat("<cached function at %p>", (void *)op);
    }
    PyObject *text = PyUnicode_FromFormat("<cached function %S at %p>", name, (void *)op);
    Py_DECREF(name);
    return text;
}

/* By its name, as a function. */
static PyObject *call_reduce(PyObject *op, PyObject *unused) {
    (void)unused;
    return PyObject_GetAttrString(op, "__qualname__");
}

static PyObject *call_itself(PyObject *op, PyObject *unused) {
    (void)unused;
    return Py_NewRef(op);
}

static PyMethodDef call_methods[] = {
    {"__reduce__", call_reduce, METH_NOARGS, NULL},
    {"__copy__", call_itself, METH_NOARGS, NULL},
    {"__deepcopy__", call_itself, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyMemberDef call_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(CallObject, vectorcall), READONLY, NULL},
    {"__dictoffset__", T_PYSSIZET, offsetof(CallObject, dict), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(CallObject, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef call_getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot call_slots[] = {
    {Py_tp_new, call_new},
    {Py_tp_dealloc, call_dealloc},
    {Py_tp_traverse, call_traverse},
    {Py_tp_clear, call_clear},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_descr_get, call_get},
    {Py_tp_repr, call_repr},
    {Py_tp_methods, call_methods},
    {Py_tp_members, call_members},
    {Py_tp_getset, call_getset},
    {0, NULL},
};

PyType_Spec call_spec = {
    .name = "accelerator._native.Call",
    .basicsize = sizeof(CallObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL |
             Py_TPFLAGS_METHOD_DESCRIPTOR | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = call_slots,
};
