/* Writes: set, whose plain form runs no Python frame, and the primitives that LevelCache's other
 * methods use.
 *
 * A write first tries the lock with the GIL held (it is free almost always, and held for less than
 * a GIL switch costs); only then it waits, with the GIL released. */
#include "hot.h"

#include "lock.h"

/* --- lives ------------------------------------------------------------------------------------ */

static uint64_t next_random(AreaObject *self) {
    uint64_t x = self->random;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return self->random = x;
}

/* A configured life from now, shortened by a random part so that what was written together does not
 * end together. */
static void configured_life(AreaObject *self, uint32_t life, struct acc_write *write) {
    uint32_t now = write->loaded_at;
    if (life == 0) {
        return;
    }
    uint64_t cut = (uint64_t)life * self->jitter >> 16;
    if (cut != 0) {
        life -= (uint32_t)((next_random(self) >> 32) * (cut + 1) >> 32);
    }
    write->expire_at = now + life == 0 ? 1 : now + life;
    if (self->stale_life != 0) {
        uint32_t end = write->expire_at + self->stale_life;
        write->stale_until = end == 0 ? 1 : end;
    }
}

static void given_life(uint32_t now, double ttl, double stale_ttl, uint32_t *expire_at,
                       uint32_t *stale_until) {
    *expire_at = acc_clock_after(now, ttl);
    *stale_until = stale_ttl > 0 ? acc_clock_after(*expire_at, stale_ttl) : 0;
}

/* ttl None: no expiry. */
bool area_life(PyObject *ttl, double stale_ttl, uint32_t now, uint32_t *expire_at,
               uint32_t *stale_until) {
    *expire_at = *stale_until = 0;
    if (ttl == Py_None) {
        return true;
    }
    double seconds = PyFloat_AsDouble(ttl);
    if (seconds == -1.0 && PyErr_Occurred()) {
        return false;
    }
    if (!(seconds > 0) || !(stale_ttl >= 0)) {
        PyErr_SetString(PyExc_ValueError,
                        "a life must be more than 0 seconds, a stale life not less than 0");
        return false;
    }
    given_life(now, seconds, stale_ttl, expire_at, stale_until);
    return true;
}

bool area_age(double seconds, uint32_t *out) {
    if (!(seconds >= 0)) {
        PyErr_SetString(PyExc_ValueError, "an age must not be less than 0 seconds");
        return false;
    }
    *out = seconds > 0 ? acc_clock_after(0, seconds) : 0;
    return true;
}

/* --- store ------------------------------------------------------------------------------------ */

static __attribute__((noinline, cold)) enum acc_status store_waiting(
    AreaObject *self, const struct acc_key *key, const struct acc_write *write) {
    struct held held = hold(self);
    enum acc_status status;
    Py_BEGIN_ALLOW_THREADS
        status = acc_store(&held.area, key, write, ACC_LOCK_BUDGET_NS);
    Py_END_ALLOW_THREADS
    Py_DECREF(held.segment);
    return status;
}

static __attribute__((noinline, cold)) void count_rejected(struct acc_stats *stats,
                                                           enum acc_status status, bool fill) {
    switch (status) {
    case ACC_TOO_LARGE: acc_count(stats, ACC_STORE_REJECTED_SIZE); break;
    case ACC_BUSY: acc_count(stats, ACC_LOCK_GIVEUP); break;
    case ACC_NOT_STORED:
        if (fill) {
            acc_count(stats, ACC_STORE_REJECTED_RACE);
        }
        break;
    default: break;
    }
}

static inline enum acc_status store_and_count(AreaObject *self, const struct acc_key *key,
                                              const struct acc_write *write) {
    enum acc_status status = acc_store_in_turn(&self->area, key, write);
    if (acc_unlikely(status == ACC_BUSY)) {
        status = store_waiting(self, key, write);
    }
    if (acc_likely(status == ACC_OK)) {
        acc_count_own(&self->area.stats->counter[ACC_SET_TOTAL], 1);
    } else {
        count_rejected(self->area.stats, status, write->mode == ACC_FILL);
    }
    return status;
}

