/* What Segment offers to those who talk to the second level: the listener's knowledge and its
 * election, the state of the link with the breaker, and the outbox.
 *
 * Times from and to Python are seconds of CLOCK_MONOTONIC, which is time.monotonic(). */
#include "state.h"

#include "freshness.h"
#include "leader.h"
#include "link.h"
#include "outbox.h"

#include <math.h>

/* Keys that are forgotten with the GIL held: some microseconds. */
#define FEW_KEYS 16

static struct acc_segment *seg_of(PyObject *op) {
    return ((SegmentObject *)op)->seg;
}

/* Most words here need no identity: also a process that the segment has fenced may store them, so
 * that no request fails because of that.  False with an exception. */
static bool writable(struct acc_segment *seg) {
    if (seg->readonly) {
        raise_status(ACC_READONLY, "changing a segment");
    }
    return !seg->readonly;
}

/* Registered, if that is to be had. */
static bool is_entered(struct acc_segment *seg) {
    return acc_incarnation(seg) != 0 || acc_segment_register(seg) == ACC_OK;
}

/* Seconds to nanoseconds: what is before the clock's zero is its zero, what is behind all times
 * ends at the last one.  False with an exception. */
static bool ns_of(double seconds, uint64_t *out) {
    if (isnan(seconds)) {
        PyErr_SetString(PyExc_ValueError, "a time must be a number");
        return false;
    }
    *out = seconds <= 0 ? 0 : seconds >= 9e9 ? (uint64_t)9e18 : (uint64_t)(seconds * 1e9);
    return true;
}

/* The same of a point of time. */
static bool time_of(double seconds, uint64_t *out) {
    if (!isfinite(seconds)) {
        PyErr_SetString(PyExc_ValueError, "a time must be finite");
        return false;
    }
    return ns_of(seconds, out);
}

static bool ns_from(PyObject *object, uint64_t *out) {
    double seconds = PyFloat_AsDouble(object);
    return !(seconds == -1.0 && PyErr_Occurred()) && ns_of(seconds, out);
}

static bool number_from(PyObject *object, uint64_t *out) {
    *out = PyLong_AsUnsignedLongLong(object);
    return !(*out == (uint64_t)-1 && PyErr_Occurred());
}

static double seconds_of(uint64_t ns) {
    return (double)ns / 1e9;
}

/* How long ago; None: never. */
static PyObject *age_of(uint64_t at, uint64_t now) {
    return at == 0 ? Py_NewRef(Py_None) : PyFloat_FromDouble(seconds_of(now - at));
}

/* --- areas ------------------------------------------------------------------------------------ */

/* The slot of an area that is named by a str.  False with an exception; *out NULL: no such area. */
static bool area_from(struct acc_segment *seg, PyObject *name, struct acc_area_slot **out) {
    Py_ssize_t size;
    const char *text = PyUnicode_Check(name) ? PyUnicode_AsUTF8AndSize(name, &size) : NULL;
    if (text == NULL) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError, "the name of an area is a str");
        }
        return false;
    }
    *out = acc_area_find(seg, text, (size_t)size);
    return true;
}

static uint32_t id_of(const struct acc_segment *seg, const struct acc_area_slot *slot) {
    return (uint32_t)(slot - acc_area_slot(seg, 0));
}

PyObject *segment_origin(PyObject *op, void *closure) {
    (void)closure;
    const struct acc_header *header = acc_header(seg_of(op));
    return PyBytes_FromStringAndSize((const char *)header->origin, sizeof header->origin);
}

