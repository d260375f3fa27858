/* mget: many keys in one call, with the lines they need fetched together instead of one after the
 * other. */
#include "objects.h"

#define BATCH 32

/* Bring near what a batch will touch before the first of it is needed: entries, then index words
 * and values. */
static void prefetch_remembered(AreaObject *self, PyObject *const *keys, Py_ssize_t n) {
    struct object_entry *sets[BATCH];
    for (Py_ssize_t i = 0; i < n; i++) {
        sets[i] = object_key_type(keys[i])
                      ? object_cache_set(self->objects, object_key_hash(keys[i]))
                      : NULL;
        __builtin_prefetch(sets[i]);
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        for (int j = 0; sets[i] != NULL && j < 2; j++) {
            if (object_key(&sets[i][j]) == keys[i]) {
                __builtin_prefetch(object_slot(self->area.seg, &sets[i][j]));
                __builtin_prefetch((const void *)sets[i][j].held);
            }
        }
    }
}

/* A dict that need not grow on the way: growing is half the price of an answer of twenty. */
static PyObject *new_dict(Py_ssize_t size) {
#if PY_VERSION_HEX < 0x030d0000
    return _PyDict_NewPresized(size);
#else
    (void)size;
    return PyDict_New();
#endif
}

/* The hash of a str was needed to find the value: it need not be asked for again. */
static inline int dict_put(PyObject *dict, PyObject *key, PyObject *value) {
#if PY_VERSION_HEX < 0x030d0000
    if (acc_likely(PyUnicode_CheckExact(key)) && ((PyASCIIObject *)key)->hash != -1) {
        return _PyDict_SetItem_KnownHash(dict, key, value, ((PyASCIIObject *)key)->hash);
    }
#endif
    return PyDict_SetItem(dict, key, value);
}

struct mget {
    AreaObject *self;
    PyObject *result;
    PyObject *missing; /* list, made when first needed */
    PyObject *fallback;
    uint64_t misses;
};

/* In request order: a missing key takes its place in the answer at once. */
static bool mget_miss(struct mget *m, PyObject *key) {
    int seen = PyDict_Contains(m->result, key);
    if (seen != 0) {
        return seen > 0;
    }
    if (PyDict_SetItem(m->result, key, m->fallback) != 0) {
        return false;
    }
    m->misses++;
    if (m->missing == NULL && (m->missing = PyList_New(0)) == NULL) {
        return false;
    }
    return PyList_Append(m->missing, key) == 0;
}

/* The same of a key that only the caller's list holds. */
static bool mget_miss_at(struct mget *m, PyObject *keys, Py_ssize_t i) {
    PyObject *key = Py_NewRef(PySequence_Fast_GET_ITEM(keys, i));
    bool done = mget_miss(m, key);
    Py_DECREF(key);
    return done;
}

static bool mget_put(struct mget *m, PyObject *key, PyObject *value) {
    count_negative(m->self, value);
    bool done = dict_put(m->result, key, value) == 0;
    Py_DECREF(value);
    return done;
}

static inline bool mget_one(struct mget *m, PyObject *key) {
    PyObject *object = NULL;
    struct acc_look look;
    if (objects_usable(m->self, &look) && object_key_type(key)) {
        object =
            object_hit(m->self, object_find(m->self->objects, key, object_key_hash(key)), look);
    }
    if (acc_likely(object != NULL)) {
        return mget_put(m, key, object);
    }
    int found = area_read_one(m->self, key, &object);
    return found == 1 ? mget_put(m, key, object) : found == 0 && mget_miss(m, key);
}

/* Finalisers of objects that are forgotten may run. */
static void mget_prepare(AreaObject *self, PyObject *keys, Py_ssize_t i) {
    struct acc_look look;
    if (objects_usable(self, &look)) {
        Py_ssize_t left = PySequence_Fast_GET_SIZE(keys) - i;
        prefetch_remembered(self, PySequence_Fast_ITEMS(keys) + i, left < BATCH ? left : BATCH);
    }
}

/* Codecs, converters, hashes of keys, and finalisers of objects that are forgotten are user code, and
 * may change the caller's list: the size is asked behind each, and the key is held. */