/* A value of a raw type, as bytes that live as long as the object or `number`.  False: not a raw
 * type. */
static bool raw_value(PyObject *value, uint8_t number[8], struct acc_write *write) {
    Py_ssize_t size = 8;
    const void *data = number;
    if (PyBytes_CheckExact(value)) {
        write->code = ACC_CODE_BYTES;
        data = PyBytes_AS_STRING(value);
        size = PyBytes_GET_SIZE(value);
    } else if (PyUnicode_CheckExact(value)) {
        if (!PyUnicode_IS_COMPACT_ASCII(value)) {
            return false; /* its UTF-8 form would be kept in the caller's object for good */
        }
        write->code = ACC_CODE_STR;
        data = PyUnicode_DATA(value);
        size = PyUnicode_GET_LENGTH(value);
    } else if (PyLong_CheckExact(value)) {
        int overflow;
        uint64_t bits = (uint64_t)PyLong_AsLongLongAndOverflow(value, &overflow);
        if (overflow != 0) {
            return false;
        }
        write->code = ACC_CODE_INT;
        memcpy(number, &bits, 8);
    } else if (PyFloat_CheckExact(value)) {
        double bits = PyFloat_AS_DOUBLE(value);
        write->code = ACC_CODE_FLOAT;
        memcpy(number, &bits, 8);
    } else if (PyBool_Check(value)) {
        write->code = value == Py_True ? ACC_CODE_TRUE : ACC_CODE_FALSE;
        size = 0;
    } else {
        return false;
    }
    if (size >= (Py_ssize_t)ACC_VALUE_MAX) {
        return false;
    }
    write->data = data;
    write->size = (uint32_t)size;
    return true;
}

static bool plain_ttl(PyObject *ttl, struct binding *binding) {
    if (ttl == NULL || ttl == binding->unset || ttl == Py_None) {
        return true;
    }
    /* Within what needs no judgement; everything else (0, negative, NaN, text, timedelta) is
     * Python's. */
    double seconds = PyFloat_CheckExact(ttl)  ? PyFloat_AS_DOUBLE(ttl)
                     : PyLong_CheckExact(ttl) ? PyLong_AsDouble(ttl)
                                              : -1.0;
    if (seconds == -1.0) {
        PyErr_Clear();
    }
    return seconds > 0.0 && seconds < 1e9;
}

/* 1 stored (or rightly not), 0 not a plain set, -1 exception. */
static inline int set_plain(AreaObject *self, PyObject *key_object, PyObject *value,
                            PyObject *ttl) {
    uint8_t number[8], buffer[KEY_BUFFER];
    struct acc_write write = {.mode = ACC_SET};
    if ((self->flags & AREA_PLAIN_SET) == 0 || !raw_value(value, number, &write) ||
        write.size > self->max_value_size || !plain_ttl(ttl, self->binding)) {
        return 0;
    }
    struct acc_key key;
    if (!area_key(self, key_object, buffer, &key)) {
        return -1;
    }
    write.loaded_at = acc_now(self->area.seg);
    if (ttl == NULL || ttl == self->binding->unset) {
        configured_life(self, self->life, &write);
    } else if (ttl != Py_None) {
        given_life(write.loaded_at, PyFloat_AsDouble(ttl),
                   (double)self->stale_life / ACC_UNITS_PER_SECOND, &write.expire_at,
                   &write.stale_until);
    }
    store_and_count(self, &key, &write);
    return 1;
}

static PyObject *set_in_python(AreaObject *self, PyObject *key, PyObject *value, PyObject *ttl,
                               PyObject *more) {
    PyObject *given = more == NULL ? PyDict_New() : Py_NewRef(more);
    if (given == NULL) {
        return NULL;
    }
    PyObject *answer =
        PyObject_CallMethodObjArgs((PyObject *)self, self->binding->str_set, key, value,
                                   ttl == NULL ? self->binding->unset : ttl, given, NULL);
    Py_DECREF(given);
    return answer;
}