/* Names of the areas of which `has` is true. */
static PyObject *names_of(struct acc_segment *seg,
                          bool (*has)(struct acc_segment *seg, uint32_t area)) {
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; list != NULL && i < seg->geometry.areas; i++) {
        if (acc_load_acquire(&acc_area_slot(seg, i)->state) != 1 || !has(seg, i)) {
            continue;
        }
        PyObject *name = segment_area_name(seg, i);
        if (name == NULL || PyList_Append(list, name) != 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(name);
    }
    return list;
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
    const char *name;
    Py_ssize_t size;
    double until;
    if (!PyArg_ParseTuple(args, "s#d:area_extend", &name, &size, &until)) {
        return NULL;
    }
    double units = until * ACC_UNITS_PER_SECOND;
    if (!(units >= 0 && units < (double)(acc_now_long(seg) + ACC_FRESH_MOST))) {
        PyErr_SetString(PyExc_ValueError, "area_extend: until must be a time of the monotonic "
                                          "clock, at most 90 days ahead");
        return NULL;
    }
    if (seg->readonly) {
        return raise_status(ACC_READONLY, "extending an area's lease");
    }
    struct acc_area_slot *slot = acc_area_find(seg, name, (size_t)size);
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
    struct acc_area area = {.seg = seg,
                            .incarnation_now = &seg->self->incarnation,
                            .incarnation = acc_incarnation(seg),
                            .id = id,
                            .generation = &acc_area_slot(seg, id)->generation,
                            .stats = registered ? acc_stats_of(seg, id) : &seg->lost_stats};
    uint64_t found;
    if (PyTuple_GET_SIZE(keys) <= FEW_KEYS && !expire) {
        found = forget_keys(&area, keys, false); /* takes no lock */
    } else {
        Py_BEGIN_ALLOW_THREADS found = forget_keys(&area, keys, expire);
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
        Py_BEGIN_ALLOW_THREADS term = acc_leader_claim(seg, end - now);
        Py_END_ALLOW_THREADS if (PyErr_CheckSignals() != 0) {
            acc_leader_resign(seg, term);
            return NULL;
        }
    }
    return PyLong_FromUnsignedLong(term);
}

/* 0 for what is no term of ours. */
static uint32_t term_from(PyObject *arg) {
    uint64_t term;
    return number_from(arg, &term) && term <= UINT32_MAX ? (uint32_t)term : 0;
}

PyObject *segment_lead_beat(PyObject *op, PyObject *arg) {
    uint32_t term = term_from(arg);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(acc_leader_beat(seg_of(op), term));
}

