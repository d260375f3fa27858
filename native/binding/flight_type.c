/* accelerator._native.Flight: a part in one miss load.
 *
 * A Flight ends its lease, or leaves the crowd, when its last reference goes: an exception between
 * the call that made it and the statement that would have ended it loses nothing. */
#include "state.h"

#include "doorbell.h"
#include "flight.h"

#include <stddef.h>

#define SLICE_NS 50000000ull /* between two looks whether the leader lives, and at signals */

typedef struct {
    PyObject_HEAD PyObject *weakrefs;
    AreaObject *owner; /* whose _decode() reads what is handed over */
    SegmentObject *segment;
    struct acc_area area;
    struct acc_ticket ticket;
    struct acc_key key;
    uint8_t *key_data;
    enum flight_state state;
    bool overtaken;    /* of a leader: as it last was */
    uint64_t asked_ns; /* when the leader was last asked after */
    PyObject *tag;
} FlightObject;

static struct acc_segment *seg_of(const FlightObject *self) {
    return self->area.seg;
}

/* The state as it is for this process: a forked child has no part in its parent's flights. */
static enum flight_state state_of(const FlightObject *self) {
    bool parents = (self->state == FLIGHT_LEADING || self->state == FLIGHT_JOINED) &&
                   self->ticket.incarnation != acc_incarnation(seg_of(self));
    return parents ? FLIGHT_OVER : self->state;
}

/* --- making and unmaking ---------------------------------------------------------------------- */

PyObject *flight_new(AreaObject *area, const struct acc_key *key, const struct acc_ticket *ticket,
                     enum flight_state state) {
    PyTypeObject *type = area->binding->flight_type;
    FlightObject *self = (FlightObject *)type->tp_alloc(type, 0);
    uint8_t *data = PyMem_Malloc(key->size == 0 ? 1 : key->size);
    if (self == NULL || data == NULL) {
        struct acc_ticket lost = *ticket;
        acc_load_end(&area->area, &lost, ACC_RESULT_FAILED);
        if (state == FLIGHT_JOINED) {
            acc_flight_leave(area->area.seg, &lost);
        }
        PyMem_Free(data);
        Py_XDECREF(self);
        return PyErr_NoMemory();
    }
    memcpy(data, key->data, key->size);
    self->owner = (AreaObject *)Py_NewRef(area);
    self->segment = (SegmentObject *)Py_NewRef(area->segment);
    self->area = area->area;
    self->ticket = *ticket;
    self->key = *key;
    self->key.data = self->key_data = data;
    self->state = state;
    self->asked_ns = acc_clock_ns();
    self->tag = Py_NewRef(Py_None);
    return (PyObject *)self;
}

/* Whatever it still holds in the segment.  Runs no Python code. */
static void let_go(FlightObject *self, enum acc_flight_result result) {
    enum flight_state state = self->state;
    self->state = FLIGHT_OVER;
    if (state == FLIGHT_LEADING) {
        self->overtaken = acc_load_overtaken(&self->area, &self->key, &self->ticket);
        acc_load_end(&self->area, &self->ticket, result);
    } else if (state == FLIGHT_JOINED) {
        acc_flight_leave(seg_of(self), &self->ticket);
    }
}

static int flight_traverse(PyObject *op, visitproc visit, void *arg) {
    FlightObject *self = (FlightObject *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->owner);
    Py_VISIT(self->segment);
    Py_VISIT(self->tag);
    return 0;
}

static int flight_gc_clear(PyObject *op) {
    Py_CLEAR(((FlightObject *)op)->tag); /* the only way back to itself */
    return 0;
}