static bool set_keywords(PyObject *const *values, PyObject *kwnames, PyObject **ttl,
                         PyObject **more) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(kwnames); i++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, i);
        if (PyUnicode_CompareWithASCIIString(name, "ttl") == 0) {
            if (*ttl != NULL) {
                PyErr_SetString(PyExc_TypeError, "set() got multiple values for argument 'ttl'");
                return false;
            }
            *ttl = values[i];
            continue;
        }
        if ((*more == NULL && (*more = PyDict_New()) == NULL) ||
            PyDict_SetItem(*more, name, values[i]) != 0) {
            return false;
        }
    }
    return true;
}

PyObject *area_set(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    AreaObject *self = (AreaObject *)op;
    if (nargs < 2 || nargs > 3) {
        PyErr_Format(PyExc_TypeError,
                     "set() takes a key, a value and a ttl (%zd positional arguments given)",
                     nargs);
        return NULL;
    }
    PyObject *ttl = nargs == 3 ? args[2] : NULL, *more = NULL, *answer = NULL;
    if ((kwnames == NULL || set_keywords(args + nargs, kwnames, &ttl, &more)) && area_ready(self)) {
        int done = more == NULL ? set_plain(self, args[0], args[1], ttl) : 0;
        if (done == 0) {
            answer = set_in_python(self, args[0], args[1], ttl, more);
        } else if (done > 0) {
            answer = Py_NewRef(Py_None);
        }
    }
    Py_XDECREF(more);
    return answer;
}

/* --- primitives ------------------------------------------------------------------------------- */

PyObject *area_store(PyObject *op, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"key",   "code", "payload", "ttl",  "stale_ttl", "mode",
                            "token", "age",  "note",    "tags", NULL};
    AreaObject *self = (AreaObject *)op;
    PyObject *key_object, *ttl, *token = Py_None, *given_tags = NULL;
    Py_buffer payload;
    struct acc_tags tags;
    double stale_ttl, age = 0;
    uint32_t old;
    int code, mode = ACC_SET;
    unsigned long long note = 0, tag_clock = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "Oiy*Od|iOd$KO:_store", names, &key_object,
                                     &code, &payload, &ttl, &stale_ttl, &mode, &token, &age, &note,
                                     &given_tags)) {
        return NULL;
    }
    struct acc_write write = {
        .data = payload.buf, .code = (uint8_t)code, .mode = (uint8_t)mode, .note = note};
    uint8_t buffer[KEY_BUFFER];
    struct acc_key key;
    PyObject *answer = NULL;
    if (code <= 0 || code >= ACC_CODE_LIMIT || mode < ACC_SET || mode > ACC_FILL) {
        PyErr_SetString(PyExc_ValueError, "_store: code or mode out of range");
        goto done;
    }
    if (token != Py_None) {
        unsigned int key_count, area_count;
        if (!PyArg_ParseTuple(token, "IIK:_store token", &key_count, &area_count, &tag_clock)) {
            goto done;
        }
        write.has_token = true;
        write.token_key = key_count;
        write.token_area = area_count;
    }
    if (!area_ready(self) || !area_key(self, key_object, buffer, &key) ||
        !area_tags(&self->area, given_tags, &tags)) {
        goto done;
    }
    if (tags.count != 0) {
        tags.since = write.has_token ? tag_clock : acc_tag_clock(self->area.seg);
        write.tags = &tags;
    }
    uint32_t now = acc_now(self->area.seg);
    if (!area_life(ttl, stale_ttl, now, &write.expire_at, &write.stale_until) ||
        !area_age(age, &old)) {
        goto done;
    }
    write.loaded_at = now - old;
    if ((self->flags & AREA_OFF) != 0) {
        answer = PyLong_FromLong(ACC_NOT_STORED);
    } else if ((size_t)payload.len > ACC_VALUE_MAX - 1) {
        if (mode == ACC_SET) {
            acc_delete(&self->area, &key);
        }
        answer = PyLong_FromLong(ACC_TOO_LARGE);
    } else {
        write.size = (uint32_t)payload.len;
        answer = PyLong_FromLong(store_and_count(self, &key, &write));
    }
done:
    PyBuffer_Release(&payload);
    return answer;
}

