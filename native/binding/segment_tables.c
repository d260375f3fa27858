/* The tables of a segment one by one, for people: its areas, and what each process counted in them.
 * Loads only, so also of a segment that was opened for reading. */
#include "segment_args.h"

#include "area.h"

/* Seconds for which an area is in step from now on; None: it never was. */
static PyObject *in_step_for(const struct acc_segment *seg, const struct acc_area_slot *slot) {
    uint64_t until = acc_load_acquire(&slot->fresh_until), now = acc_now_long(seg);
    if (until == 0 || (until > now && until - now > ACC_FRESH_MOST)) {
        Py_RETURN_NONE;
    }
    return PyFloat_FromDouble((double)(int64_t)(until - now) / ACC_UNITS_PER_SECOND);
}

static bool is_plain(const struct acc_segment *seg, uint32_t id) {
    return id < seg->geometry.areas && acc_load_acquire(&acc_area_slot(seg, id)->state) == 1 &&
           acc_area_base(seg, id) == id;
}

PyObject *segment_areas(PyObject *op, PyObject *unused) {
    (void)unused;
    const struct acc_segment *seg = seg_of(op);
    PyObject *list = PyList_New(0);
    for (uint32_t id = 0; list != NULL && id < seg->geometry.areas; id++) {
        const struct acc_area_slot *slot = acc_area_slot(seg, id);
        if (is_plain(seg, id) &&
            !append_own(list, Py_BuildValue("(NNN)", segment_area_name(seg, id),
                                            PyBool_FromLong(acc_load_acquire(&slot->watched) == 1),
                                            in_step_for(seg, slot)))) {
            Py_CLEAR(list);
        }
    }
    return list;
}

static PyObject *numbers(const uint64_t *at, uint32_t count) {
    PyObject *tuple = PyTuple_New(count);
    for (uint32_t i = 0; tuple != NULL && i < count; i++) {
        PyObject *n = PyLong_FromUnsignedLongLong(acc_load_relaxed(&at[i]));
        if (n == NULL) {
            Py_CLEAR(tuple);
            break;
        }
        PyTuple_SET_ITEM(tuple, i, n);
    }
    return tuple;
}

/* --- sums ------------------------------------------------------------------------------------- */

/* What was counted in one area, or by one process. */
struct sum {
    uint64_t counter[ACC_COUNTERS];
    uint64_t loads[ACC_LATENCY_SLOTS];
    uint64_t l2[ACC_LATENCY_SLOTS];
    uint64_t blocks; /* of a process: a number that tells which blocks those are */
    uint32_t owner;
};

static void add_words(uint64_t *sum, const uint64_t *at, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        sum[i] += acc_load_relaxed(&at[i]);
    }
}

static void add_block(struct sum *sum, const struct acc_stats *block) {
    add_words(sum->counter, block->counter, ACC_COUNTERS);
    add_words(sum->loads, block->load_latency, ACC_LATENCY_SLOTS);
    add_words(sum->l2, block->l2_latency, ACC_LATENCY_SLOTS);
}

/* All blocks, summed up by area and by process.  Those of the processes stand one behind the other, as
 * they came, so that only as many are touched as there are; a hash table tells where. */
struct sums {
    struct sum *areas;
    struct sum *processes; /* NULL: not wanted */
    uint32_t count;        /* of processes */
    uint32_t *place;       /* by owner: index in `processes` + 1 */
    uint32_t mask;         /* places less one */
};

static struct sum *row_of_owner(struct sums *sums, uint32_t owner) {
    uint32_t i = (uint32_t)acc_remix(owner, 0xe7037ed1a0b428dbull) & sums->mask;
    while (sums->place[i] != 0 && sums->processes[sums->place[i] - 1].owner != owner) {
        i = (i + 1) & sums->mask;
    }
    if (sums->place[i] == 0) {
        sums->place[i] = ++sums->count;
        sums->processes[sums->count - 1].owner = owner;
    }
    return &sums->processes[sums->place[i] - 1];
}

static bool sums_new(const struct acc_segment *seg, bool processes, struct sums *out) {
    uint32_t places = 64;
    while (places < 2 * seg->geometry.stats) {
        places *= 2; /* there are no more owners than blocks */
    }
    *out = (struct sums){.mask = places - 1};
    out->areas = PyMem_RawCalloc(seg->geometry.areas, sizeof *out->areas);
    if (processes) {
        out->processes = PyMem_RawCalloc(seg->geometry.stats, sizeof *out->processes);
        out->place = PyMem_RawCalloc(places, sizeof *out->place);
    }
    return out->areas != NULL && (!processes || (out->processes != NULL && out->place != NULL));
}

static void sums_free(struct sums *sums) {
    PyMem_RawFree(sums->areas);
    PyMem_RawFree(sums->processes);
    PyMem_RawFree(sums->place);
}

static void sum_up(const struct acc_segment *seg, struct sums *sums) {
    for (uint32_t i = 0; i < seg->geometry.stats; i++) {
        const struct acc_stats *block = acc_stats_block(seg, i);
        uint32_t id = acc_load_acquire(&block->area) - 1; /* of a free one: no area's */
        if (!is_plain(seg, id)) {
            continue;
        }
        add_block(&sums->areas[id], block);
        if (sums->processes != NULL) {
            struct sum *row = row_of_owner(sums, acc_load_acquire(&block->owner));
            add_block(row, block);
            row->blocks = acc_remix(row->blocks + i + 1, 0x9fb21c651e98df25ull);
        }
    }
}

