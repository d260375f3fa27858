/* The type that LevelCache inherits: its state, and how it is bound to a segment. */
#include "state.h"

#include <math.h>

/* What an unbound area compares its incarnation with: never equal, so every operation asks Python
 * to attach. */
static uint32_t no_incarnation = 0;

static void forget(AreaObject *self) {
    self->area =
        (struct acc_area){.incarnation_now = &no_incarnation, .incarnation = ACC_NEVER_ENTERED};
    self->objects = NULL;
    Py_CLEAR(self->segment);
}

/* The next operation attaches and binds.  What was bound stays valid until then: another thread may
 * be in the middle of a read or a write, at a point where it ran Python code. */
static void unbind(AreaObject *self) {
    self->area.incarnation_now = &no_incarnation;
    self->area.incarnation = ACC_NEVER_ENTERED;
}

static bool is_bound(const AreaObject *self) {
    return self->area.incarnation_now != &no_incarnation;
}

static PyObject *area_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    (void)args;
    (void)kwargs;
    struct binding *binding = binding_of_type(type);
    if (binding == NULL) {
        return NULL;
    }
    AreaObject *self = (AreaObject *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->binding = binding;
        forget(self);
    }
    return (PyObject *)self;
}

static int area_traverse(PyObject *op, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((AreaObject *)op)->converter);
    Py_VISIT(((AreaObject *)op)->segment);
    return 0;
}

/* Nobody is inside the area any more, so nobody stores into the objects that are its own. */
static void give_objects_back(AreaObject *self) {
    struct object_cache *objects = self->objects;
    if (objects != NULL && (self->flags & AREA_OWN_OBJECTS) != 0) {
        self->objects = NULL;
        object_cache_clear(objects);
        objects->spare = objects->used == 0; /* else a destructor was here: it stays whose it was */
    }
}

static int area_gc_clear(PyObject *op) {
    give_objects_back((AreaObject *)op);
    forget((AreaObject *)op);
    Py_CLEAR(((AreaObject *)op)->converter);
    return 0;
}

static void area_dealloc(PyObject *op) {
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    give_objects_back((AreaObject *)op);
    forget((AreaObject *)op);
    Py_CLEAR(((AreaObject *)op)->converter);
    type->tp_free(op);
    Py_DECREF(type);
}

bool area_ready_slow(AreaObject *self) {
    for (int tries = 0; tries < 2; tries++) {
        if (is_bound(self) && acc_area_enter(&self->area)) {
            return true;
        }
        /* Never bound, detached, or the segment is gone for this process: Python attaches (and
         * binds). */
        unbind(self);
        PyObject *answer = PyObject_CallMethodNoArgs((PyObject *)self, self->binding->str_attach);
        if (answer == NULL) {
            return false;
        }
        Py_DECREF(answer);
        if (!is_bound(self)) {
            PyErr_SetString(PyExc_RuntimeError, "_attach() did not bind the area");
            return false;
        }
    }
    if (acc_area_enter(&self->area)) {
        return true;
    }
    raise_status(ACC_ESYS, "entering the segment");
    return false;
}

/* Seconds to clock units; None: 0, which is no expiry. */
static bool units_of(PyObject *seconds, uint32_t *out) {
    *out = 0;
    if (seconds == Py_None) {
        return true;
    }
    double value = PyFloat_AsDouble(seconds);
    if (value == -1.0 && PyErr_Occurred()) {
        return false;
    }
    if (!(value > 0)) {
        PyErr_SetString(PyExc_ValueError, "_bind: a life must be None or more than 0 seconds");
        return false;
    }
    *out = acc_clock_after(0, value);
    return true;
}

/* What _bind() is told of the second level. */
struct freshness {
    PyObject *bound;
    double limit;
    int on_desync;
};

static bool keep_fresh(struct acc_area *area, const struct freshness *given) {
    if (given->on_desync < ACC_CAP || given->on_desync > ACC_SERVE) {
        PyErr_SetString(PyExc_ValueError, "_bind: on_desync out of range");
        return false;
    }
    if (given->bound == Py_None) {
        return true;
    }
    double bound = PyFloat_AsDouble(given->bound);
    if (bound == -1.0 && PyErr_Occurred()) {
        return false;
    }
    if (!(bound > 0 && isfinite(bound)) || !(given->limit >= 0 && given->limit <= bound)) {
        PyErr_SetString(PyExc_ValueError, "_bind: bound must be None or more than 0 seconds and "
                                          "finite, limit 0 to bound");
        return false;
    }
    acc_area_bound(area, bound, given->limit, (enum acc_desync)given->on_desync);
    return true;
}