static void flight_dealloc(PyObject *op) {
    FlightObject *self = (FlightObject *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    if (self->segment != NULL) {
        let_go(self, ACC_RESULT_FAILED);
    }
    PyMem_Free(self->key_data);
    Py_XDECREF(self->owner);
    Py_XDECREF(self->segment);
    Py_XDECREF(self->tag);
    type->tp_free(op);
    Py_DECREF(type);
}

/* --- the leader's calls ----------------------------------------------------------------------- */

typedef enum acc_status end_with_value(struct acc_area *area, const struct acc_key *key,
                                       struct acc_ticket *ticket, const struct acc_write *write,
                                       uint64_t budget_ns);

/* The ticket is taken out of the object first: while the GIL is released, nobody else ends it. */
static enum acc_status give_value(FlightObject *self, end_with_value *end,
                                  const struct acc_write *write) {
    struct acc_ticket ticket = self->ticket;
    if (state_of(self) != FLIGHT_LEADING) {
        return ACC_NOT_STORED;
    }
    self->state = FLIGHT_OVER;
    self->ticket.leading = false;
    self->overtaken = acc_load_overtaken(&self->area, &self->key, &ticket);
    enum acc_status status = end(&self->area, &self->key, &ticket, write, 0);
    if (acc_unlikely(status == ACC_BUSY)) {
        Py_BEGIN_ALLOW_THREADS
            status = end(&self->area, &self->key, &ticket, write, ACC_LOCK_BUDGET_NS);
        Py_END_ALLOW_THREADS
    }
    return status;
}

static bool code_valid(int code) {
    if (code <= 0 || code >= ACC_CODE_LIMIT) {
        PyErr_SetString(PyExc_ValueError, "code out of range");
        return false;
    }
    return true;
}

static void count_stored(struct acc_stats *stats, enum acc_status status) {
    switch (status) {
    case ACC_OK: acc_count(stats, ACC_SET_TOTAL); break;
    case ACC_TOO_LARGE: acc_count(stats, ACC_STORE_REJECTED_SIZE); break;
    case ACC_BUSY: acc_count(stats, ACC_LOCK_GIVEUP); break;
    case ACC_NOT_STORED: acc_count(stats, ACC_STORE_REJECTED_RACE); break;
    default: break;
    }
}

/* Without an age: its load began when the flight did. */
static bool loaded_at(const FlightObject *self, PyObject *age, uint32_t now, uint32_t *out) {
    uint32_t old;
    *out = self->ticket.started;
    if (age == Py_None) {
        return true;
    }
    double seconds = PyFloat_AsDouble(age);
    if ((seconds == -1.0 && PyErr_Occurred()) || !area_age(seconds, &old)) {
        return false;
    }
    *out = now - old;
    return true;
}

/* The core stamps them with when the flight began. */
static bool tags_from(const FlightObject *self, PyObject *given, struct acc_tags *tags,
                      struct acc_write *write) {
    if (!area_tags(&self->area, given, tags)) {
        return false;
    }
    tags->since = self->ticket.tag_clock;
    write->tags = tags->count == 0 ? NULL : tags;
    return true;
}

static PyObject *flight_finish(PyObject *op, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"code", "payload", "ttl", "stale_ttl", "age", "tags", NULL};
    FlightObject *self = (FlightObject *)op;
    Py_buffer payload;
    struct acc_tags tags;
    PyObject *ttl, *age = Py_None, *given_tags = NULL, *answer = NULL;
    double stale_ttl;
    int code;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "iy*Od|O$O:finish", names, &code, &payload, &ttl,
                                     &stale_ttl, &age, &given_tags)) {
        return NULL;
    }
    uint32_t now = acc_now(seg_of(self));
    struct acc_write write = {.data = payload.buf, .code = (uint8_t)code};
    bool fits = (size_t)payload.len < ACC_VALUE_MAX;
    write.size = fits ? (uint32_t)payload.len : ACC_VALUE_MAX;
    if (code_valid(code) && area_life(ttl, stale_ttl, now, &write.expire_at, &write.stale_until) &&
        loaded_at(self, age, now, &write.loaded_at) && tags_from(self, given_tags, &tags, &write)) {
        bool was_leading = self->state == FLIGHT_LEADING;
        enum acc_status status = give_value(self, acc_load_finish, &write);
        if (was_leading) {
            count_stored(self->area.stats, status);
        }
        answer = PyLong_FromLong(status);
    }
    PyBuffer_Release(&payload);
    return answer;
}

