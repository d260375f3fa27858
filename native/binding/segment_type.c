/* accelerator._native.Segment: a mapped segment, and what can be asked of it as a whole. */
#include "state.h"

#include "evict.h"
#include "lock.h"
#include "maintenance.h"

#include <errno.h>

PyObject *raise_status(enum acc_status status, const char *doing) {
    if (status == ACC_ESYS) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    PyErr_Format(status == ACC_FULL ? PyExc_BlockingIOError : PyExc_ValueError, "%s: %s", doing,
                 acc_status_text(status));
    return NULL;
}

static SegmentObject *wrap(PyTypeObject *type, struct acc_segment *seg) {
    SegmentObject *self = (SegmentObject *)type->tp_alloc(type, 0);
    size_t caches = OBJECT_KINDS * (size_t)seg->geometry.areas;
    struct object_cache **objects = PyMem_RawCalloc(caches, sizeof *objects);
    if (self == NULL || objects == NULL) {
        acc_segment_close(seg);
        PyMem_RawFree(objects);
        Py_XDECREF(self);
        PyErr_NoMemory();
        return NULL;
    }
    self->seg = seg;
    self->objects = objects;
    self->objects_count = caches;
    return self;
}

struct object_cache *segment_objects(SegmentObject *self, uint32_t area, enum object_kind kind,
                                     uint64_t bytes_max) {
    struct object_cache **place = &self->objects[OBJECT_KINDS * (size_t)area + kind];
    if (*place == NULL) {
        *place = object_cache_new(bytes_max);
    } else {
        (*place)->bytes_max = bytes_max;
    }
    return *place;
}

static struct object_cache *spare_objects(const SegmentObject *self) {
    for (size_t i = 0; i < self->own_count; i++) {
        if (self->own[i]->spare) {
            return self->own[i];
        }
    }
    return NULL;
}

/* They stay the segment's, and are not freed before it: a view may be bound anew while another
 * thread stores an object in the one it had. */
struct object_cache *segment_own_objects(SegmentObject *self, uint64_t bytes_max) {
    struct object_cache *cache = spare_objects(self);
    if (cache == NULL) {
        struct object_cache **own =
            PyMem_RawRealloc(self->own, (self->own_count + 1) * sizeof *own);
        if (own == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        self->own = own;
        cache = object_cache_new(bytes_max);
        if (cache == NULL) {
            return NULL;
        }
        self->own[self->own_count++] = cache;
    }
    cache->spare = false;
    cache->bytes_max = bytes_max;
    return cache;
}

static PyObject *segment_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"fd", "size", "readonly", NULL};
    int fd, readonly = 0;
    unsigned long long size;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "iK|$p:Segment", names, &fd, &size, &readonly)) {
        return NULL;
    }
    struct acc_segment *seg;
    enum acc_status status = acc_segment_map(fd, size, readonly, &seg);
    return status == ACC_OK ? (PyObject *)wrap(type, seg)
                            : raise_status(status, "mapping a segment");
}

static PyObject *segment_private(PyObject *type, PyObject *args) {
    unsigned long long size;
    unsigned int max_value_size;
    if (!PyArg_ParseTuple(args, "KI:private", &size, &max_value_size)) {
        return NULL;
    }
    struct acc_segment *seg;
    enum acc_status status = acc_segment_private(size, max_value_size, &seg);
    return status == ACC_OK ? (PyObject *)wrap((PyTypeObject *)type, seg)
                            : raise_status(status, "making a private segment");
}

static int segment_traverse(PyObject *op, visitproc visit, void *arg) {
    SegmentObject *self = (SegmentObject *)op;
    Py_VISIT(Py_TYPE(op));
    for (size_t i = 0; i < self->objects_count; i++) {
        int result =
            self->objects[i] == NULL ? 0 : object_cache_traverse(self->objects[i], visit, arg);
        if (result != 0) {
            return result;
        }
    }
    for (size_t i = 0; i < self->own_count; i++) {
        int result = object_cache_traverse(self->own[i], visit, arg);
        if (result != 0) {
            return result;
        }
    }
    return 0;
}

