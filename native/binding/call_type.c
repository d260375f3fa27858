/* accelerator._native.Call: what a decorator leaves in place of a function.  A call whose arguments
 * are plain and whose value is known runs no Python frame; every other call is Python's, which is
 * given it as it came.
 *
 * Objects are remembered by the arguments as they were given, not by the key that they make: a lone
 * int or str by itself, all else by the name of the call, bytes in which types and lengths are
 * written, so that no two calls share one.  (So a lone bytes argument has a name, too: it could be
 * that of another call.)  The key is only made when nothing is remembered, by the view's converter,
 * which is given the argument, or (arguments, keywords).
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

/* --- the name of a call ------------------------------------------------------------------------ */

#define NAME_MAX_SIZE 256

struct name {
    uint8_t bytes[NAME_MAX_SIZE];
    Py_ssize_t size;
};

static inline bool put_tagged(struct name *name, char tag, const void *data, Py_ssize_t size) {
    if (acc_unlikely(size > NAME_MAX_SIZE - name->size - 3)) {
        return false;
    }
    uint8_t *at = name->bytes + name->size;
    at[0] = (uint8_t)tag;
    at[1] = (uint8_t)size;
    at[2] = (uint8_t)(size >> 8);
    memcpy(at + 3, data, (size_t)size);
    name->size += size + 3;
    return true;
}

static bool put_text(struct name *name, PyObject *text) {
    if (acc_likely(PyUnicode_IS_COMPACT_ASCII(text))) {
        return put_tagged(name, 's', PyUnicode_DATA(text), PyUnicode_GET_LENGTH(text));
    }
    Py_ssize_t size;
    const char *data = PyUnicode_AsUTF8AndSize(text, &size);
    if (data == NULL) {
        PyErr_Clear(); /* it has no UTF-8 form: Python says so */
        return false;
    }
    return put_tagged(name, 's', data, size);
}

static bool put_int(struct name *name, PyObject *number) {
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(number, &overflow);
    return overflow == 0 && put_tagged(name, 'i', &value, sizeof value);
}

static bool put_uuid(struct name *name, PyObject *value, struct binding *binding) {
    PyObject *bytes = PyObject_GetAttr(value, binding->str_bytes);
    bool done = bytes != NULL && PyBytes_CheckExact(bytes) &&
                put_tagged(name, 'u', PyBytes_AS_STRING(bytes), PyBytes_GET_SIZE(bytes));
    if (bytes == NULL) {
        PyErr_Clear();
    }
    Py_XDECREF(bytes);
    return done;
}

/* Of exact types only, whose value is all there is to them; no code of the application runs. */
static inline bool put_argument(struct name *name, PyObject *value, struct binding *binding) {
    if (PyLong_CheckExact(value)) {
        return put_int(name, value);
    }
    if (PyUnicode_CheckExact(value)) {
        return put_text(name, value);
    }
    if (PyBytes_CheckExact(value)) {
        return put_tagged(name, 'b', PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value));
    }
    if (PyFloat_CheckExact(value)) {
        double number = PyFloat_AS_DOUBLE(value);
        return put_tagged(name, 'f', &number, sizeof number);
    }
    if ((PyObject *)Py_TYPE(value) == binding->uuid_type) {
        return put_uuid(name, value, binding);
    }
    bool single = value == Py_None || PyBool_Check(value);
    return single && put_tagged(name, value == Py_None ? 'N' : value == Py_True ? 'T' : 'F', "", 0);
}

/* A call as it came, behind the receiver. */
struct given {
    PyObject *const *args;
    Py_ssize_t nargs;
    PyObject *kwnames;
};

/* NULL without an exception: not every argument is plain, or they are long. */
static inline PyObject *name_of(const struct given *given, struct binding *binding) {
    struct name name;
    name.size = 0;
    for (Py_ssize_t i = 0; i < given->nargs; i++) {
        if (!put_argument(&name, given->args[i], binding)) {
            return NULL;
        }
    }
    Py_ssize_t keywords = given->kwnames == NULL ? 0 : PyTuple_GET_SIZE(given->kwnames);
    for (Py_ssize_t i = 0; i < keywords; i++) {
        PyObject *keyword = PyTuple_GET_ITEM(given->kwnames, i);
        if (!PyUnicode_CheckExact(keyword) || !put_tagged(&name, 'k', "", 0) ||
            !put_text(&name, keyword) ||
            !put_argument(&name, given->args[given->nargs + i], binding)) {
            return NULL;
        }
    }
    PyObject *bytes = PyBytes_FromStringAndSize((const char *)name.bytes, name.size);
    if (bytes == NULL) {
        PyErr_Clear();
    }
    return bytes;
}

/* (arguments, keywords), for the converter. */
static PyObject *pair_of(const struct given *given) {
    PyObject *positional = PyTuple_New(given->nargs), *keywords = PyDict_New();
    bool done = positional != NULL && keywords != NULL;
    for (Py_ssize_t i = 0; done && i < given->nargs; i++) {
        PyTuple_SET_ITEM(positional, i, Py_NewRef(given->args[i]));
    }
    Py_ssize_t count = given->kwnames == NULL ? 0 : PyTuple_GET_SIZE(given->kwnames);
    for (Py_ssize_t i = 0; done && i < count; i++) {
        done = PyDict_SetItem(keywords, PyTuple_GET_ITEM(given->kwnames, i),
                              given->args[given->nargs + i]) == 0;
    }
    PyObject *pair = done ? PyTuple_Pack(2, positional, keywords) : NULL;
    Py_XDECREF(positional);
    Py_XDECREF(keywords);
    return pair;
}

/* --- calls ------------------------------------------------------------------------------------ */

/* 1 hit, 0 anything else, -1 exception. */
static __attribute__((noinline)) int hit_by_name(AreaObject *view, const struct given *given,
                                                 PyObject **out) {
    PyObject *name = name_of(given, view->binding);
    if (name == NULL) {
        return 0;
    }
    int found = area_hit_remembered(view, name, out);
    if (acc_unlikely(found == 0)) {
        PyObject *pair = pair_of(given);
        found = pair == NULL ? -1 : area_hit_converted(view, pair, name, out);
        Py_XDECREF(pair);
    }
    Py_DECREF(name);
    return found;
}

static inline int hit(AreaObject *view, const struct given *given, PyObject **out) {
    if (acc_likely(given->nargs == 1 && given->kwnames == NULL) &&
        acc_likely(PyLong_CheckExact(given->args[0]) || PyUnicode_CheckExact(given->args[0]))) {
        return area_hit(view, given->args[0], out);
    }
    return hit_by_name(view, given, out);
}

static PyObject *call(PyObject *op, PyObject *const *args, size_t flagged, PyObject *kwnames) {
    CallObject *self = (CallObject *)op;
    Py_ssize_t nargs = PyVectorcall_NARGS(flagged);
    if (acc_likely(self->view != NULL && nargs >= self->position)) {
        const struct given given = {args + self->position, nargs - self->position, kwnames};
        PyObject *object;
        int found = hit(self->view, &given, &object);
        if (acc_likely(found == 1)) {
            return object;
        }
        if (acc_unlikely(found < 0)) {
            if (!PyErr_ExceptionMatches(PyExc_Exception)) {
                return NULL;
            }
            PyErr_Clear(); /* Python finds the same, and knows what is to be done about it */
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