static PyObject *flight_hand(PyObject *op, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"code", "payload", "tags", NULL};
    FlightObject *self = (FlightObject *)op;
    Py_buffer payload;
    struct acc_tags tags;
    PyObject *given_tags = NULL;
    int code;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "iy*|$O:hand", names, &code, &payload,
                                     &given_tags)) {
        return NULL;
    }
    struct acc_write write = {
        .data = payload.buf, .code = (uint8_t)code, .loaded_at = acc_now(seg_of(self))};
    bool valid = code_valid(code) && tags_from(self, given_tags, &tags, &write);
    if (valid) {
        bool fits = (size_t)payload.len < ACC_VALUE_MAX;
        write.size = fits ? (uint32_t)payload.len : ACC_VALUE_MAX;
        give_value(self, acc_load_hand, &write);
    }
    PyBuffer_Release(&payload);
    return valid ? Py_NewRef(Py_None) : NULL;
}

static PyObject *end_without_value(FlightObject *self, enum acc_flight_result result) {
    if (self->state == FLIGHT_LEADING) {
        let_go(self, result);
    }
    Py_RETURN_NONE;
}

static PyObject *flight_decline(PyObject *op, PyObject *unused) {
    (void)unused;
    return end_without_value((FlightObject *)op, ACC_RESULT_DECLINED);
}

static PyObject *flight_fail(PyObject *op, PyObject *unused) {
    (void)unused;
    return end_without_value((FlightObject *)op, ACC_RESULT_FAILED);
}

static PyObject *flight_enter(PyObject *op, PyObject *unused) {
    (void)unused;
    return Py_NewRef(op);
}

static PyObject *flight_exit(PyObject *op, PyObject *args) {
    (void)args;
    let_go((FlightObject *)op, ACC_RESULT_FAILED);
    Py_RETURN_NONE;
}

/* --- the followers' calls --------------------------------------------------------------------- */

/* Does this caller still wait for a flight that is on its way? */
static bool awaits(const FlightObject *self) {
    return state_of(self) == FLIGHT_JOINED && acc_flight_running(seg_of(self), &self->ticket);
}

/* Is there nobody (any more) who may end it?  The kernel is asked now and then only. */
static bool leaderless(FlightObject *self, uint64_t now_ns) {
    const struct acc_segment *seg = seg_of(self);
    if (acc_flight_lapsed(seg, &self->ticket)) {
        return true;
    }
    if (now_ns - self->asked_ns < SLICE_NS) {
        return false;
    }
    self->asked_ns = now_ns;
    return acc_flight_leader_dead(seg, &self->ticket);
}

/* In slices, because of signals, and because a dead leader wakes nobody. */
static PyObject *flight_wait(PyObject *op, PyObject *arg) {
    FlightObject *self = (FlightObject *)op;
    double seconds = PyFloat_AsDouble(arg);
    if (seconds == -1.0 && PyErr_Occurred()) {
        return NULL;
    }
    struct acc_segment *seg = seg_of(self);
    uint64_t now = acc_clock_ns();
    uint64_t end = now + (uint64_t)(seconds <= 0 ? 0 : seconds < 1e6 ? seconds * 1e9 : 1e15);
    struct acc_ticket ticket = self->ticket;
    while (awaits(self)) {
        if (now >= end) {
            return PyLong_FromLong(WAIT_TIMEOUT);
        }
        bool gone = false;
        uint64_t slice = end - now < SLICE_NS ? end - now : SLICE_NS;
        Py_BEGIN_ALLOW_THREADS
            acc_flight_wait(seg, &ticket, slice);
            now = acc_clock_ns();
            gone = acc_flight_running(seg, &ticket) && leaderless(self, now);
        Py_END_ALLOW_THREADS
        if (PyErr_CheckSignals() != 0) {
            return NULL;
        }
        if (gone) {
            return PyLong_FromLong(WAIT_AGAIN);
        }
    }
    return PyLong_FromLong(WAIT_ENDED);
}