PyObject *area_token(PyObject *op, PyObject *key_object) {
    AreaObject *self = (AreaObject *)op;
    uint8_t buffer[KEY_BUFFER];
    struct acc_key key;
    if (!area_ready(self) || !area_key(self, key_object, buffer, &key)) {
        return NULL;
    }
    uint32_t key_count, area_count;
    unsigned long long tag_clock = acc_tag_clock(self->area.seg);
    acc_token(&self->area, &key, &key_count, &area_count);
    return Py_BuildValue("(IIK)", key_count, area_count, tag_clock);
}

static double seconds_between(uint32_t from, uint32_t to) {
    return (double)(int32_t)(to - from) / ACC_UNITS_PER_SECOND;
}

static bool request_of(bool mark, bool stale, PyObject *within, struct request *out) {
    *out = (struct request){.mark = mark, .stale = stale, .within = ACC_ANY_AGE};
    if (within == Py_None) {
        return true;
    }
    double seconds = PyFloat_AsDouble(within);
    if (seconds == -1.0 && PyErr_Occurred()) {
        return false;
    }
    if (!(seconds >= 0)) {
        PyErr_SetString(PyExc_ValueError, "_read: within must be None or not less than 0 seconds");
        return false;
    }
    double units = seconds * ACC_UNITS_PER_SECOND;
    if (units < ACC_LIFE_MAX) {
        out->within = (int64_t)units;
    }
    return true;
}

PyObject *area_read(PyObject *op, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"key", "touch", "stale", "within", NULL};
    AreaObject *self = (AreaObject *)op;
    PyObject *key_object, *within = Py_None;
    int touch = 1, stale = 0;
    struct request request;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$ppO:_read", names, &key_object, &touch,
                                     &stale, &within) ||
        !request_of(touch, stale, within, &request)) {
        return NULL;
    }
    uint8_t buffer[KEY_BUFFER];
    struct acc_key key;
    if (!area_ready(self) || !area_key(self, key_object, buffer, &key)) {
        return NULL;
    }
    if (touch && !stale && hot_due(self)) { /* Python counts this read */
        hot_count(self, key.hash);
    }
    struct reading reading;
    int found = area_read_object(self, key_object, &key, request, &reading);
    if (found <= 0) {
        return found == 0 ? Py_NewRef(Py_None) : NULL;
    }
    const struct acc_record *record = &reading.record;
    uint32_t now = acc_now(self->area.seg);
    PyObject *ttl = record->expire_at == 0
                        ? Py_NewRef(Py_None)
                        : PyFloat_FromDouble(seconds_between(now, record->expire_at));
    if (ttl == NULL) {
        Py_DECREF(reading.object);
        return NULL;
    }
    unsigned long long version = acc_remix(reading.word, 0x9fb21c651e98df25ull) + reading.sequence;
    return Py_BuildValue("(NidNOK)", reading.object, (int)acc_record_code(record),
                         seconds_between(record->loaded_at, now), ttl,
                         reading.fresh ? Py_False : Py_True, version);
}

PyObject *area_delete(PyObject *op, PyObject *key_object) {
    AreaObject *self = (AreaObject *)op;
    uint8_t buffer[KEY_BUFFER];
    struct acc_key key;
    if (!area_ready(self) || !area_key(self, key_object, buffer, &key)) {
        return NULL;
    }
    acc_count_own(&self->area.stats->counter[ACC_DELETE_TOTAL], 1);
    return PyBool_FromLong(acc_delete(&self->area, &key));
}

PyObject *area_expire(PyObject *op, PyObject *key_object) {
    AreaObject *self = (AreaObject *)op;
    uint8_t buffer[KEY_BUFFER];
    struct acc_key key;
    if (!area_ready(self) || !area_key(self, key_object, buffer, &key)) {
        return NULL;
    }
    struct held held = hold(self);
    enum acc_status status;
    Py_BEGIN_ALLOW_THREADS
        status = acc_expire(&held.area, &key, ACC_LOCK_BUDGET_NS);
    Py_END_ALLOW_THREADS
    Py_DECREF(held.segment);
    return PyBool_FromLong(status == ACC_OK);
}