static int segment_gc_clear(PyObject *op) {
    SegmentObject *self = (SegmentObject *)op;
    for (size_t i = 0; i < self->objects_count; i++) {
        if (self->objects[i] != NULL) {
            object_cache_clear(self->objects[i]);
        }
    }
    for (size_t i = 0; i < self->own_count; i++) {
        object_cache_clear(self->own[i]);
    }
    return 0;
}

static void segment_dealloc(PyObject *op) {
    SegmentObject *self = (SegmentObject *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    for (size_t i = 0; i < self->objects_count; i++) {
        if (self->objects[i] != NULL) {
            object_cache_free(self->objects[i]);
        }
    }
    for (size_t i = 0; i < self->own_count; i++) {
        object_cache_free(self->own[i]);
    }
    PyMem_RawFree(self->objects);
    PyMem_RawFree(self->own);
    if (self->seg != NULL) {
        /* With the GIL: an interpreter that ends while the process does may not ask for it again. */
        acc_segment_close(self->seg);
    }
    type->tp_free(op);
    Py_DECREF(type);
}

static struct acc_segment *seg_of(PyObject *op) {
    return ((SegmentObject *)op)->seg;
}

/* --- methods ---------------------------------------------------------------------------------- */

static PyObject *segment_register(PyObject *op, PyObject *unused) {
    (void)unused;
    enum acc_status status = acc_segment_register(seg_of(op));
    if (status != ACC_OK) {
        return raise_status(status, "registering this process");
    }
    return PyLong_FromUnsignedLong(acc_incarnation(seg_of(op)));
}

static PyObject *segment_unregister(PyObject *op, PyObject *unused) {
    (void)unused;
    Py_BEGIN_ALLOW_THREADS
        acc_segment_unregister(seg_of(op));
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static bool slot_alive(const struct acc_segment *seg, uint32_t incarnation) {
    return incarnation == acc_incarnation(seg) || !acc_process_dead(seg, incarnation);
}

static PyObject *describe_process(const struct acc_segment *seg, const struct acc_process *slot,
                                  uint32_t incarnation) {
    double attached = (double)(acc_clock_ms() - slot->attached) / 1000.0;
    return Py_BuildValue("{s:I,s:I,s:O,s:d,s:O}", "pid", slot->pid, "incarnation", incarnation,
                         "alive", slot_alive(seg, incarnation) ? Py_True : Py_False, "attached",
                         attached, "self",
                         incarnation == acc_incarnation(seg) ? Py_True : Py_False);
}

static PyObject *segment_alive(PyObject *op, PyObject *unused) {
    (void)unused;
    const struct acc_segment *seg = seg_of(op);
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; list != NULL && i < seg->geometry.processes; i++) {
        const struct acc_process *slot = acc_process_slot(seg, i);
        uint32_t incarnation = acc_load_acquire(&slot->incarnation);
        if (incarnation == 0) {
            continue;
        }
        PyObject *one = describe_process(seg, slot, incarnation);
        if (one == NULL || PyList_Append(list, one) != 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(one);
    }
    return list;
}

static PyObject *segment_any_alive(PyObject *op, PyObject *unused) {
    (void)unused;
    return PyBool_FromLong(acc_process_any_other(seg_of(op)));
}

static PyObject *segment_reap(PyObject *op, PyObject *arg) {
    struct acc_segment *seg = seg_of(op);
    unsigned long pid = PyLong_AsUnsignedLong(arg);
    long freed = 0;
    if (pid == (unsigned long)-1 && PyErr_Occurred()) {
        return NULL;
    }
    for (uint32_t i = 0; i < seg->geometry.processes; i++) {
        struct acc_process *slot = acc_process_slot(seg, i);
        uint32_t incarnation = acc_load_acquire(&slot->incarnation);
        if (incarnation != 0 && slot->pid == pid && acc_process_dead(seg, incarnation)) {
            freed += acc_cas32(&slot->incarnation, incarnation, 0);
        }
    }
    return PyLong_FromLong(freed);
}

static PyObject *segment_empty(PyObject *op, PyObject *unused) {
    (void)unused;
    acc_segment_empty(seg_of(op));
    Py_RETURN_NONE;
}

static PyObject *segment_clear_all(PyObject *op, PyObject *unused) {
    (void)unused;
    acc_segment_clear(seg_of(op));
    Py_RETURN_NONE;
}

static PyObject *segment_set_supervisor(PyObject *op, PyObject *args) {
    unsigned long long pid, start;
    if (!PyArg_ParseTuple(args, "KK:set_supervisor", &pid, &start)) {
        return NULL;
    }
    struct acc_prefix *prefix = &acc_header(seg_of(op))->prefix;
    acc_store_relaxed(&prefix->supervisor_start, start);
    acc_store_release(&prefix->supervisor_pid, pid);
    Py_RETURN_NONE;
}

static PyObject *segment_set_clock_shift(PyObject *op, PyObject *arg) {
    double seconds = PyFloat_AsDouble(arg);
    if (seconds == -1.0 && PyErr_Occurred()) {
        return NULL;
    }
    seg_of(op)->clock_shift = (int32_t)(seconds * ACC_UNITS_PER_SECOND);
    Py_RETURN_NONE;
}

static PyObject *segment_measure(PyObject *op, PyObject *unused) {
    (void)unused;
    Py_BEGIN_ALLOW_THREADS
        acc_segment_measure(seg_of(op));
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static void append_text(void *list, const char *text) {
    PyObject *item = PyUnicode_FromString(text);
    if (item != NULL) {
        PyList_Append(list, item);
        Py_DECREF(item);
    }
}

static PyObject *segment_check(PyObject *op, PyObject *unused) {
    (void)unused;
    PyObject *list = PyList_New(0);
    if (list != NULL) {
        acc_maintenance_check(seg_of(op), append_text, list);
    }
    return list;
}

static bool shard_from(PyObject *op, PyObject *arg, uint32_t *shard) {
    unsigned long number = PyLong_AsUnsignedLong(arg);
    if (number == (unsigned long)-1 && PyErr_Occurred()) {
        return false;
    }
    if (number >= seg_of(op)->geometry.shards) {
        PyErr_SetString(PyExc_ValueError, "no such shard");
        return false;
    }
    *shard = (uint32_t)number;
    return true;
}

static PyObject *segment_lock_shard(PyObject *op, PyObject *arg) {
    uint32_t shard;
    if (!shard_from(op, arg, &shard)) {
        return NULL;
    }
    if (acc_segment_register(seg_of(op)) != ACC_OK ||
        !acc_lock_take(seg_of(op), shard, ACC_LOCK_BUDGET_NS)) {
        return raise_status(ACC_BUSY, "locking a shard");
    }
    Py_RETURN_NONE;
}

static PyObject *segment_unlock_shard(PyObject *op, PyObject *arg) {
    uint32_t shard;
    if (!shard_from(op, arg, &shard)) {
        return NULL;
    }
    acc_lock_give(seg_of(op), shard);
    Py_RETURN_NONE;
}

static PyObject *segment_raw(PyObject *op, PyObject *unused) {
    (void)unused;
    struct acc_segment *seg = seg_of(op);
    return PyMemoryView_FromMemory((char *)seg->base, (Py_ssize_t)seg->geometry.size,
                                   seg->readonly ? PyBUF_READ : PyBUF_WRITE);
}

/* --- stats ------------------------------------------------------------------------------------ */

static bool put_number(PyObject *dict, const char *name, uint64_t n) {
    PyObject *number = PyLong_FromUnsignedLongLong(n);
    bool done = number != NULL && PyDict_SetItemString(dict, name, number) == 0;
    Py_XDECREF(number);
    return done;
}

static bool put_own(PyObject *dict, const char *name, PyObject *value) {
    bool done = value != NULL && PyDict_SetItemString(dict, name, value) == 0;
    Py_XDECREF(value);
    return done;
}

static PyObject *area_stats(const struct acc_segment *seg, uint32_t id, uint64_t entries,
                            uint64_t bytes) {
    uint64_t sums[ACC_COUNTERS];
    PyObject *dict = PyDict_New();
    acc_stats_sum(seg, id, sums);
    bool done = dict != NULL;
    for (int i = 0; done && i < ACC_COUNTERS; i++) {
        done = put_number(dict, acc_counter_names[i], sums[i]);
    }
    if (!done || !put_number(dict, "entries", entries) || !put_number(dict, "bytes", bytes)) {
        Py_CLEAR(dict);
    }
    return dict;
}

static PyObject *areas_stats(const struct acc_segment *seg, const uint64_t *entries,
                             const uint64_t *bytes) {
    PyObject *dict = PyDict_New();
    for (uint32_t i = 0; dict != NULL && i < seg->geometry.areas; i++) {
        const struct acc_area_slot *slot = acc_area_slot(seg, i);
        uint32_t size = slot->name_size;
        if (acc_load_acquire(&slot->state) != 1 || size > ACC_AREA_NAME_MAX ||
            acc_area_base(seg, i) != i) {
            continue; /* a version's are in its base's row */
        }
        PyObject *name = PyUnicode_DecodeUTF8(slot->name, size, "replace");
        PyObject *one = name == NULL ? NULL : area_stats(seg, i, entries[i], bytes[i]);
        if (one == NULL || PyDict_SetItem(dict, name, one) != 0) {
            Py_CLEAR(dict);
        }
        Py_XDECREF(name);
        Py_XDECREF(one);
    }
    return dict;
}

static PyObject *prefix_name(const struct acc_prefix *prefix) {
    return PyUnicode_DecodeUTF8(prefix->name,
                                (Py_ssize_t)strnlen(prefix->name, sizeof prefix->name), "replace");
}

static PyObject *segment_summary(const struct acc_segment *seg, const struct acc_totals *totals) {
    const struct acc_geometry *g = &seg->geometry;
    uint64_t resets = 0, takeovers = 0;
    for (uint32_t i = 0; i < g->shards; i++) {
        resets += acc_load_relaxed(&acc_shard(seg, i)->resets);
        takeovers += acc_load_relaxed(&acc_shard(seg, i)->takeovers);
    }
    PyObject *dict = PyDict_New();
    if (dict == NULL || !put_own(dict, "name", prefix_name(&acc_header(seg)->prefix)) ||
        !put_own(dict, "private", PyBool_FromLong(seg->is_private)) ||
        !put_number(dict, "size", g->size) || !put_number(dict, "layout", acc_layout()) ||
        !put_number(dict, "created", acc_header(seg)->prefix.created) ||
        !put_number(dict, "shards", g->shards) ||
        !put_number(dict, "max_value_size", g->max_value_size) ||
        !put_number(dict, "max_item", acc_evict_units_max(seg) * ACC_UNIT) ||
        !put_number(dict, "fixed_bytes", g->ring_at) ||
        !put_number(dict, "data_bytes", totals->data_bytes) ||
        !put_number(dict, "used_bytes", totals->used_bytes) ||
        !put_number(dict, "live_bytes", totals->live_bytes) ||
        !put_number(dict, "entries", totals->entries) ||
        !put_number(dict, "index_slots", (uint64_t)g->shards * g->buckets * ACC_BUCKET_SLOTS) ||
        !put_number(dict, "index_bytes",
                    (uint64_t)g->shards * g->buckets * sizeof(struct acc_bucket)) ||
        !put_number(dict, "ghost_bytes",
                    (uint64_t)g->shards * g->ghost_lines * sizeof(struct acc_ghosts)) ||
        !put_number(dict, "generation_slots", g->generations) ||
        !put_number(dict, "process_slots", g->processes) ||
        !put_number(dict, "area_slots", g->areas) || !put_number(dict, "resets", resets) ||
        !put_number(dict, "dead_owner_takeover", takeovers) ||
        !put_number(dict, "stats_lost", acc_load_relaxed(&acc_header(seg)->stats_lost))) {
        Py_CLEAR(dict);
    }
    return dict;
}

static PyObject *segment_stats(PyObject *op, PyObject *unused) {
    (void)unused;
    struct acc_segment *seg = seg_of(op);
    uint32_t areas = seg->geometry.areas;
    uint64_t *gauges = PyMem_Calloc(2 * (size_t)areas, sizeof *gauges);
    struct acc_totals totals;
    if (gauges == NULL) {
        return PyErr_NoMemory();
    }
    Py_BEGIN_ALLOW_THREADS
        acc_maintenance_measure(seg, &totals, gauges, gauges + areas);
    Py_END_ALLOW_THREADS
    PyObject *answer = PyDict_New();
    if (answer == NULL || !put_own(answer, "segment", segment_summary(seg, &totals)) ||
        !put_own(answer, "areas", areas_stats(seg, gauges, gauges + areas)) ||
        !put_own(answer, "processes", segment_alive(op, NULL)) ||
        !put_own(answer, "link", segment_link(op, NULL)) ||
        !put_own(answer, "leader", segment_leader(op, NULL))) {
        Py_CLEAR(answer);
    }
    PyMem_Free(gauges);
    return answer;
}

/* --- format and peek -------------------------------------------------------------------------- */

PyObject *binding_format_segment(PyObject *module, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"fd", "size", "name", "max_value_size", "boot_id", "time_ns", NULL};
    (void)module;
    struct acc_identity identity = {.library = ACC_LIBRARY_VERSION, .uid = (uint32_t)geteuid()};
    int fd;
    unsigned long long size, time_ns;
    unsigned int max_value_size;
    const char *boot_id;
    Py_ssize_t boot_size;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "iK$sIy#K:format_segment", names, &fd, &size,
                                     &identity.name, &max_value_size, &boot_id, &boot_size,
                                     &time_ns)) {
        return NULL;
    }
    if (boot_size != (Py_ssize_t)sizeof identity.boot_id) {
        PyErr_SetString(PyExc_ValueError, "boot_id must be 16 bytes");
        return NULL;
    }
    memcpy(identity.boot_id, boot_id, sizeof identity.boot_id);
    identity.time_ns = time_ns;
    enum acc_status status;
    Py_BEGIN_ALLOW_THREADS
        status = acc_segment_format(fd, size, max_value_size, &identity);
    Py_END_ALLOW_THREADS
    if (status != ACC_OK) {
        return raise_status(status, "formatting a segment");
    }
    Py_RETURN_NONE;
}