static PyObject *flight_poll(PyObject *op, PyObject *unused) {
    (void)unused;
    FlightObject *self = (FlightObject *)op;
    if (!awaits(self)) {
        return PyLong_FromLong(WAIT_ENDED);
    }
    return PyLong_FromLong(leaderless(self, acc_clock_ns()) ? WAIT_AGAIN : WAIT_TIMEOUT);
}

static PyObject *flight_ring(PyObject *op, PyObject *bell) {
    FlightObject *self = (FlightObject *)op;
    if (!Py_IS_TYPE(bell, self->owner->binding->bell_type)) {
        PyErr_SetString(PyExc_TypeError, "ring() takes a Bell");
        return NULL;
    }
    struct acc_segment *seg = seg_of(self);
    if (state_of(self) == FLIGHT_JOINED) {
        acc_flight_ring(seg, &self->ticket);
    }
    if (!awaits(self) && seg->self_slot != 0) {
        acc_doorbell_ring(seg, (seg->self_slot - 1) % 64); /* it has ended already */
    }
    Py_RETURN_NONE;
}

static PyObject *flight_result(PyObject *op, PyObject *unused) {
    (void)unused;
    FlightObject *self = (FlightObject *)op;
    uint64_t handed;
    if (state_of(self) != FLIGHT_JOINED) {
        return PyLong_FromLong(ACC_RESULT_UNKNOWN);
    }
    return PyLong_FromLong(acc_flight_result(seg_of(self), &self->ticket, &handed));
}

static PyObject *decoded(FlightObject *self, uint8_t code, const uint8_t *value, uint32_t size) {
    PyObject *payload = PyBytes_FromStringAndSize((const char *)value, size);
    PyObject *number = payload == NULL ? NULL : PyLong_FromLong(code);
    PyObject *pair = NULL, *answer = NULL;
    if (number != NULL) {
        pair = PyObject_CallMethodObjArgs((PyObject *)self->owner, self->owner->binding->str_decode,
                                          number, payload, NULL);
    }
    if (pair == Py_None) {
        answer = Py_NewRef(Py_None); /* cannot be decoded: as if it were gone */
    } else if (pair != NULL && PyTuple_CheckExact(pair) && PyTuple_GET_SIZE(pair) == 2) {
        answer = PyTuple_Pack(1, PyTuple_GET_ITEM(pair, 0));
    } else if (pair != NULL) {
        PyErr_SetString(PyExc_TypeError, "_decode must answer (object, immutable) or None");
    }
    Py_XDECREF(pair);
    Py_XDECREF(number);
    Py_XDECREF(payload);
    return answer;
}

static PyObject *flight_take(PyObject *op, PyObject *unused) {
    (void)unused;
    FlightObject *self = (FlightObject *)op;
    uint8_t *value, code;
    uint32_t size;
    if (state_of(self) != FLIGHT_JOINED) {
        Py_RETURN_NONE;
    }
    enum acc_status status =
        acc_load_take(&self->area, &self->key, &self->ticket, &value, &size, &code);
    if (status == ACC_ESYS) {
        return PyErr_NoMemory();
    }
    if (status != ACC_OK) {
        Py_RETURN_NONE;
    }
    PyObject *answer = decoded(self, code, value, size);
    free(value);
    return answer;
}

static PyObject *flight_leave(PyObject *op, PyObject *unused) {
    (void)unused;
    FlightObject *self = (FlightObject *)op;
    if (self->state == FLIGHT_JOINED) {
        let_go(self, ACC_RESULT_UNKNOWN);
    }
    Py_RETURN_NONE;
}

/* --- properties ------------------------------------------------------------------------------- */

static PyObject *get_state(PyObject *op, void *closure) {
    (void)closure;
    return PyLong_FromLong(state_of((FlightObject *)op));
}

static PyObject *get_id(PyObject *op, void *closure) {
    (void)closure;
    const struct acc_ticket *ticket = &((FlightObject *)op)->ticket;
    if (ticket->record == ACC_NO_RECORD) {
        return PyLong_FromLong(0);
    }
    return PyLong_FromUnsignedLongLong((uint64_t)ticket->record << 32 | ticket->token);
}

