/* What Segment offers to those who talk to the second level: the listener's knowledge and its
 * election, and the state of the link with the breaker. */
#include "segment_args.h"

#include "leader.h"
#include "link.h"
#include "outbox.h"

#include <math.h>

/* Keys that are forgotten with the GIL held: some microseconds. */
#define FEW_KEYS 16

/* --- areas ------------------------------------------------------------------------------------ */

PyObject *segment_origin(PyObject *op, void *closure) {
    (void)closure;
    const struct acc_header *header = acc_header(seg_of(op));
    return PyBytes_FromStringAndSize((const char *)header->origin, sizeof header->origin);
}

static bool is_watched(struct acc_segment *seg, uint32_t area) {
    return acc_load_acquire(&acc_area_slot(seg, area)->watched) != 0;
}

PyObject *segment_watched(PyObject *op, PyObject *unused) {
    (void)unused;
    return names_of(seg_of(op), is_watched);
}

PyObject *segment_area_state(PyObject *op, PyObject *arg) {
    struct acc_area_slot *slot;
    uint64_t replication = 0, sequence = 0;
    if (!area_from(seg_of(op), arg, &slot)) {
        return NULL;
    }
    if (slot != NULL) {
        acc_link_state(slot, &replication, &sequence);
    }
    return Py_BuildValue("(KK)", (unsigned long long)replication, (unsigned long long)sequence);
}

PyObject *segment_area_applied(PyObject *op, PyObject *args) {
    PyObject *name, *replication_object, *sequence_object;
    struct acc_area_slot *slot;
    uint64_t replication, sequence;
    if (!PyArg_ParseTuple(args, "OOO:area_applied", &name, &replication_object, &sequence_object) ||
        !number_from(replication_object, &replication) ||
        !number_from(sequence_object, &sequence) || !area_from(seg_of(op), name, &slot) ||
        !writable(seg_of(op))) {
        return NULL;
    }
    if (slot != NULL) {
        acc_link_applied(slot, replication, sequence);
    }
    Py_RETURN_NONE;
}

/* Seconds of CLOCK_MONOTONIC, whatever clock a test has set. */
PyObject *segment_area_extend(PyObject *op, PyObject *args) {
    struct acc_segment *seg = seg_of(op);
    PyObject *name;
    double until;
    struct acc_area_slot *slot;
    if (!PyArg_ParseTuple(args, "Od:area_extend", &name, &until) || !area_from(seg, name, &slot)) {
        return NULL;
    }
    double units = until * ACC_UNITS_PER_SECOND;
    if (!(units >= 0 && units < (double)(acc_now_long(seg) + ACC_FRESH_MOST))) {
        PyErr_SetString(PyExc_ValueError, "area_extend: until must be a time of the monotonic "
                                          "clock, at most 90 days ahead");
        return NULL;
    }
    if (!writable(seg)) {
        return NULL;
    }
    if (slot != NULL) {
        acc_area_extend(slot, (uint64_t)units);
    }
    Py_RETURN_NONE;
}

PyObject *segment_clear_area(PyObject *op, PyObject *arg) {
    struct acc_area_slot *slot;
    if (!area_from(seg_of(op), arg, &slot) || !writable(seg_of(op))) {
        return NULL;
    }
    if (slot != NULL) {
        acc_add_release(&slot->generation, (uint64_t)1);
    }
    Py_RETURN_NONE;
}

PyObject *segment_area_count(PyObject *op, PyObject *args) {
    struct acc_segment *seg = seg_of(op);
    PyObject *name;
    int counter;
    unsigned long long n = 1;
    struct acc_area_slot *slot;
    if (!PyArg_ParseTuple(args, "Oi|K:area_count", &name, &counter, &n) ||
        !area_from(seg, name, &slot) || !writable(seg)) {
        return NULL;
    }
    if (counter < 0 || counter >= ACC_COUNTERS) {
        PyErr_SetString(PyExc_ValueError, "area_count: no such counter");
        return NULL;
    }
    if (slot != NULL && is_entered(seg)) { /* else there is no block to count in */
        acc_add_relaxed(&acc_stats_of(seg, id_of(seg, slot))->counter[counter], (uint64_t)n);
    }
    Py_RETURN_NONE;
}