PyObject *binding_peek_header(PyObject *module, PyObject *data) {
    (void)module;
    Py_buffer buffer;
    struct acc_prefix prefix;
    if (PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE) != 0) {
        return NULL;
    }
    bool whole = buffer.len >= (Py_ssize_t)sizeof prefix;
    if (whole) {
        memcpy(&prefix, buffer.buf, sizeof prefix);
    }
    PyBuffer_Release(&buffer);
    if (!whole || prefix.magic != ACC_MAGIC || prefix.prefix_size != sizeof prefix) {
        Py_RETURN_NONE;
    }
    prefix.library[sizeof prefix.library - 1] = '\0';
    return Py_BuildValue(
        "{s:O,s:s,s:I,s:K,s:y#,s:I,s:N,s:K,s:K,s:s,s:(KK)}", "magic_ok", Py_True, "library_version",
        prefix.library, "layout", prefix.layout, "size", (unsigned long long)prefix.size, "boot_id",
        prefix.boot_id, (Py_ssize_t)sizeof prefix.boot_id, "uid", prefix.uid, "name",
        prefix_name(&prefix), "created", (unsigned long long)prefix.created, "time_ns",
        (unsigned long long)prefix.time_ns, "state",
        prefix.state == ACC_STATE_READY ? "ready" : "new", "supervisor",
        (unsigned long long)prefix.supervisor_pid, (unsigned long long)prefix.supervisor_start);
}

