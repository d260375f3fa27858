/* What Segment offers to operators: overrides, the ring of events, the limiter of log lines. */
#include "segment_args.h"

#include "area.h"
#include "events.h"
#include "limit.h"
#include "override.h"

#include <math.h>
#include <stdlib.h>

/* --- overrides -------------------------------------------------------------------------------- */

/* The row of an area; of the host for "".  False with an exception. */
static bool row_from(struct acc_segment *seg, PyObject *name, uint32_t *out) {
    struct acc_area_slot *slot;
    if (!area_from(seg, name, &slot)) {
        return false;
    }
    bool of_host = PyUnicode_GET_LENGTH(name) == 0;
    if (slot == NULL && !of_host) {
        PyErr_Format(PyExc_KeyError, "override: no such area: %U", name);
        return false;
    }
    *out = of_host ? acc_override_host(seg) : id_of(seg, slot);
    return true;
}

static bool option_from(const struct acc_segment *seg, int number, uint32_t row,
                        enum acc_option *out) {
    *out = (enum acc_option)number;
    if (number < 0 || number >= ACC_OPTIONS) {
        PyErr_SetString(PyExc_ValueError, "override: no such option");
        return false;
    }
    if (*out == ACC_OPTION_BREAKER && row != acc_override_host(seg)) {
        PyErr_SetString(PyExc_ValueError, "override: the breaker is the host's, not one area's");
        return false;
    }
    return true;
}

static bool value_from(PyObject *object, enum acc_option option, uint32_t *out) {
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (number == -1 && PyErr_Occurred()) {
        return false;
    }
    if (overflow != 0 || number < 0 || number > (long long)acc_option_most[option]) {
        PyErr_Format(PyExc_ValueError, "override: %s cannot be %S", acc_option_names[option],
                     object);
        return false;
    }
    *out = (uint32_t)number;
    return true;
}

/* *out 0: without a limit. */
static bool limit_from(PyObject *object, uint64_t *out) {
    *out = 0;
    if (object == Py_None) {
        return true;
    }
    double seconds = PyFloat_AsDouble(object);
    if (seconds == -1.0 && PyErr_Occurred()) {
        return false;
    }
    if (!(seconds > 0 && seconds <= (double)ACC_OVERRIDE_SECONDS_MAX)) {
        PyErr_SetString(PyExc_ValueError,
                        "override: seconds must be more than 0, and at most 90 days");
        return false;
    }
    *out = (uint64_t)ceil(seconds * 1e9);
    return true;
}

PyObject *segment_override(PyObject *op, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"area", "option", "value", "seconds", NULL};
    struct acc_segment *seg = seg_of(op);
    PyObject *name, *given, *limit = Py_None;
    int number;
    uint32_t row, value = 0;
    uint64_t ns;
    enum acc_option option;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OiO|O:override", names, &name, &number, &given,
                                     &limit) ||
        !row_from(seg, name, &row) || !option_from(seg, number, row, &option) ||
        (given != Py_None && !value_from(given, option, &value)) || !limit_from(limit, &ns) ||
        !writable(seg)) {
        return NULL;
    }
    if (given == Py_None) {
        acc_override_remove(seg, row, option);
    } else {
        acc_override_set(seg, row, option, value, ns);
    }
    acc_override_notice(seg); /* this process acts on it at once */
    Py_RETURN_NONE;
}

/* What is in force in a row, as it was copied, put behind the list.  False with an exception. */
static bool list_row(const struct acc_segment *seg, uint32_t row, const struct acc_overrides *copy,
                     PyObject *list) {
    bool of_host = row == acc_override_host(seg);
    if (!of_host && acc_load_acquire(&acc_area_slot(seg, row)->state) != 1) {
        return true;
    }
    for (uint32_t option = 0; option < ACC_OPTIONS; option++) {
        uint64_t word = copy->word[option];
        uint32_t value;
        if (!acc_override_value(word, (enum acc_option)option, &value)) {
            continue;
        }
        PyObject *name = of_host ? PyUnicode_FromString("") : segment_area_name(seg, row);
        PyObject *left =
            word >> 32 == 0 ? Py_NewRef(Py_None) : PyFloat_FromDouble(acc_override_left(seg, word));
        if (!append_own(list, Py_BuildValue("(NIIN)", name, option, value, left))) {
            return false;
        }
    }
    return true;
}

/* *sum: of exactly what is listed.  NULL with an exception. */
static PyObject *list_overrides(const struct acc_segment *seg, uint64_t *sum) {
    PyObject *list = PyList_New(0);
    *sum = 0;
    for (uint32_t row = 0; list != NULL && row <= acc_override_host(seg); row++) {
        if (acc_likely(acc_override_none(seg, row))) {
            continue;
        }
        struct acc_overrides copy;
        acc_override_copy(seg, row, &copy);
        *sum += acc_override_sum(&copy, row);
        if (!list_row(seg, row, &copy, list)) {
            Py_CLEAR(list);
        }
    }
    return list;
}

PyObject *segment_overrides(PyObject *op, PyObject *unused) {
    (void)unused;
    uint64_t sum;
    return list_overrides(seg_of(op), &sum);
}

