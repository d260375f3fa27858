/* accelerator._native.Flight: a part in one miss load, and Bell: how its end reaches an event loop.
 *
 * A Flight ends its lease, or leaves the crowd, when its last reference goes: an exception between
 * the call that made it and the statement that would have ended it loses nothing. */
#include "state.h"

#include "doorbell.h"
#include "flight.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <unistd.h>

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

typedef struct {
    PyObject_HEAD PyObject *weakrefs;
    SegmentObject *segment;
    PyObject *on_ring; /* for code that serves the twin too: never called here */
    int fd;
    pid_t pid; /* who made it: a forked child has a copy of the descriptor, and no bell */
} BellObject;

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

static PyObject *new_flight(AreaObject *area, const struct acc_key *key,
                            const struct acc_ticket *ticket, enum flight_state state) {
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

/* --- entering --------------------------------------------------------------------------------- */

static bool lease_units(double lease, uint32_t *out) {
    if (!(lease > 0 && isfinite(lease))) {
        PyErr_SetString(PyExc_ValueError, "a lease must be more than 0 seconds, and finite");
        return false;
    }
    *out = acc_clock_after(0, lease);
    return true;
}

/* First with the GIL, which costs less than a switch while the lock is free; then without. */
static enum acc_status enter(AreaObject *self, const struct acc_key *key, int mode, uint32_t lease,
                             struct acc_ticket *ticket) {
    enum acc_load_mode how = mode == LOAD_REFRESH ? ACC_LOAD_LEAD : ACC_LOAD_JOIN;
    uint32_t window = mode == LOAD_JOIN                                   ? 0
                      : mode == LOAD_REFRESH && self->refresh_window != 0 ? self->refresh_window
                                                                          : ACC_WINDOW_ALL;
    enum acc_status status = acc_load_enter(&self->area, key, how, window, lease, 0, ticket);
    if (acc_unlikely(status == ACC_BUSY)) {
        struct held held = hold(self);
        Py_BEGIN_ALLOW_THREADS status =
            acc_load_enter(&held.area, key, how, window, lease, ACC_LOCK_BUDGET_NS, ticket);
        Py_END_ALLOW_THREADS Py_DECREF(held.segment);
    }
    return status;
}

static PyObject *busy(AreaObject *self) {
    acc_count(self->area.stats, ACC_LOCK_GIVEUP);
    PyErr_SetString(PyExc_BlockingIOError, acc_status_text(ACC_BUSY));
    return NULL;
}

PyObject *area_enter(PyObject *op, PyObject *args) {
    AreaObject *self = (AreaObject *)op;
    PyObject *key_object;
    double lease;
    int mode = LOAD_JOIN;
    uint32_t units;
    uint8_t buffer[KEY_BUFFER];
    struct acc_key key;
    struct acc_ticket ticket;
    if (!PyArg_ParseTuple(args, "Od|i:_enter", &key_object, &lease, &mode) ||
        !lease_units(lease, &units)) {
        return NULL;
    }
    if (mode < LOAD_JOIN || mode > LOAD_FORCE) {
        PyErr_SetString(PyExc_ValueError, "_enter: mode out of range");
        return NULL;
    }
    if (!area_ready(self) || !area_key(self, key_object, buffer, &key)) {
        return NULL;
    }
    switch (enter(self, &key, mode, units, &ticket)) {
    case ACC_OK:
        return new_flight(self, &key, &ticket, ticket.leading ? FLIGHT_LEADING : FLIGHT_JOINED);
    case ACC_PRESENT:
    case ACC_LED: Py_RETURN_NONE;
    case ACC_FULL: return new_flight(self, &key, &ticket, FLIGHT_CROWDED);
    default: return busy(self);
    }
}

PyObject *area_enter_alone(PyObject *op, PyObject *args) {
    AreaObject *self = (AreaObject *)op;
    PyObject *key_object, *most_object;
    double lease;
    uint32_t units;
    unsigned long most = 0;
    uint8_t buffer[KEY_BUFFER];
    struct acc_key key;
    struct acc_ticket ticket;
    if (!PyArg_ParseTuple(args, "OdO:_enter_alone", &key_object, &lease, &most_object) ||
        !lease_units(lease, &units)) {
        return NULL;
    }
    if (most_object != Py_None) {
        most = PyLong_AsUnsignedLong(most_object);
        if (most == (unsigned long)-1 && PyErr_Occurred()) {
            return NULL;
        }
        if (most == 0) {
            Py_RETURN_NONE;
        }
    }
    if (!area_ready(self) || !area_key(self, key_object, buffer, &key)) {
        return NULL;
    }
    struct held held = hold(self);
    enum acc_status status;
    Py_BEGIN_ALLOW_THREADS status =
        acc_load_alone(&held.area, &key, most > UINT32_MAX ? UINT32_MAX : (uint32_t)most, units,
                       ACC_LOCK_BUDGET_NS, &ticket);
    Py_END_ALLOW_THREADS Py_DECREF(held.segment);
    if (status == ACC_FULL) {
        Py_RETURN_NONE;
    }
    if (status != ACC_OK) {
        return busy(self);
    }
    return new_flight(self, &key, &ticket, FLIGHT_LEADING);
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
        Py_BEGIN_ALLOW_THREADS status =
            end(&self->area, &self->key, &ticket, write, ACC_LOCK_BUDGET_NS);
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

static PyObject *flight_finish(PyObject *op, PyObject *args) {
    FlightObject *self = (FlightObject *)op;
    Py_buffer payload;
    PyObject *ttl, *answer = NULL;
    double stale_ttl;
    int code;
    if (!PyArg_ParseTuple(args, "iy*Od:finish", &code, &payload, &ttl, &stale_ttl)) {
        return NULL;
    }
    struct acc_write write = {
        .data = payload.buf, .code = (uint8_t)code, .loaded_at = acc_now(seg_of(self))};
    bool fits = (size_t)payload.len < ACC_VALUE_MAX;
    write.size = fits ? (uint32_t)payload.len : ACC_VALUE_MAX;
    if (code_valid(code) &&
        area_life(ttl, stale_ttl, write.loaded_at, &write.expire_at, &write.stale_until)) {
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

static PyObject *flight_hand(PyObject *op, PyObject *args) {
    FlightObject *self = (FlightObject *)op;
    Py_buffer payload;
    int code;
    if (!PyArg_ParseTuple(args, "iy*:hand", &code, &payload)) {
        return NULL;
    }
    bool valid = code_valid(code);
    if (valid) {
        struct acc_write write = {
            .data = payload.buf, .code = (uint8_t)code, .loaded_at = acc_now(seg_of(self))};
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
        Py_BEGIN_ALLOW_THREADS acc_flight_wait(seg, &ticket, slice);
        now = acc_clock_ns();
        gone = acc_flight_running(seg, &ticket) && leaderless(self, now);
        Py_END_ALLOW_THREADS if (PyErr_CheckSignals() != 0) {
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
    {"finish", flight_finish, METH_VARARGS, NULL},
    {"hand", flight_hand, METH_VARARGS, NULL},
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

/* --- bells ------------------------------------------------------------------------------------ */

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

/* --- pauses and latencies --------------------------------------------------------------------- */

PyObject *area_pause(PyObject *op, PyObject *args) {
    AreaObject *self = (AreaObject *)op;
    PyObject *key_object;
    double seconds;
    uint8_t buffer[KEY_BUFFER];
    struct acc_key key;
    if (!PyArg_ParseTuple(args, "Od:_pause", &key_object, &seconds) || !area_ready(self) ||
        !area_key(self, key_object, buffer, &key)) {
        return NULL;
    }
    if (!(seconds >= 0)) {
        PyErr_SetString(PyExc_ValueError, "a pause must not be less than 0 seconds");
        return NULL;
    }
    if ((self->flags & AREA_OFF) == 0) {
        acc_load_pause(&self->area, &key, seconds > 0 ? acc_clock_after(0, seconds) : 0, 0);
    }
    Py_RETURN_NONE;
}

PyObject *area_pausing(PyObject *op, PyObject *key_object) {
    AreaObject *self = (AreaObject *)op;
    uint8_t buffer[KEY_BUFFER];
    struct acc_key key;
    if (!area_ready(self) || !area_key(self, key_object, buffer, &key)) {
        return NULL;
    }
    return PyBool_FromLong(acc_load_pausing(&self->area, &key));
}

PyObject *area_latency(PyObject *op, PyObject *arg) {
    AreaObject *self = (AreaObject *)op;
    double seconds = PyFloat_AsDouble(arg);
    if (seconds == -1.0 && PyErr_Occurred()) {
        return NULL;
    }
    if (!(seconds >= 0 && seconds < 1e12)) {
        PyErr_SetString(PyExc_ValueError, "a latency must be finite, and not less than 0 seconds");
        return NULL;
    }
    if (!area_ready(self)) {
        return NULL;
    }
    acc_stats_load(self->area.stats, (uint64_t)(seconds * 1e6));
    Py_RETURN_NONE;
}

PyObject *area_latencies(PyObject *op, PyObject *unused) {
    (void)unused;
    AreaObject *self = (AreaObject *)op;
    uint64_t sums[ACC_LATENCY_SLOTS];
    if (!area_ready(self)) {
        return NULL;
    }
    acc_stats_sum_loads(self->area.seg, self->area.id, sums);
    PyObject *list = PyList_New(ACC_LATENCY_SLOTS);
    for (uint32_t i = 0; list != NULL && i < ACC_LATENCY_SLOTS; i++) {
        PyObject *n = PyLong_FromUnsignedLongLong(sums[i]);
        if (n == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, i, n);
    }
    return list;
}

/* --- what runs -------------------------------------------------------------------------------- */

static PyObject *area_name(const struct acc_segment *seg, uint32_t id) {
    if (id < seg->geometry.areas) {
        const struct acc_area_slot *slot = acc_area_slot(seg, id);
        if (acc_load_acquire(&slot->state) == 1 && slot->name_size <= ACC_AREA_NAME_MAX) {
            return PyUnicode_DecodeUTF8(slot->name, slot->name_size, "replace");
        }
    }
    return PyUnicode_FromString("?");
}

static PyObject *describe(const struct acc_segment *seg, const struct acc_flight_info *info) {
    const struct acc_process *slot = acc_process_find(seg, info->owner);
    bool own = info->owner == acc_incarnation(seg);
    uint32_t now = acc_now(seg);
    return Py_BuildValue(
        "{s:N,s:K,s:I,s:I,s:N,s:d,s:d,s:I,s:N,s:N,s:N}", "area", area_name(seg, info->area), "hash",
        (unsigned long long)info->hash, "pid", slot == NULL ? 0u : slot->pid, "incarnation",
        info->owner, "alive", PyBool_FromLong(own || !acc_process_dead(seg, info->owner)), "age",
        (double)(int32_t)(now - info->started) / ACC_UNITS_PER_SECOND, "lease_left",
        (double)(int32_t)(info->deadline - now) / ACC_UNITS_PER_SECOND, "waiters", info->waiting,
        "alone", PyBool_FromLong(info->alone), "overtaken", PyBool_FromLong(info->overtaken), "own",
        PyBool_FromLong(own));
}

PyObject *segment_flights(PyObject *op, PyObject *unused) {
    (void)unused;
    const struct acc_segment *seg = ((SegmentObject *)op)->seg;
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; list != NULL && i < acc_flight_records(seg); i++) {
        struct acc_flight_info info;
        if (!acc_flight_look(seg, i, &info)) {
            continue;
        }
        PyObject *one = describe(seg, &info);
        if (one == NULL || PyList_Append(list, one) != 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(one);
    }
    return list;
}