/* A hit on a decoded object counts one thing, to cost one store; it is a local hit too. */
static PyObject *counters_of(struct sum *sum) {
    sum->counter[ACC_LOCAL_HIT] += sum->counter[ACC_OBJECT_HIT];
    return numbers(sum->counter, ACC_COUNTERS);
}

/* Names and ids of the plain areas, in the order of the names.  (Names that are damaged may be alike,
 * but ids never are, so nothing behind them is compared.) */
static PyObject *names_and_ids(const struct acc_segment *seg) {
    PyObject *list = PyList_New(0);
    for (uint32_t id = 0; list != NULL && id < seg->geometry.areas; id++) {
        if (is_plain(seg, id) &&
            !append_own(list, Py_BuildValue("(NI)", segment_area_name(seg, id), id))) {
            Py_CLEAR(list);
        }
    }
    if (list != NULL && PyList_Sort(list) != 0) {
        Py_CLEAR(list);
    }
    return list;
}

static PyObject *area_row(const struct acc_segment *seg, PyObject *name, uint32_t id,
                          struct sum *sum) {
    const struct acc_area_slot *slot = acc_area_slot(seg, id);
    return Py_BuildValue("(OKKNNNNN)", name, (unsigned long long)acc_load_relaxed(&slot->entries),
                         (unsigned long long)acc_load_relaxed(&slot->bytes),
                         PyBool_FromLong(acc_load_acquire(&slot->watched) == 1),
                         in_step_for(seg, slot), counters_of(sum),
                         numbers(sum->loads, ACC_LATENCY_SLOTS),
                         numbers(sum->l2, ACC_LATENCY_SLOTS));
}

static PyObject *areas_of(const struct acc_segment *seg, struct sums *sums) {
    PyObject *names = names_and_ids(seg), *list = names == NULL ? NULL : PyList_New(0);
    for (Py_ssize_t i = 0; list != NULL && i < PyList_GET_SIZE(names); i++) {
        PyObject *each = PyList_GET_ITEM(names, i);
        uint32_t id = (uint32_t)PyLong_AsUnsignedLong(PyTuple_GET_ITEM(each, 1));
        if (!append_own(list, area_row(seg, PyTuple_GET_ITEM(each, 0), id, &sums->areas[id]))) {
            Py_CLEAR(list);
        }
    }
    Py_XDECREF(names);
    return list;
}

static bool put_process(PyObject *dict, struct sum *sum) {
    PyObject *owner = PyLong_FromUnsignedLong(sum->owner);
    PyObject *row =
        Py_BuildValue("(NNNK)", counters_of(sum), numbers(sum->loads, ACC_LATENCY_SLOTS),
                      numbers(sum->l2, ACC_LATENCY_SLOTS), (unsigned long long)sum->blocks);
    bool done = owner != NULL && row != NULL && PyDict_SetItem(dict, owner, row) == 0;
    Py_XDECREF(owner);
    Py_XDECREF(row);
    return done;
}

static PyObject *processes_of(struct sums *sums) {
    PyObject *dict = PyDict_New();
    for (uint32_t i = 0; dict != NULL && i < sums->count; i++) {
        if (!put_process(dict, &sums->processes[i])) {
            Py_CLEAR(dict);
        }
    }
    return dict;
}

static PyObject *segment_of(const struct acc_segment *seg) {
    const struct acc_geometry *g = &seg->geometry;
    uint64_t resets = 0, takeovers = 0, units = (uint64_t)g->ring_units[0] + g->ring_units[1];
    for (uint32_t i = 0; i < g->shards; i++) {
        resets += acc_load_relaxed(&acc_shard(seg, i)->resets);
        takeovers += acc_load_relaxed(&acc_shard(seg, i)->takeovers);
    }
    return Py_BuildValue(
        "{sKsKsKsK}", "data_bytes", (unsigned long long)(g->shards * units * ACC_UNIT), "resets",
        (unsigned long long)resets, "dead_owner_takeover", (unsigned long long)takeovers,
        "stats_lost", (unsigned long long)acc_load_relaxed(&acc_header(seg)->stats_lost));
}

PyObject *segment_tables(PyObject *op, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"processes", NULL};
    const struct acc_segment *seg = seg_of(op);
    struct sums sums;
    int processes = 1;
    PyObject *answer = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|p:tables", names, &processes)) {
        return NULL;
    }
    if (sums_new(seg, processes, &sums)) {
        sum_up(seg, &sums);
        answer = Py_BuildValue("{sNsNsN}", "areas", areas_of(seg, &sums), "processes",
                               processes_of(&sums), "segment", segment_of(seg));
    } else {
        PyErr_NoMemory();
    }
    sums_free(&sums);
    return answer;
}

/* --- one by one ------------------------------------------------------------------------------- */

PyObject *segment_blocks(PyObject *op, PyObject *unused) {
    (void)unused;
    const struct acc_segment *seg = seg_of(op);
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; list != NULL && i < seg->geometry.stats; i++) {
        const struct acc_stats *block = acc_stats_block(seg, i);
        uint32_t id = acc_load_acquire(&block->area) - 1; /* of a free one: no area's */
        if (is_plain(seg, id) &&
            !append_own(list, Py_BuildValue("(IINNNN)", i, acc_load_acquire(&block->owner),
                                            segment_area_name(seg, id),
                                            numbers(block->counter, ACC_COUNTERS),
                                            numbers(block->load_latency, ACC_LATENCY_SLOTS),
                                            numbers(block->l2_latency, ACC_LATENCY_SLOTS)))) {
            Py_CLEAR(list);
        }
    }
    return list;
}