static bool mget_all(struct mget *m, PyObject *keys) {
    bool done = true;
    for (Py_ssize_t i = 0; done; i++) {
        if (i % BATCH == 0) {
            mget_prepare(m->self, keys, i);
        }
        if (i >= PySequence_Fast_GET_SIZE(keys)) {
            break;
        }
        PyObject *key = Py_NewRef(PySequence_Fast_GET_ITEM(keys, i));
        done = mget_one(m, key);
        Py_DECREF(key);
    }
    return done;
}

static bool named_as_before(AreaObject *self, PyObject *names, PyObject *key) {
    PyObject *name = area_key_name(self, key);
    PyObject *before = name == NULL ? NULL : PyDict_SetDefault(names, key, name);
    int same = before == NULL ? -1 : PyObject_RichCompareBool(before, name, Py_EQ);
    Py_XDECREF(name);
    if (same == 0) {
        PyErr_SetString(
            PyExc_ValueError,
            "mget() answers with a dict, in which some of these keys are equal though "
            "they are different keys here, as 1 and True are: ask for them in two calls");
    }
    return same == 1;
}

/* 1 and True are one key of a dict and two keys here: the answer has no place for both.  Asked only
 * if the answer has fewer keys than the request. */
static bool keys_are_told_apart(struct mget *m, PyObject *keys) {
    if (acc_likely(PyDict_GET_SIZE(m->result) == PySequence_Fast_GET_SIZE(keys))) {
        return true;
    }
    PyObject *names = PyDict_New(); /* what each key of a dict is called here */
    bool done = names != NULL;
    for (Py_ssize_t i = 0; done && i < PySequence_Fast_GET_SIZE(keys); i++) {
        PyObject *key = Py_NewRef(PySequence_Fast_GET_ITEM(keys, i));
        done = named_as_before(m->self, names, key);
        Py_DECREF(key);
    }
    Py_XDECREF(names);
    return done;
}

/* What is missing goes to Python, which fills the result in place; a plain area's misses only
 * count. */
static bool mget_finish(struct mget *m, PyObject *options, PyObject *more) {
    AreaObject *self = m->self;
    if (m->missing == NULL) {
        return true;
    }
    if ((self->flags & AREA_PLAIN_MISS) != 0 && options == Py_None && more == NULL) {
        acc_count_own(&self->area.stats->counter[ACC_LOCAL_MISS], m->misses);
        return true;
    }
    PyObject *given = more == NULL ? PyDict_New() : Py_NewRef(more);
    PyObject *answer =
        given == NULL
            ? NULL
            : PyObject_CallMethodObjArgs((PyObject *)self, self->binding->str_mmiss, m->missing,
                                         m->result, m->fallback, options, given, NULL);
    Py_XDECREF(given);
    Py_XDECREF(answer);
    return answer != NULL;
}

static PyObject *mget_keys(AreaObject *self, PyObject *keys, PyObject *fallback, PyObject *options,
                           PyObject *more) {
    if (!area_ready(self)) {
        return NULL;
    }
    PyObject *sequence = PySequence_Fast(keys, "mget() takes an iterable of keys");
    if (sequence == NULL) {
        return NULL;
    }
    struct mget m = {
        .self = self, .fallback = fallback, .result = new_dict(PySequence_Fast_GET_SIZE(sequence))};
    bool done = m.result != NULL;
    if (done && (options != Py_None || more != NULL)) {
        /* Options may forbid what a plain hit returns: Python reads every key. */
        for (Py_ssize_t i = 0; done && i < PySequence_Fast_GET_SIZE(sequence); i++) {
            done = mget_miss_at(&m, sequence, i);
        }
    } else if (done) {
        done = mget_all(&m, sequence);
    }
    done = done && keys_are_told_apart(&m, sequence) && mget_finish(&m, options, more);
    Py_DECREF(sequence);
    Py_XDECREF(m.missing);
    if (!done) {
        Py_CLEAR(m.result);
    }
    return m.result;
}

PyObject *area_mget(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    if (nargs < 1 || nargs > 2) {
        PyErr_Format(PyExc_TypeError,
                     "mget() takes keys and a default (%zd positional arguments given)", nargs);
        return NULL;
    }
    PyObject *fallback = nargs > 1 ? args[1] : NULL, *options = Py_None, *more = NULL,
             *answer = NULL;
    if (kwnames == NULL ||
        split_keywords(args + nargs, kwnames, "mget", &fallback, &options, &more)) {
        answer = mget_keys((AreaObject *)op, args[0], fallback == NULL ? Py_None : fallback,
                           options, more);
    }
    Py_XDECREF(more);
    return answer;
}