/* --- type ------------------------------------------------------------------------------------- */

static PyObject *get_fd(PyObject *op, void *closure) {
    (void)closure;
    return PyLong_FromLong(seg_of(op)->fd);
}

static PyObject *get_size(PyObject *op, void *closure) {
    (void)closure;
    return PyLong_FromUnsignedLongLong(seg_of(op)->geometry.size);
}

static PyObject *get_name(PyObject *op, void *closure) {
    (void)closure;
    return prefix_name(&acc_header(seg_of(op))->prefix);
}

static PyObject *get_readonly(PyObject *op, void *closure) {
    (void)closure;
    return PyBool_FromLong(seg_of(op)->readonly);
}

static PyObject *get_private(PyObject *op, void *closure) {
    (void)closure;
    return PyBool_FromLong(seg_of(op)->is_private);
}

static PyObject *get_incarnation(PyObject *op, void *closure) {
    (void)closure;
    return PyLong_FromUnsignedLong(acc_incarnation(seg_of(op)));
}

static PyObject *get_max_item(PyObject *op, void *closure) {
    (void)closure;
    return PyLong_FromUnsignedLongLong(acc_evict_units_max(seg_of(op)) * ACC_UNIT);
}

static PyGetSetDef segment_getset[] = {
    {"fd", get_fd, NULL, NULL, NULL},
    {"size", get_size, NULL, NULL, NULL},
    {"name", get_name, NULL, NULL, NULL},
    {"readonly", get_readonly, NULL, NULL, NULL},
    {"is_private", get_private, NULL, NULL, NULL},
    {"incarnation", get_incarnation, NULL, NULL, NULL},
    {"max_item", get_max_item, NULL, NULL, NULL},
    {"origin", segment_origin, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

#define WITH_KEYWORDS(function)                                                                    \
    (PyCFunction)(void (*)(void))(function), METH_VARARGS | METH_KEYWORDS

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL | METH_KEYWORDS

static PyMethodDef segment_methods[] = {
    {"private", segment_private, METH_VARARGS | METH_CLASS, NULL},
    {"register", segment_register, METH_NOARGS, NULL},
    {"unregister", segment_unregister, METH_NOARGS, NULL},
    {"alive", segment_alive, METH_NOARGS, NULL},
    {"any_alive", segment_any_alive, METH_NOARGS, NULL},
    {"reap", segment_reap, METH_O, NULL},
    {"empty", segment_empty, METH_NOARGS, NULL},
    {"clear_all", segment_clear_all, METH_NOARGS, NULL},
    {"set_supervisor", segment_set_supervisor, METH_VARARGS, NULL},
    {"set_clock_shift", segment_set_clock_shift, METH_O, NULL},
    {"bell", segment_bell, METH_NOARGS, NULL},
    {"flights", segment_flights, METH_NOARGS, NULL},
    {"measure", segment_measure, METH_NOARGS, NULL},
    {"stats", segment_stats, METH_NOARGS, NULL},
    {"areas", segment_areas, METH_NOARGS, NULL},
    {"blocks", segment_blocks, METH_NOARGS, NULL},
    {"tables", (PyCFunction)(void (*)(void))segment_tables, METH_VARARGS | METH_KEYWORDS, NULL},
    {"hot_keys", (PyCFunction)(void (*)(void))segment_hot_keys, METH_VARARGS | METH_KEYWORDS, NULL},
    {"hot_total", segment_hot_total, METH_NOARGS, NULL},
    {"area_facts_write", segment_area_facts_write, METH_VARARGS, NULL},
    {"area_facts", segment_area_facts, METH_NOARGS, NULL},
    {"check", segment_check, METH_NOARGS, NULL},
    {"lock_shard", segment_lock_shard, METH_O, NULL},
    {"unlock_shard", segment_unlock_shard, METH_O, NULL},
    {"raw", segment_raw, METH_NOARGS, NULL},
    {"watched", segment_watched, METH_NOARGS, NULL},
    {"area_state", segment_area_state, METH_O, NULL},
    {"area_applied", segment_area_applied, METH_VARARGS, NULL},
    {"area_extend", segment_area_extend, METH_VARARGS, NULL},
    {"invalidate", (PyCFunction)(void (*)(void))segment_invalidate, METH_VARARGS | METH_KEYWORDS,
     NULL},
    {"clear_area", segment_clear_area, METH_O, NULL},
    {"invalidate_tags", segment_invalidate_tags, METH_VARARGS, NULL},
    {"area_count", segment_area_count, METH_VARARGS, NULL},
    {"lead", segment_lead, METH_O, NULL},
    {"lead_beat", segment_lead_beat, METH_O, NULL},
    {"lead_resign", segment_lead_resign, METH_O, NULL},
    {"leader", segment_leader, METH_NOARGS, NULL},
    {"link_confirm", segment_link_confirm, METH_O, NULL},
    {"link_refused", segment_link_refused, METH_NOARGS, NULL},
    {"link_note", segment_link_note, METH_VARARGS, NULL},
    {"link", segment_link, METH_NOARGS, NULL},
    {"remote_ask", segment_remote_ask, METH_VARARGS, NULL},
    {"remote_ok", segment_remote_ok, METH_O, NULL},
    {"remote_failed", segment_remote_failed, METH_VARARGS, NULL},
    {"confirmed_age", segment_confirmed_age, METH_NOARGS, NULL},
    {"override", WITH_KEYWORDS(segment_override), NULL},
    {"overrides", segment_overrides, METH_NOARGS, NULL},
    {"overrides_taken", segment_overrides_taken, METH_NOARGS, NULL},
    {"overrides_print", segment_overrides_print, METH_NOARGS, NULL},
    {"overrides_seen", segment_overrides_seen, METH_NOARGS, NULL},
    {"event", FAST(segment_event), NULL},
    {"event_begin", FAST(segment_event_begin), NULL},
    {"event_end", FAST(segment_event_end), NULL},
    {"events", WITH_KEYWORDS(segment_events), NULL},
    {"log_allowed", WITH_KEYWORDS(segment_log_allowed), NULL},
    {"outbox_settle", segment_outbox_settle, METH_VARARGS, NULL},
    {"outbox_due", segment_outbox_due, METH_VARARGS, NULL},
    {"outbox_recent", segment_outbox_recent, METH_O, NULL},
    {"outbox_heard", segment_outbox_heard, METH_O, NULL},
    {"outbox_given_up", segment_outbox_given_up, METH_O, NULL},
    {"outbox_unsent", segment_outbox_unsent, METH_O, NULL},
    {"outbox_owe", segment_outbox_owe, METH_O, NULL},
    {"outbox_owed", segment_outbox_owed, METH_NOARGS, NULL},
    {"outbox_paid", segment_outbox_paid, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot segment_slots[] = {
    {Py_tp_new, segment_new},
    {Py_tp_dealloc, segment_dealloc},
    {Py_tp_traverse, segment_traverse},
    {Py_tp_clear, segment_gc_clear},
    {Py_tp_methods, segment_methods},
    {Py_tp_getset, segment_getset},
    {0, NULL},
};

PyType_Spec segment_spec = {
    .name = "accelerator._native.Segment",
    .basicsize = sizeof(SegmentObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = segment_slots,
};