PyObject *segment_lead_resign(PyObject *op, PyObject *arg) {
    uint32_t term = term_from(arg);
    if (PyErr_Occurred()) {
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

PyObject *segment_link(PyObject *op, PyObject *unused) {
    (void)unused;
    const struct acc_segment *seg = seg_of(op);
    struct acc_link_info link;
    struct acc_outbox_info outbox;
    Py_BEGIN_ALLOW_THREADS link = acc_link_look(seg);
    outbox = acc_outbox_look(seg);
    Py_END_ALLOW_THREADS PyObject *retry =
        link.next_retry == 0         ? Py_NewRef(Py_None)
        : link.next_retry > link.now ? PyFloat_FromDouble(seconds_of(link.next_retry - link.now))
                                     : PyFloat_FromDouble(0.0);
    return Py_BuildValue(
        "{s:N,s:N,s:O,s:O,s:s,s:I,s:d,s:N,s:K,s:N,s:N,s:K,s:N,s:K}", "confirmed_age",
        age_of(link.confirmed, link.now), "heard_age", age_of(link.heard, link.now), "refused",
        link.refused ? Py_True : Py_False, "settled", link.settled ? Py_True : Py_False, "breaker",
        breaker_text(link.breaker), "failures", link.failures, "open_for", seconds_of(link.open_ns),
        "connected_since", age_of(link.connected, link.now), "reconnects",
        (unsigned long long)(link.connects == 0 ? 0 : link.connects - 1), "last_message_age",
        age_of(link.message, link.now), "next_retry_in", retry, "outbox_depth",
        (unsigned long long)outbox.depth, "outbox_oldest_age",
        outbox.depth == 0 ? Py_NewRef(Py_None)
                          : PyFloat_FromDouble(seconds_of(outbox.oldest_age_ns)),
        "outbox_dropped", (unsigned long long)outbox.dropped);
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

/* --- the outbox ------------------------------------------------------------------------------- */

PyObject *area_note(PyObject *op, PyObject *args) {
    AreaObject *self = (AreaObject *)op;
    PyObject *key_object;
    int kind;
    uint8_t buffer[KEY_BUFFER];
    struct acc_key key;
    if (!PyArg_ParseTuple(args, "Oi:_note", &key_object, &kind)) {
        return NULL;
    }
    if (kind < ACC_NOTE_FORGET || kind >= ACC_NOTE_CLEAR) {
        PyErr_SetString(PyExc_ValueError, "_note: no such kind of a note of one key");
        return NULL;
    }
    if (!area_ready(self) || !area_key(self, key_object, buffer, &key)) {
        return NULL;
    }
    return PyLong_FromUnsignedLongLong(acc_outbox_append(&self->area, &key, (enum acc_note)kind));
}

PyObject *area_note_clear(PyObject *op, PyObject *unused) {
    (void)unused;
    AreaObject *self = (AreaObject *)op;
    if (!area_ready(self)) {
        return NULL;
    }
    return PyLong_FromUnsignedLongLong(acc_outbox_append(&self->area, NULL, ACC_NOTE_CLEAR));
}

PyObject *segment_outbox_settle(PyObject *op, PyObject *args) {
    PyObject *number_object;
    int sent;
    uint64_t number;
    if (!PyArg_ParseTuple(args, "Op:outbox_settle", &number_object, &sent) ||
        !number_from(number_object, &number) || !writable(seg_of(op))) {
        return NULL;
    }
    acc_outbox_settle(seg_of(op), number, sent != 0);
    Py_RETURN_NONE;
}

static PyObject *entry_tuple(const struct acc_segment *seg, const struct acc_outbox_entry *entry) {
    return Py_BuildValue("(KNIy#)", (unsigned long long)entry->number,
                         segment_area_name(seg, entry->area), entry->kind, (const char *)entry->key,
                         (Py_ssize_t)entry->key_size);
}

/* Takes over `entries`. */
static PyObject *entry_list(const struct acc_segment *seg, enum acc_status status,
                            struct acc_outbox_entry *entries, uint32_t count) {
    PyObject *list = status == ACC_OK ? PyList_New(count) : PyErr_NoMemory();
    for (uint32_t i = 0; list != NULL && i < count; i++) {
        PyObject *one = entry_tuple(seg, &entries[i]);
        if (one == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, i, one);
    }
    free(entries);
    return list;
}

PyObject *segment_outbox_due(PyObject *op, PyObject *args) {
    struct acc_segment *seg = seg_of(op);
    unsigned int limit = 256;
    struct acc_outbox_entry *entries;
    uint32_t count;
    enum acc_status status;
    if (!PyArg_ParseTuple(args, "|I:outbox_due", &limit) || !writable(seg)) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS status = acc_outbox_due(seg, limit, &entries, &count);
    Py_END_ALLOW_THREADS return entry_list(seg, status, entries, count);
}

PyObject *segment_outbox_recent(PyObject *op, PyObject *arg) {
    struct acc_segment *seg = seg_of(op);
    struct acc_outbox_entry *entries;
    uint32_t count;
    uint64_t ns;
    enum acc_status status;
    if (!ns_from(arg, &ns)) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS status = acc_outbox_recent(seg, ns, &entries, &count);
    Py_END_ALLOW_THREADS return entry_list(seg, status, entries, count);
}

PyObject *segment_outbox_heard(PyObject *op, PyObject *arg) {
    uint64_t number;
    if (!number_from(arg, &number) || !writable(seg_of(op))) {
        return NULL;
    }
    return PyBool_FromLong(acc_outbox_heard(seg_of(op), number));
}

PyObject *segment_outbox_given_up(PyObject *op, PyObject *arg) {
    uint64_t number;
    if (!number_from(arg, &number)) {
        return NULL;
    }
    return PyBool_FromLong(acc_outbox_given_up(seg_of(op), number));
}

PyObject *segment_outbox_unsent(PyObject *op, PyObject *arg) {
    struct acc_segment *seg = seg_of(op);
    struct acc_area_slot *slot;
    struct acc_outbox_entry *entries = NULL;
    uint32_t count = 0;
    bool whole = false;
    enum acc_status status = ACC_OK;
    if (!area_from(seg, arg, &slot)) {
        return NULL;
    }
    if (slot != NULL) {
        Py_BEGIN_ALLOW_THREADS /* it is long when Redis was away */
            status = acc_outbox_unsent(seg, id_of(seg, slot), &entries, &count, &whole);
        Py_END_ALLOW_THREADS
    }
    PyObject *keys = status != ACC_OK ? PyErr_NoMemory()
                     : whole          ? Py_NewRef(Py_None)
                                      : PyFrozenSet_New(NULL);
    for (uint32_t i = 0; keys != NULL && !whole && i < count; i++) {
        PyObject *key = PyBytes_FromStringAndSize((const char *)entries[i].key,
                                                  (Py_ssize_t)entries[i].key_size);
        if (key == NULL || PySet_Add(keys, key) != 0) {
            Py_CLEAR(keys);
        }
        Py_XDECREF(key);
    }
    free(entries);
    return keys;
}

PyObject *segment_outbox_owed(PyObject *op, PyObject *unused) {
    (void)unused;
    return names_of(seg_of(op), acc_outbox_owed);
}

PyObject *segment_outbox_paid(PyObject *op, PyObject *arg) {
    struct acc_segment *seg = seg_of(op);
    struct acc_area_slot *slot;
    if (!area_from(seg, arg, &slot) || !writable(seg)) {
        return NULL;
    }
    if (slot != NULL) {
        acc_outbox_paid(seg, id_of(seg, slot));
    }
    Py_RETURN_NONE;
}