/* --- invalidate ------------------------------------------------------------------------------- */

/* The keys' bytes are those of objects that `keys`, a tuple of ours, holds. */
static uint64_t forget_keys(struct acc_area *area, PyObject *keys, bool expire) {
    uint64_t found = 0;
    Py_ssize_t count = PyTuple_GET_SIZE(keys);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *encoded = PyTuple_GET_ITEM(keys, i);
        const uint8_t *bytes = (const uint8_t *)PyBytes_AS_STRING(encoded);
        struct acc_key key = {
            .data = bytes + 1, .size = (uint32_t)PyBytes_GET_SIZE(encoded) - 1, .tag = bytes[0]};
        key.hash = acc_key_hash(area, &key);
        found +=
            expire ? acc_expire(area, &key, ACC_LOCK_BUDGET_NS) == ACC_OK : acc_delete(area, &key);
    }
    return found;
}

static bool are_keys(PyObject *keys) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(keys); i++) {
        PyObject *key = PyTuple_GET_ITEM(keys, i);
        if (!PyBytes_CheckExact(key)) {
            PyErr_SetString(PyExc_TypeError, "invalidate: an encoded key is bytes");
            return false;
        }
        if (PyBytes_GET_SIZE(key) < 1 || PyBytes_GET_SIZE(key) > (Py_ssize_t)KEY_BUFFER) {
            PyErr_Format(PyExc_ValueError, "invalidate: an encoded key has 1 to %d bytes",
                         KEY_BUFFER);
            return false;
        }
    }
    return true;
}

static PyObject *invalidate(struct acc_segment *seg, uint32_t id, PyObject *keys, bool expire) {
    /* Without an identity there is no lock to be had: an expire is a delete then. */
    bool registered = is_entered(seg);
    struct acc_area area; /* the plain one: what is said of it is said of all of its versions */
    acc_area_at(seg, id, &area);
    area.stamp = acc_stamp_of(acc_incarnation(seg), area.overrides);
    area.stats = registered ? acc_stats_of(seg, id) : &seg->lost_stats;
    uint64_t found;
    if (PyTuple_GET_SIZE(keys) <= FEW_KEYS && !expire) {
        found = forget_keys(&area, keys, false); /* takes no lock */
    } else {
        Py_BEGIN_ALLOW_THREADS
            found = forget_keys(&area, keys, expire);
        Py_END_ALLOW_THREADS
    }
    return PyLong_FromUnsignedLongLong(found);
}

PyObject *segment_invalidate(PyObject *op, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"area", "keys", "expire", NULL};
    struct acc_segment *seg = seg_of(op);
    PyObject *name, *given, *answer = NULL;
    int expire = 0;
    struct acc_area_slot *slot;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|p:invalidate", names, &name, &given,
                                     &expire) ||
        !area_from(seg, name, &slot) || !writable(seg)) {
        return NULL;
    }
    PyObject *keys = PySequence_Tuple(given); /* holds what another thread may take off the list */
    if (keys != NULL && are_keys(keys)) {
        answer = slot == NULL ? PyLong_FromLong(0)
                              : invalidate(seg, id_of(seg, slot), keys, expire != 0);
    }
    Py_XDECREF(keys);
    return answer;
}

/* --- election --------------------------------------------------------------------------------- */

PyObject *segment_lead(PyObject *op, PyObject *arg) {
    struct acc_segment *seg = seg_of(op);
    uint64_t timeout, now = acc_clock_ns();
    if (!ns_from(arg, &timeout)) {
        return NULL;
    }
    uint64_t end = now + timeout; /* within 9e18 and some: no overflow */
    uint32_t term = acc_leader_claim(seg, 0);
    while (term == 0 && acc_incarnation(seg) != 0 && !seg->readonly &&
           (now = acc_clock_ns()) < end) {
        Py_BEGIN_ALLOW_THREADS
            term = acc_leader_claim(seg, end - now);
        Py_END_ALLOW_THREADS
        if (PyErr_CheckSignals() != 0) {
            acc_leader_resign(seg, term);
            return NULL;
        }
    }
    return PyLong_FromUnsignedLong(term);
}