PyObject *segment_overrides_taken(PyObject *op, PyObject *unused) {
    (void)unused;
    struct acc_segment *seg = seg_of(op);
    uint64_t sum;
    PyObject *list = list_overrides(seg, &sum);
    return list == NULL ? NULL
                        : Py_BuildValue("(kN)", (unsigned long)acc_override_act(seg, sum), list);
}

PyObject *segment_overrides_print(PyObject *op, PyObject *unused) {
    (void)unused;
    return PyLong_FromUnsignedLong(acc_override_notice(seg_of(op)));
}

PyObject *segment_overrides_seen(PyObject *op, PyObject *unused) {
    (void)unused;
    const struct acc_segment *seg = seg_of(op);
    uint32_t seen, alive;
    Py_BEGIN_ALLOW_THREADS
        acc_override_seen(seg, &seen, &alive);
    Py_END_ALLOW_THREADS
    return Py_BuildValue("(II)", seen, alive);
}

/* --- events ----------------------------------------------------------------------------------- */

/* What is kept of a text: its beginning, in ASCII, filled up with 0. */
static bool put_text(PyObject *text, char *out, size_t size) {
    if (!PyUnicode_Check(text)) {
        PyErr_SetString(PyExc_TypeError, "the texts of an event are str");
        return false;
    }
    Py_ssize_t length = PyUnicode_GET_LENGTH(text);
    memset(out, 0, size);
    for (Py_ssize_t i = 0; i < length && i < (Py_ssize_t)size; i++) {
        Py_UCS4 letter = PyUnicode_READ_CHAR(text, i);
        out[i] = letter < 128 ? (char)letter : '?';
    }
    return true;
}

static bool put_area(struct acc_segment *seg, PyObject *name, struct acc_event *out) {
    struct acc_area_slot *slot;
    if (!area_from(seg, name, &slot)) {
        return false;
    }
    out->area = slot == NULL ? 0 : id_of(seg, slot) + 1;
    return true;
}

static bool put_seconds(double seconds, struct acc_event *out) {
    if (!(seconds >= 0 && isfinite(seconds))) {
        PyErr_SetString(PyExc_ValueError, "event: seconds must be finite and not below 0");
        return false;
    }
    return ns_of(seconds, &out->took_ns);
}

/* *object NULL: none. */
static bool put_hash(PyObject *object, struct acc_event *out) {
    return object == NULL || number_from(object, &out->hash);
}

static uint32_t count_of(long long n) {
    return n < 0 ? 0 : n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}

/* The arguments of a method, which may be named; those not given are NULL.  By hand, as parsing them
 * by a format costs more than the event.  False with an exception. */
static bool take(const char *method, const char *const *names, Py_ssize_t needed,
                 PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, PyObject **out) {
    Py_ssize_t most = 0, named = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    while (names[most] != NULL) {
        out[most] = most < nargs ? args[most] : NULL;
        most++;
    }
    bool fits = nargs <= most;
    for (Py_ssize_t i = 0; fits && i < named; i++) {
        Py_ssize_t at = 0;
        while (at < most &&
               PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, i), names[at]) != 0) {
            at++;
        }
        fits = at < most && out[at] == NULL;
        if (fits) {
            out[at] = args[nargs + i];
        }
    }
    for (Py_ssize_t i = 0; fits && i < needed; i++) {
        fits = out[i] != NULL;
    }
    if (!fits) {
        PyErr_Format(PyExc_TypeError, "%s: wrong arguments", method);
    }
    return fits;
}

/* NULL: one. */
static bool put_count(PyObject *object, struct acc_event *out) {
    long long count = object == NULL ? 1 : PyLong_AsLongLong(object);
    if (count == -1 && PyErr_Occurred()) {
        return false;
    }
    out->count = count_of(count);
    return true;
}

static bool put_result(PyObject *result, PyObject *kind, PyObject *took, struct acc_event *out) {
    double seconds = PyFloat_AsDouble(took);
    return !(seconds == -1.0 && PyErr_Occurred()) &&
           put_text(result, out->result, sizeof out->result) &&
           put_text(kind, out->error_kind, sizeof out->error_kind) && put_seconds(seconds, out);
}

PyObject *segment_event(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"area",    "op",   "result", "error_kind",
                                        "seconds", "hash", "count",  NULL};
    struct acc_segment *seg = seg_of(op);
    PyObject *of[7];
    struct acc_event event = {0};
    if (!take("event", names, 5, args, nargs, kwnames, of) || !put_area(seg, of[0], &event) ||
        !put_text(of[1], event.op, sizeof event.op) || !put_result(of[2], of[3], of[4], &event) ||
        !put_hash(of[5], &event) || !put_count(of[6], &event) || !writable(seg)) {
        return NULL;
    }
    acc_event_add(seg, &event);
    Py_RETURN_NONE;
}