/* Where an area keeps objects: with all that treat them alike, or alone.  False with an exception. */
static bool find_objects(AreaObject *self, SegmentObject *segment, uint32_t id, unsigned flags,
                         uint64_t bytes_max, struct object_cache **out) {
    *out = NULL;
    if ((flags & (AREA_OFF | AREA_VERIFY_FULL)) != 0) {
        return true;
    }
    if ((flags & AREA_OWN_OBJECTS) != 0) {
        bool same = self->segment == segment && (self->flags & AREA_OWN_OBJECTS) != 0;
        *out =
            same && self->objects != NULL ? self->objects : segment_own_objects(segment, bytes_max);
        return *out != NULL;
    }
    enum object_kind kind = (flags & AREA_OBJECTS_COPY) != 0     ? OBJECTS_COPY
                            : (flags & AREA_OBJECTS_SHARED) != 0 ? OBJECTS_SHARED
                                                                 : OBJECTS_AUTO;
    *out = segment_objects(segment, id, kind, bytes_max);
    return *out != NULL;
}

static PyObject *area_bind(PyObject *op, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"segment",
                            "area",
                            "ttl",
                            "null_ttl",
                            "stale_ttl",
                            "jitter",
                            "max_value_size",
                            "object_cache_bytes",
                            "flags",
                            "refresh_window",
                            "bound",
                            "limit",
                            "on_desync",
                            "key_converter",
                            NULL};
    AreaObject *self = (AreaObject *)op;
    PyObject *segment, *ttl = NULL, *null_ttl = NULL, *converter = Py_None;
    struct freshness freshness = {.bound = Py_None, .on_desync = ACC_CAP};
    const char *name;
    Py_ssize_t name_size;
    double stale_ttl = -1, jitter = -1, refresh_window = 0;
    unsigned int max_value_size = 0, flags = 0;
    unsigned long long object_bytes = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!s#|$OOddIKIdOdiO:_bind", names,
                                     self->binding->segment_type, &segment, &name, &name_size, &ttl,
                                     &null_ttl, &stale_ttl, &jitter, &max_value_size, &object_bytes,
                                     &flags, &refresh_window, &freshness.bound, &freshness.limit,
                                     &freshness.on_desync, &converter)) {
        return NULL;
    }
    if (ttl == NULL || null_ttl == NULL) {
        PyErr_SetString(PyExc_TypeError, "_bind: ttl and null_ttl must be given");
        return NULL;
    }
    uint32_t life, null_life;
    if (!units_of(ttl, &life) || !units_of(null_ttl, &null_life)) {
        return NULL;
    }
    if (!(jitter >= 0 && jitter <= 1) || !(stale_ttl >= 0) || !(refresh_window >= 0)) {
        PyErr_SetString(PyExc_ValueError, "_bind: jitter must be within 0 to 1, stale_ttl and "
                                          "refresh_window not below 0");
        return NULL;
    }
    struct acc_area area;
    enum acc_status status =
        acc_area_open(((SegmentObject *)segment)->seg, name, (size_t)name_size, &area);
    if (status != ACC_OK) {
        return raise_status(status, "opening an area");
    }
    if (!keep_fresh(&area, &freshness)) {
        return NULL;
    }
    if ((flags & AREA_OFF) != 0) {
        flags |= AREA_OBJECTS_COPY;
        flags &= ~(unsigned)AREA_PLAIN_SET;
    }
    if (converter != Py_None) {
        flags |= AREA_OWN_OBJECTS; /* what is one key to this object is another to its neighbours */
    }
    struct object_cache *objects;
    if (!find_objects(self, (SegmentObject *)segment, area.id, flags, object_bytes, &objects)) {
        return NULL;
    }
    if (self->converter != NULL && self->converter != converter && self->objects != NULL) {
        object_cache_clear(self->objects); /* they were kept by what is another key now */
    }
    Py_XSETREF(self->segment, (SegmentObject *)Py_NewRef(segment));
    PyObject *former = self->converter;
    self->converter = converter == Py_None ? NULL : Py_NewRef(converter);
    self->objects = objects;
    self->area = area;
    self->flags = flags;
    self->max_value_size = max_value_size;
    self->life = life;
    self->null_life = null_life;
    self->stale_life = stale_ttl > 0 ? acc_clock_after(0, stale_ttl) : 0;
    self->refresh_window = refresh_window > 0 ? acc_clock_after(0, refresh_window) : 0;
    self->jitter = (uint32_t)(jitter * 65536.0);
    self->random = acc_clock_ns() * 0x9e3779b97f4a7c15ull | 1;
    Py_XDECREF(former);
    Py_RETURN_NONE;
}

static PyObject *area_unbind(PyObject *op, PyObject *unused) {
    (void)unused;
    unbind((AreaObject *)op);
    Py_RETURN_NONE;
}

static PyObject *area_bound(PyObject *op, void *closure) {
    (void)closure;
    return PyBool_FromLong(is_bound((AreaObject *)op));
}

static PyObject *area_count(PyObject *op, PyObject *args) {
    AreaObject *self = (AreaObject *)op;
    int counter;
    unsigned long long n = 1;
    if (!PyArg_ParseTuple(args, "i|K:_count", &counter, &n)) {
        return NULL;
    }
    if (counter < 0 || counter >= ACC_COUNTERS) {
        PyErr_SetString(PyExc_ValueError, "_count: no such counter");
        return NULL;
    }
    if (!area_ready(self)) {
        return NULL;
    }
    acc_count_own(&self->area.stats->counter[counter], n);
    Py_RETURN_NONE;
}