static PyObject *get_alone(PyObject *op, void *closure) {
    (void)closure;
    return PyBool_FromLong(((FlightObject *)op)->ticket.alone);
}

static PyObject *get_recorded(PyObject *op, void *closure) {
    (void)closure;
    return PyBool_FromLong(((FlightObject *)op)->ticket.record != ACC_NO_RECORD);
}

static PyObject *get_taken_over(PyObject *op, void *closure) {
    (void)closure;
    return PyBool_FromLong(((FlightObject *)op)->ticket.taken_over);
}

static PyObject *get_own(PyObject *op, void *closure) {
    (void)closure;
    FlightObject *self = (FlightObject *)op;
    struct acc_flight_info info;
    bool own = state_of(self) == FLIGHT_LEADING ||
               (self->ticket.record != ACC_NO_RECORD &&
                acc_flight_look(seg_of(self), self->ticket.record, &info) &&
                info.token == self->ticket.token && info.owner == acc_incarnation(seg_of(self)));
    return PyBool_FromLong(own);
}

static PyObject *get_waiters(PyObject *op, void *closure) {
    (void)closure;
    FlightObject *self = (FlightObject *)op;
    return PyLong_FromUnsignedLong(acc_flight_waiting(seg_of(self), &self->ticket));
}

static PyObject *get_overtaken(PyObject *op, void *closure) {
    (void)closure;
    FlightObject *self = (FlightObject *)op;
    if (state_of(self) == FLIGHT_LEADING) {
        self->overtaken = acc_load_overtaken(&self->area, &self->key, &self->ticket);
    }
    return PyBool_FromLong(self->overtaken);
}

static PyObject *get_tag(PyObject *op, void *closure) {
    (void)closure;
    return Py_NewRef(((FlightObject *)op)->tag);
}

static int set_tag(PyObject *op, PyObject *value, void *closure) {
    (void)closure;
    FlightObject *self = (FlightObject *)op;
    Py_XSETREF(self->tag, Py_NewRef(value == NULL ? Py_None : value));
    return 0;
}

static PyGetSetDef flight_getset[] = {
    {"state", get_state, NULL, NULL, NULL},
    {"id", get_id, NULL, NULL, NULL},
    {"alone", get_alone, NULL, NULL, NULL},
    {"recorded", get_recorded, NULL, NULL, NULL},
    {"taken_over", get_taken_over, NULL, NULL, NULL},
    {"own", get_own, NULL, NULL, NULL},
    {"waiters", get_waiters, NULL, NULL, NULL},
    {"overtaken", get_overtaken, NULL, NULL, NULL},
    {"tag", get_tag, set_tag, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef flight_methods[] = {
    {"finish", (PyCFunction)(void (*)(void))flight_finish, METH_VARARGS | METH_KEYWORDS, NULL},
    {"hand", (PyCFunction)(void (*)(void))flight_hand, METH_VARARGS | METH_KEYWORDS, NULL},
    {"decline", flight_decline, METH_NOARGS, NULL},
    {"fail", flight_fail, METH_NOARGS, NULL},
    {"wait", flight_wait, METH_O, NULL},
    {"poll", flight_poll, METH_NOARGS, NULL},
    {"ring", flight_ring, METH_O, NULL},
    {"result", flight_result, METH_NOARGS, NULL},
    {"take", flight_take, METH_NOARGS, NULL},
    {"leave", flight_leave, METH_NOARGS, NULL},
    {"__enter__", flight_enter, METH_NOARGS, NULL},
    {"__exit__", flight_exit, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyMemberDef flight_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(FlightObject, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot flight_slots[] = {
    {Py_tp_dealloc, flight_dealloc},
    {Py_tp_traverse, flight_traverse},
    {Py_tp_clear, flight_gc_clear},
    {Py_tp_methods, flight_methods},
    {Py_tp_getset, flight_getset},
    {Py_tp_members, flight_members},
    {0, NULL},
};

PyType_Spec flight_spec = {
    .name = "accelerator._native.Flight",
    .basicsize = sizeof(FlightObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = flight_slots,
};
