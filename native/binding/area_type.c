/* The type that LevelCache inherits: its state, and how it is bound to a segment. */
#include "hot.h"

#include "override.h"

#include <math.h>

/* What an unbound area compares its stamp with: never equal, so every operation asks Python to
 * attach. */
static uint64_t no_stamp = 0;

static void forget(AreaObject *self) {
    self->area = (struct acc_area){.stamp_now = &no_stamp, .stamp = ACC_NEVER_ENTERED};
    self->objects = NULL;
    Py_CLEAR(self->segment);
}

/* The next operation attaches and binds.  What was bound stays valid until then: another thread may
 * be in the middle of a read or a write, at a point where it ran Python code. */
static void unbind(AreaObject *self) {
    self->area.stamp_now = &no_stamp;
    self->area.stamp = ACC_NEVER_ENTERED;
}

static bool is_tied(const AreaObject *self) {
    return self->area.stamp_now != &no_stamp;
}

/* ... and under the overrides that this process acts on. */
static bool is_bound(const AreaObject *self) {
    return is_tied(self) && self->area.overrides == acc_override_acted(self->area.seg);
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
        SegmentObject *segment =
            (SegmentObject *)Py_NewRef(self->segment); /* see objects_renew() */
        self->objects = NULL;
        object_cache_clear(objects);
        objects->spare = objects->used == 0; /* else a destructor was here: it stays whose it was */
        Py_DECREF(segment);
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

/* _attach() calls before an area that is not bound behind it is an error: other threads may detach
 * before it returns. */
#define ATTACHES 16
/* ... and before not getting into the segment is one. */
#define ENTRIES 2
/* ... and before it is used as it was bound, though other overrides are in force by now: where they
 * change all the time no operation may fail for that, and the next one has it bound anew. */
#define REBINDS 4

bool area_ready_slow(AreaObject *self) {
    for (int tries = 0; tries < ATTACHES; tries++) {
        bool bound = tries < REBINDS ? is_bound(self) : is_tied(self);
        bool entered = bound && acc_area_enter(&self->area);
        if (entered && (tries >= REBINDS || is_bound(self))) {
            return true;
        }
        if (bound && !entered && tries >= ENTRIES) {
            raise_status(ACC_ESYS, "entering the segment");
            return false;
        }
        /* Never bound, detached, bound under other overrides, or the segment is gone for this
         * process: Python attaches (and binds). */
        unbind(self);
        PyObject *answer = PyObject_CallMethodNoArgs((PyObject *)self, self->binding->str_attach);
        if (answer == NULL) {
            return false;
        }
        Py_DECREF(answer);
    }
    if (is_tied(self) && acc_area_enter(&self->area)) {
        return true;
    }
    PyErr_SetString(PyExc_RuntimeError, "_attach() did not bind the area");
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
        bool same = self->segment == segment && (self->flags & AREA_OWN_OBJECTS) != 0 &&
                    self->area.id == id;
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

/* Is what was a caller's key of an object the same now? */
static bool named_alike(const AreaObject *self, PyObject *converter, unsigned flags) {
    return (self->converter == NULL ? Py_None : self->converter) == converter &&
           ((self->flags ^ flags) & AREA_BY_ANSWER) == 0;
}

static void forget_own(AreaObject *self) {
    if (self->objects != NULL && (self->flags & AREA_OWN_OBJECTS) != 0) {
        SegmentObject *segment =
            (SegmentObject *)Py_NewRef(self->segment); /* see objects_renew() */
        object_cache_clear(self->objects);
        Py_DECREF(segment);
    }
}

/* Of the overrides that _bind()'s arguments come of; None: of those in force. */
static bool print_from(struct acc_segment *seg, PyObject *given, uint32_t *out) {
    if (given == Py_None) {
        *out = acc_override_notice(seg);
        return true;
    }
    unsigned long number = PyLong_AsUnsignedLong(given);
    *out = (uint32_t)number;
    return !(number == (unsigned long)-1 && PyErr_Occurred());
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
                            "variant",
                            "key_converter",
                            "overrides",
                            NULL};
    AreaObject *self = (AreaObject *)op;
    PyObject *segment, *ttl = NULL, *null_ttl = NULL, *converter = Py_None;
    PyObject *overrides = Py_None;
    struct freshness freshness = {.bound = Py_None, .on_desync = ACC_CAP};
    const char *name;
    Py_ssize_t name_size;
    double stale_ttl = -1, jitter = -1, refresh_window = 0;
    unsigned int max_value_size = 0, flags = 0;
    unsigned long long object_bytes = 0;
    long long variant = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!s#|$OOddIKIdOdiLOO:_bind", names,
                                     self->binding->segment_type, &segment, &name, &name_size, &ttl,
                                     &null_ttl, &stale_ttl, &jitter, &max_value_size, &object_bytes,
                                     &flags, &refresh_window, &freshness.bound, &freshness.limit,
                                     &freshness.on_desync, &variant, &converter, &overrides)) {
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
    if (variant < 0 || variant > UINT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "_bind: variant must be a number of 32 bits");
        return NULL;
    }
    uint32_t print;
    if (!print_from(((SegmentObject *)segment)->seg, overrides, &print)) {
        return NULL;
    }
    struct acc_area area;
    enum acc_status status = acc_area_open_version(((SegmentObject *)segment)->seg, name,
                                                   (size_t)name_size, (uint32_t)variant, &area);
    if (status != ACC_OK) {
        return raise_status(status, "opening an area");
    }
    area.overrides = print;
    if (acc_incarnation(area.seg) != 0) {
        area.stats = acc_stats_of(area.seg, area.base); /* another thread may be about to count */
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
    if (objects != self->objects || !named_alike(self, converter, flags)) {
        forget_own(self); /* another area's, or kept by what is another key now */
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
    if (self->hot.left == 0) {
        hot_draw(self);
    }
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
    acc_stats_sum(self->area.seg, self->area.base, sums);
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

/* What help() shows of the methods that users call.  The twin in Python has the same text. */
PyDoc_STRVAR(
    get_doc,
    "get($self, key, /, default=None, *, options=None, **read_options)\n"
    "--\n"
    "\n"
    "Read one key; with a loader, load it on a miss.\n"
    "\n"
    "A hit in the memory of this host takes no lock and runs no Python code.\n"
    "\n"
    "Args:\n"
    "    key: str, bytes, int, UUID, None, bool, or a tuple of those.\n"
    "    default: What to answer if the key is not known.  A stored None is no miss; with MISS\n"
    "        as default both can be told apart.\n"
    "    options: What this read allows, a ReadOptions.\n"
    "    read_options: The same as keywords: allow_stale (bool), disable_load (bool),\n"
    "        max_staleness (seconds, or another duration).\n"
    "\n"
    "Returns:\n"
    "    The value, a stored None included, or *default*.\n"
    "\n"
    "Raises:\n"
    "    LoaderError: The loader raised, and no stale value was there and allowed.\n"
    "    LoaderTimeout: Others' loads took longer than ``wait_timeout``, and ``max_loads`` run.\n"
    "    ConfigError: The loader is async: use aget().\n"
    "    TypeError, ValueError: The key or an option is wrong.\n"
    "\n"
    "A miss blocks for at most ``redis_timeout``, and then for as long as the loader does, or\n"
    "for ``wait_timeout`` where another one loads.");

PyDoc_STRVAR(
    mget_doc,
    "mget($self, keys, /, default=None, *, options=None, **read_options)\n"
    "--\n"
    "\n"
    "Read many keys; with a loader, load what is missing.\n"
    "\n"
    "The loader is asked once if it has ``mload``, else key by key.\n"
    "\n"
    "Args:\n"
    "    keys: An iterable of keys, each as get() takes it.\n"
    "    default: What to answer for those that are not known.\n"
    "    options: As get() takes it.\n"
    "    read_options: As get() takes them.\n"
    "\n"
    "Returns:\n"
    "    A dict of every requested key, in the order of the request, each once.\n"
    "\n"
    "Raises:\n"
    "    LoaderError, LoaderTimeout, ConfigError: As get() does, for any of the keys; what was\n"
    "        loaded for the others is stored.\n"
    "    TypeError: A key or an option is wrong.\n"
    "    ValueError: The same, or keys that are equal in a dict and not here, as 1 and True.\n"
    "\n"
    "Misses block as with get().");

PyDoc_STRVAR(
    set_doc,
    "set($self, key, value, /, ttl=..., *, tags=None, broadcast=None)\n"
    "--\n"
    "\n"
    "Store one key, for all processes; with Redis for all hosts.\n"
    "\n"
    "Args:\n"
    "    key: As get() takes it.\n"
    "    value: What the area's codec can encode, up to ``max_value_size`` bytes.\n"
    "    ttl: Its life: seconds, a timedelta, or text such as \"5m\"; None: no expiry; 0: nothing\n"
    "        is stored, and an older copy goes.  Not given: as the area says.\n"
    "    tags: An iterable of str, each of 1 to 255 bytes in UTF-8: delete_tags() forgets the\n"
    "        value with all others that carry one of them.  A value carries at most 8, those of\n"
    "        the area included.\n"
    "    broadcast: Whether other hosts are told; None: as ``broadcast_sets`` says.\n"
    "\n"
    "Raises:\n"
    "    SerializationError: The value cannot be encoded, or is too large; nothing has changed.\n"
    "    TypeError, ValueError: The key, *ttl*, a tag or *broadcast* is wrong.\n"
    "\n"
    "What the memory or Redis does not take is logged, and raises nothing.  Blocks for at most\n"
    "20 ms, with Redis for at most ``redis_timeout``.");

PyDoc_STRVAR(contains_doc,
             "__contains__($self, key, /)\n"
             "--\n"
             "\n"
             "Tell whether a fresh value is there, a stored None included.\n"
             "\n"
             "Counts as no read, and never loads.\n"
             "\n"
             "Raises:\n"
             "    TypeError, ValueError: The key is wrong.\n"
             "\n"
             "Never waits on this host; what Redis has is looked for within ``redis_timeout``.");

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef area_methods[] = {
    {"get", FAST(area_get), METH_FASTCALL | METH_KEYWORDS, get_doc},
    {"mget", FAST(area_mget), METH_FASTCALL | METH_KEYWORDS, mget_doc},
    {"set", FAST(area_set), METH_FASTCALL | METH_KEYWORDS, set_doc},
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
    {"_delete_tags", area_delete_tags, METH_O, NULL},
    {"_expire_tags", area_expire_tags, METH_O, NULL},
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
    {"_note_tag", area_note_tag, METH_VARARGS, NULL},
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

/* `key in cache` goes through a slot, whose wrapper in the class has a docstring for all types.  A
 * method of that name instead would make each `in` of a subclass a call through Python; so it is the
 * same wrapper again, with other words. */
bool binding_describe_contains(struct binding *binding) {
    PyObject *type = (PyObject *)binding->area_type, *own = NULL;
    PyObject *found = PyObject_GetAttrString(type, "__contains__");
    if (found != NULL && Py_IS_TYPE(found, &PyWrapperDescr_Type)) {
        PyWrapperDescrObject *wrapper = (PyWrapperDescrObject *)found;
        binding->contains = *wrapper->d_base;
        binding->contains.doc = contains_doc;
        own = PyDescr_NewWrapper(binding->area_type, &binding->contains, wrapper->d_wrapped);
    } else if (found != NULL) {
        PyErr_SetString(PyExc_SystemError, "the slot of `in` has no wrapper");
    }
    bool done = own != NULL && PyObject_SetAttrString(type, "__contains__", own) == 0;
    Py_XDECREF(own);
    Py_XDECREF(found);
    return done;
}