/* *out 0: a number that is no term. */
static bool term_from(PyObject *object, uint32_t *out) {
    uint64_t number;
    bool is_number = number_from(object, &number);
    *out = is_number && number <= UINT32_MAX ? (uint32_t)number : 0;
    return is_number;
}

PyObject *segment_lead_beat(PyObject *op, PyObject *arg) {
    uint32_t term;
    return term_from(arg, &term) ? PyBool_FromLong(acc_leader_beat(seg_of(op), term)) : NULL;
}

PyObject *segment_lead_resign(PyObject *op, PyObject *arg) {
    uint32_t term;
    if (!term_from(arg, &term)) {
        return NULL;
    }
    acc_leader_resign(seg_of(op), term);
    Py_RETURN_NONE;
}

PyObject *segment_leader(PyObject *op, PyObject *unused) {
    (void)unused;
    const struct acc_segment *seg = seg_of(op);
    struct acc_leader_info info = acc_leader_look(seg);
    const struct acc_process *slot =
        info.incarnation == 0 ? NULL : acc_process_find(seg, info.incarnation);
    PyObject *age =
        info.has_beat ? PyFloat_FromDouble((double)info.beat_age_ms / 1000.0) : Py_NewRef(Py_None);
    return Py_BuildValue("{s:I,s:I,s:I,s:N}", "term", info.term, "incarnation", info.incarnation,
                         "pid", slot == NULL ? 0u : slot->pid, "beat_age", age);
}

/* --- the link --------------------------------------------------------------------------------- */

PyObject *segment_link_confirm(PyObject *op, PyObject *arg) {
    double seconds = PyFloat_AsDouble(arg);
    uint64_t sent;
    if ((seconds == -1.0 && PyErr_Occurred()) || !time_of(seconds, &sent) ||
        !writable(seg_of(op))) {
        return NULL;
    }
    acc_link_confirm(seg_of(op), sent);
    Py_RETURN_NONE;
}

PyObject *segment_link_refused(PyObject *op, PyObject *unused) {
    (void)unused;
    if (!writable(seg_of(op))) {
        return NULL;
    }
    acc_link_refused(seg_of(op));
    Py_RETURN_NONE;
}

PyObject *segment_link_note(PyObject *op, PyObject *args) {
    struct acc_segment *seg = seg_of(op);
    int event;
    double value = 0;
    uint64_t ns;
    if (!PyArg_ParseTuple(args, "i|d:link_note", &event, &value) || !ns_of(value, &ns) ||
        !writable(seg)) {
        return NULL;
    }
    switch (event) {
    case LINK_CONNECTED: acc_link_connected(seg); break;
    case LINK_LOST: acc_link_lost(seg, ns); break;
    case LINK_MESSAGE: acc_link_message(seg); break;
    default: PyErr_SetString(PyExc_ValueError, "link_note: no such event"); return NULL;
    }
    Py_RETURN_NONE;
}

static const char *breaker_text(enum acc_breaker breaker) {
    return breaker == ACC_BREAKER_CLOSED ? "closed"
           : breaker == ACC_BREAKER_OPEN ? "open"
                                         : "half-open";
}

static PyObject *float_or_none(bool is_known, uint64_t ns) {
    return is_known ? PyFloat_FromDouble(seconds_of(ns)) : Py_NewRef(Py_None);
}

/* How long ago; None: never. */
static PyObject *age_of(uint64_t at, uint64_t now) {
    return float_or_none(at != 0, now - at);
}

/* Takes over `value`, which may be NULL with an exception. */
static bool put(PyObject *dict, const char *name, PyObject *value) {
    bool is_put = value != NULL && PyDict_SetItemString(dict, name, value) == 0;
    Py_XDECREF(value);
    return is_put;
}