PyObject *segment_event_begin(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                              PyObject *kwnames) {
    static const char *const names[] = {"area", "op", "hash", "count", NULL};
    struct acc_segment *seg = seg_of(op);
    PyObject *of[4];
    struct acc_event event = {0};
    if (!take("event_begin", names, 2, args, nargs, kwnames, of) || !put_area(seg, of[0], &event) ||
        !put_text(of[1], event.op, sizeof event.op) || !put_hash(of[2], &event) ||
        !put_count(of[3], &event) || !writable(seg)) {
        return NULL;
    }
    return PyLong_FromUnsignedLongLong(acc_event_begin(seg, &event));
}

PyObject *segment_event_end(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                            PyObject *kwnames) {
    static const char *const names[] = {"number", "result", "error_kind", "seconds", NULL};
    struct acc_segment *seg = seg_of(op);
    PyObject *of[4];
    uint64_t number;
    struct acc_event event = {0};
    if (!take("event_end", names, 4, args, nargs, kwnames, of) || !number_from(of[0], &number) ||
        !put_result(of[1], of[2], of[3], &event) || !writable(seg)) {
        return NULL;
    }
    acc_event_end(seg, number, &event);
    Py_RETURN_NONE;
}

static PyObject *text_of(const char *text, size_t size) {
    return PyUnicode_DecodeASCII(text, (Py_ssize_t)strnlen(text, size), "replace");
}

static PyObject *describe_event(const struct acc_segment *seg, const struct acc_event *event,
                                bool alive) {
    uint32_t area = event->area - 1;
    PyObject *name =
        area < seg->geometry.areas ? segment_area_name(seg, area) : PyUnicode_FromString("");
    PyObject *latency =
        event->running ? Py_NewRef(Py_None) : PyFloat_FromDouble((double)event->took_ns / 1e6);
    return Py_BuildValue("{s:K,s:d,s:I,s:I,s:O,s:N,s:N,s:N,s:N,s:N,s:K,s:I,s:O}", "number",
                         (unsigned long long)event->number, "time", seconds_of(event->time_ns),
                         "pid", event->pid, "incarnation", event->incarnation, "alive",
                         alive ? Py_True : Py_False, "area", name, "op",
                         text_of(event->op, sizeof event->op), "result",
                         text_of(event->result, sizeof event->result), "error_kind",
                         text_of(event->error_kind, sizeof event->error_kind), "latency_ms",
                         latency, "hash", (unsigned long long)event->hash, "count", event->count,
                         "running", event->running ? Py_True : Py_False);
}

/* Who of those that events are of lives: asked once for each. */
static bool lives(const struct acc_segment *seg, const struct acc_event *events, bool *alive,
                  uint32_t at) {
    uint32_t incarnation = events[at].incarnation;
    for (uint32_t i = 0; i < at; i++) {
        if (events[i].incarnation == incarnation) {
            return alive[i];
        }
    }
    return incarnation != 0 && !acc_process_dead(seg, incarnation);
}

PyObject *segment_events(PyObject *op, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"limit", NULL};
    const struct acc_segment *seg = seg_of(op);
    long long limit = 1000;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|L:events", names, &limit)) {
        return NULL;
    }
    uint32_t slots = seg->geometry.events, found;
    uint32_t most = limit < 0 ? 0 : limit > slots ? slots : (uint32_t)limit;
    struct acc_event *events = PyMem_Calloc((size_t)most + 1, sizeof *events);
    bool *alive = PyMem_Calloc((size_t)most + 1, sizeof *alive);
    PyObject *list = PyList_New(0);
    if (events == NULL || alive == NULL || list == NULL) {
        PyMem_Free(events);
        PyMem_Free(alive);
        Py_XDECREF(list);
        return PyErr_NoMemory();
    }
    Py_BEGIN_ALLOW_THREADS
        found = acc_events_read(seg, events, most);
        for (uint32_t i = 0; i < found; i++) {
            alive[i] = lives(seg, events, alive, i);
        }
    Py_END_ALLOW_THREADS
    for (uint32_t i = 0; list != NULL && i < found; i++) {
        if (!append_own(list, describe_event(seg, &events[i], alive[i]))) {
            Py_CLEAR(list);
        }
    }
    PyMem_Free(events);
    PyMem_Free(alive);
    return list;
}

/* --- log lines -------------------------------------------------------------------------------- */

PyObject *segment_log_allowed(PyObject *op, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"area", "op", "result", "error_kind", "interval", NULL};
    struct acc_segment *seg = seg_of(op);
    const char *text[4];
    Py_ssize_t size[4];
    double interval;
    uint64_t ns, kind = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s#s#s#s#d:log_allowed", names, &text[0],
                                     &size[0], &text[1], &size[1], &text[2], &size[2], &text[3],
                                     &size[3], &interval) ||
        !ns_of(interval, &ns) || !writable(seg)) {
        return NULL;
    }
    for (int i = 0; i < 4; i++) { /* each by itself, so that it matters where one ends */
        kind = acc_siphash(seg->hash_key[0] ^ kind, seg->hash_key[1], (const uint8_t *)text[i],
                           (size_t)size[i]);
    }
    return PyLong_FromLongLong(acc_limit_allowed(seg, kind, ns));
}