static PyObject *area_counters(PyObject *op, PyObject *unused) {
    (void)unused;
    AreaObject *self = (AreaObject *)op;
    uint64_t sums[ACC_COUNTERS];
    if (!area_ready(self)) {
        return NULL;
    }
    acc_stats_sum(self->area.seg, self->area.id, sums);
    PyObject *answer = PyDict_New();
    for (int i = 0; answer != NULL && i < ACC_COUNTERS; i++) {
        PyObject *n = PyLong_FromUnsignedLongLong(sums[i]);
        if (n == NULL || PyDict_SetItemString(answer, acc_counter_names[i], n) != 0) {
            Py_CLEAR(answer);
        }
        Py_XDECREF(n);
    }
    return answer;
}

static PyObject *area_hash(PyObject *op, PyObject *key_object) {
    AreaObject *self = (AreaObject *)op;
    uint8_t buffer[KEY_BUFFER];
    struct acc_key key;
    if (!area_ready(self) || !area_key(self, key_object, buffer, &key)) {
        return NULL;
    }
    return PyLong_FromUnsignedLongLong(key.hash);
}

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef area_methods[] = {
    {"get", FAST(area_get), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR(
         "get($self, key, /, default=None, *, options=None, **read_options)\n--\n\nRead one key.")},
    {"mget", FAST(area_mget), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("mget($self, keys, /, default=None, *, options=None, **read_options)\n--\n\n"
               "Read many keys.")},
    {"set", FAST(area_set), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("set($self, key, value, /, ttl=..., **options)\n--\n\nStore one key.")},
    {"_hit", area_hit_method, METH_O, NULL},
    {"_bind", FAST(area_bind), METH_VARARGS | METH_KEYWORDS, NULL},
    {"_unbind", area_unbind, METH_NOARGS, NULL},
    {"_store", FAST(area_store), METH_VARARGS | METH_KEYWORDS, NULL},
    {"_read", FAST(area_read), METH_VARARGS | METH_KEYWORDS, NULL},
    {"_token", area_token, METH_O, NULL},
    {"_delete", area_delete, METH_O, NULL},
    {"_expire", area_expire, METH_O, NULL},
    {"_touch", area_touch, METH_VARARGS, NULL},
    {"_incr", area_incr, METH_VARARGS, NULL},
    {"_clear", area_clear, METH_NOARGS, NULL},
    {"_freshness", area_freshness, METH_NOARGS, NULL},
    {"_count", area_count, METH_VARARGS, NULL},
    {"_counters", area_counters, METH_NOARGS, NULL},
    {"_hash", area_hash, METH_O, NULL},
    {"_enter", area_enter, METH_VARARGS, NULL},
    {"_enter_alone", area_enter_alone, METH_VARARGS, NULL},
    {"_pause", area_pause, METH_VARARGS, NULL},
    {"_pausing", area_pausing, METH_O, NULL},
    {"_latency", area_latency, METH_O, NULL},
    {"_latencies", area_latencies, METH_NOARGS, NULL},
    {"_l2_latency", area_l2_latency, METH_O, NULL},
    {"_l2_latencies", area_l2_latencies, METH_NOARGS, NULL},
    {"_note", area_note, METH_VARARGS, NULL},
    {"_note_clear", area_note_clear, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef area_getset[] = {
    {"_bound", area_bound, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot area_slots[] = {
    {Py_tp_new, area_new},           {Py_tp_dealloc, area_dealloc},
    {Py_tp_traverse, area_traverse}, {Py_tp_clear, area_gc_clear},
    {Py_tp_methods, area_methods},   {Py_tp_getset, area_getset},
    {Py_sq_contains, area_contains}, {0, NULL},
};

PyType_Spec area_spec = {
    .name = "accelerator._native.Area",
    .basicsize = sizeof(AreaObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = area_slots,
};

/* CPython's call of a method descriptor is fast only if the descriptor is the class's own. */
PyObject *binding_install(PyObject *module, PyObject *type) {
    struct binding *binding = PyModule_GetState(module);
    if (!PyType_Check(type) || !PyType_IsSubtype((PyTypeObject *)type, binding->area_type)) {
        PyErr_SetString(PyExc_TypeError, "install() takes a subclass of Area");
        return NULL;
    }
    for (PyMethodDef *method = area_methods; method->ml_name[0] != '_'; method++) {
        PyObject *own = PyDescr_NewMethod((PyTypeObject *)type, method);
        if (own == NULL || PyObject_SetAttrString(type, method->ml_name, own) != 0) {
            Py_XDECREF(own);
            return NULL;
        }
        Py_DECREF(own);
    }
    Py_RETURN_NONE;
}