PyObject *area_touch(PyObject *op, PyObject *args) {
    AreaObject *self = (AreaObject *)op;
    PyObject *key_object, *ttl;
    double stale_ttl;
    uint8_t buffer[KEY_BUFFER];
    struct acc_key key;
    uint32_t expire_at, stale_until;
    if (!PyArg_ParseTuple(args, "OOd:_touch", &key_object, &ttl, &stale_ttl) || !area_ready(self) ||
        !area_key(self, key_object, buffer, &key) ||
        !area_life(ttl, stale_ttl, acc_now(self->area.seg), &expire_at, &stale_until)) {
        return NULL;
    }
    struct held held = hold(self);
    enum acc_status status;
    Py_BEGIN_ALLOW_THREADS
        status = acc_touch(&held.area, &key, expire_at, stale_until, ACC_LOCK_BUDGET_NS);
    Py_END_ALLOW_THREADS
    Py_DECREF(held.segment);
    if (status == ACC_ESYS) {
        return PyErr_NoMemory();
    }
    if (status == ACC_BUSY) {
        acc_count(self->area.stats, ACC_LOCK_GIVEUP);
    }
    return PyLong_FromLong(status);
}

PyObject *area_incr(PyObject *op, PyObject *args) {
    AreaObject *self = (AreaObject *)op;
    PyObject *key_object, *initial_object, *ttl;
    long long delta, initial = 0;
    double stale_ttl;
    uint8_t buffer[KEY_BUFFER];
    struct acc_key key;
    uint32_t expire_at, stale_until;
    if (!PyArg_ParseTuple(args, "OLOOd:_incr", &key_object, &delta, &initial_object, &ttl,
                          &stale_ttl)) {
        return NULL;
    }
    if (initial_object != Py_None) {
        initial = PyLong_AsLongLong(initial_object);
        if (initial == -1 && PyErr_Occurred()) {
            return NULL;
        }
    }
    if (!area_ready(self) || !area_key(self, key_object, buffer, &key) ||
        !area_life(ttl, stale_ttl, acc_now(self->area.seg), &expire_at, &stale_until)) {
        return NULL;
    }
    const int64_t first = initial;
    int64_t value = 0;
    struct held held = hold(self);
    enum acc_status status;
    Py_BEGIN_ALLOW_THREADS
        status = acc_incr(&held.area, &key, delta, initial_object == Py_None ? NULL : &first,
                          expire_at, stale_until, ACC_LOCK_BUDGET_NS, &value);
    Py_END_ALLOW_THREADS
    Py_DECREF(held.segment);
    switch (status) {
    case ACC_OK: return PyLong_FromLongLong(value);
    case ACC_NOT_FOUND: return Py_NewRef(Py_None);
    case ACC_BAD_TYPE:
        PyErr_SetString(PyExc_TypeError, "the cached value is no 64-bit int");
        return NULL;
    case ACC_OVERFLOW:
        PyErr_SetString(PyExc_OverflowError, "the result does not fit 64 bits");
        return NULL;
    default:
        acc_count(self->area.stats, ACC_LOCK_GIVEUP);
        PyErr_SetString(PyExc_BlockingIOError, acc_status_text(status));
        return NULL;
    }
}

PyObject *area_clear(PyObject *op, PyObject *unused) {
    (void)unused;
    AreaObject *self = (AreaObject *)op;
    if (!area_ready(self)) {
        return NULL;
    }
    acc_area_clear(&self->area);
    Py_RETURN_NONE;
}

PyObject *area_freshness(PyObject *op, PyObject *unused) {
    (void)unused;
    AreaObject *self = (AreaObject *)op;
    if (!area_ready(self)) {
        return NULL;
    }
    if (self->area.bound == 0) {
        Py_RETURN_NONE;
    }
    uint64_t age = acc_area_freshness(&self->area);
    return PyFloat_FromDouble(age == UINT64_MAX ? Py_HUGE_VAL : (double)age / ACC_UNITS_PER_SECOND);
}