static PyObject *forced_breaker(enum acc_forced forced) {
    return forced == ACC_FORCED_OPEN     ? PyUnicode_FromString("open")
           : forced == ACC_FORCED_CLOSED ? PyUnicode_FromString("closed")
                                         : Py_NewRef(Py_None);
}

static bool put_link(PyObject *dict, const struct acc_link_info *link) {
    uint64_t now = link->now, reconnects = link->connects == 0 ? 0 : link->connects - 1;
    uint64_t retry = link->next_retry > now ? link->next_retry - now : 0;
    return put(dict, "confirmed_age", age_of(link->confirmed, now)) &&
           put(dict, "heard_age", age_of(link->heard, now)) &&
           put(dict, "refused", PyBool_FromLong(link->refused)) &&
           put(dict, "settled", PyBool_FromLong(link->settled)) &&
           put(dict, "breaker", PyUnicode_FromString(breaker_text(link->breaker))) &&
           put(dict, "failures", PyLong_FromUnsignedLong(link->failures)) &&
           put(dict, "open_for", PyFloat_FromDouble(seconds_of(link->open_ns))) &&
           put(dict, "connected_since", age_of(link->connected, now)) &&
           put(dict, "reconnects", PyLong_FromUnsignedLongLong(reconnects)) &&
           put(dict, "breaker_forced", forced_breaker(link->forced)) &&
           put(dict, "last_message_age", age_of(link->message, now)) &&
           put(dict, "next_retry_in", float_or_none(link->next_retry != 0, retry));
}

static bool put_outbox(PyObject *dict, const struct acc_outbox_info *outbox) {
    return put(dict, "outbox_depth", PyLong_FromUnsignedLongLong(outbox->depth)) &&
           put(dict, "outbox_oldest_age",
               float_or_none(outbox->depth != 0, outbox->oldest_age_ns)) &&
           put(dict, "outbox_dropped", PyLong_FromUnsignedLongLong(outbox->dropped));
}

PyObject *segment_link(PyObject *op, PyObject *unused) {
    (void)unused;
    const struct acc_segment *seg = seg_of(op);
    struct acc_link_info link;
    struct acc_outbox_info outbox;
    Py_BEGIN_ALLOW_THREADS
        link = acc_link_look(seg);
        outbox = acc_outbox_look(seg);
    Py_END_ALLOW_THREADS
    PyObject *dict = PyDict_New();
    if (dict != NULL && !(put_link(dict, &link) && put_outbox(dict, &outbox))) {
        Py_CLEAR(dict);
    }
    return dict;
}

PyObject *segment_remote_ask(PyObject *op, PyObject *args) {
    double bound;
    int reading;
    uint64_t bound_ns;
    if (!PyArg_ParseTuple(args, "dp:remote_ask", &bound, &reading) || !ns_of(bound, &bound_ns) ||
        !writable(seg_of(op))) {
        return NULL;
    }
    return PyLong_FromLong(acc_link_ask(seg_of(op), bound_ns, reading != 0));
}

PyObject *segment_remote_ok(PyObject *op, PyObject *arg) {
    int probe = PyObject_IsTrue(arg);
    if (probe < 0 || !writable(seg_of(op))) {
        return NULL;
    }
    acc_link_ok(seg_of(op), probe != 0);
    Py_RETURN_NONE;
}

PyObject *segment_remote_failed(PyObject *op, PyObject *args) {
    double since;
    int probe;
    uint64_t since_ns;
    if (!PyArg_ParseTuple(args, "dp:remote_failed", &since, &probe) || !time_of(since, &since_ns) ||
        !writable(seg_of(op))) {
        return NULL;
    }
    acc_link_failed(seg_of(op), since_ns, probe != 0);
    Py_RETURN_NONE;
}

PyObject *segment_confirmed_age(PyObject *op, PyObject *unused) {
    (void)unused;
    struct acc_link_info link = acc_link_look(seg_of(op));
    return PyFloat_FromDouble(link.confirmed == 0 ? (double)INFINITY
                                                  : seconds_of(link.now - link.confirmed));
}
