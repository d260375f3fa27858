/* The tick, a native thread per process, started after the process has entered and never before a
 * fork.
 *
 * It proves that this process still holds what it thinks it holds (descriptor, liveness byte, lock
 * words), and one process of the host measures the gauges.  It can die at any moment: everything it
 * stores is a hint or a repair. */
#include "maintenance.h"

#include "doorbell.h"
#include "events.h"
#include "flight.h"
#include "leader.h"
#include "link.h"
#include "outbox.h"
#include "override.h"
#include "tags.h"

#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MEASURE_MS 1000u
#define MEASURE_SHARE 100u /* at most this fraction of one CPU goes into measuring */
#define LONG_EXPIRED (3600u * ACC_UNITS_PER_SECOND)

/* --- lock words that carry our id by mistake -------------------------------------------------- */

/* Garbage may look like a living process; that process itself notices that it did not set it.  Only
 * without intent, and with the intent closed while the word is cleared: nobody of this process can
 * be about to take it, or hold it.  A thread that takes it in turn does not count its intent into
 * the word that is closed here, so its own is looked at behind the closing (see lock.h); and if it
 * has come since, it has found the lock closed and must not find it open again before it has taken
 * its word back: this thread waits for it. */
static void disown(struct acc_segment *seg, uint32_t lock, uint32_t mine) {
    uint32_t *word = acc_lock_word(seg, lock);
    if ((acc_load_relaxed(word) & ~ACC_LOCK_WAITERS) != mine ||
        !acc_cas32(&seg->intent[lock], 0, ACC_INTENT_CLOSED)) {
        return;
    }
    acc_fence_behind_cas(); /* pairs with acc_lock_take_in_turn() */
    bool cleared = false;
    if (!acc_lock_intended_in_turn(seg, lock)) {
        uint32_t seen = acc_load_relaxed(word);
        cleared = (seen & ~ACC_LOCK_WAITERS) == mine && acc_cas32(word, seen, 0);
        struct timespec pause = {.tv_nsec = 100000};
        while (acc_lock_intended_in_turn(seg, lock)) {
            nanosleep(&pause, NULL);
        }
    }
    acc_and_release(&seg->intent[lock], ~ACC_INTENT_CLOSED);
    if (cleared) {
        acc_lock_wake(word);
    }
}

/* --- gauges ----------------------------------------------------------------------------------- */

struct measure {
    struct acc_segment *seg;
    struct acc_totals *totals;
    uint64_t *entries, *bytes;
    uint64_t main_live;
    uint32_t words;
};

/* Do its tags leave it a life? */
static bool tags_live(const struct acc_segment *seg, const struct acc_view *view, uint32_t now) {
    struct acc_tags tags;
    if (!acc_view_tags(seg, view, &tags)) {
        return false;
    }
    enum acc_tags_state state = acc_tags_judge(seg, acc_area_base(seg, view->common.area), &tags);
    struct acc_record rest = view->record;
    return state == ACC_TAGS_HOLD || (state == ACC_TAGS_EXPIRED && acc_record_expire(&rest, now));
}

static bool alive(const struct acc_segment *seg, const struct acc_view *view, uint64_t hash,
                  uint32_t now, bool *forget) {
    uint64_t group = acc_load_acquire(acc_generation_word(seg, acc_generation_index(seg, hash)));
    uint32_t area = acc_area_base(seg, view->common.area);
    bool valid = acc_generation_valid(group, view->record.key_count, hash) &&
                 (uint32_t)acc_load_acquire(&acc_area_slot(seg, area)->generation) ==
                     view->record.area_count &&
                 (!acc_record_tagged(&view->record) || tags_live(seg, view, now));
    bool gone = acc_record_age(&view->record, now) == ACC_GONE;
    /* What is long expired goes, so that the circle of the clock never brings it back to life. */
    *forget =
        !valid || (gone && acc_clock_passed(acc_record_end(&view->record) + LONG_EXPIRED, now));
    return valid && !gone;
}

/* Does the item lie between head and tail?  Both loaded after the word: if it has left since, the
 * word has changed. */
static bool in_ring(const struct acc_segment *seg, uint32_t shard, const struct acc_view *view) {
    const struct acc_ring *r = &acc_shard(seg, shard)->ring[view->ring];
    uint64_t tail = acc_load_acquire(&r->tail), head = acc_load_acquire(&r->head);
    uint64_t behind = (tail - view->offset) & ACC_OFFSET_MASK;
    return behind != 0 && behind <= ((tail - head) & ACC_OFFSET_MASK);
}

/* Is this a place where a lookup of the key would find the word? */
static bool is_home(const struct acc_segment *seg, const struct acc_home *home, uint32_t shard,
                    uint32_t bucket, uint64_t word) {
    if (home->shard != shard || home->tag != acc_word_tag(word)) {
        return false;
    }
    const struct acc_bucket *at = acc_bucket(seg, shard, bucket),
                            *first = acc_home_first(seg, home);
    return at == first || (at == acc_home_second(seg, home) && acc_bucket_overflowed(first));
}

enum word_state { WORD_GARBAGE, WORD_FORGET, WORD_DEAD, WORD_LIVE };

static enum word_state state_of_word(const struct acc_segment *seg, uint32_t shard, uint32_t bucket,
                                     uint64_t word, struct acc_view *view) {
    if (!acc_view_load(seg, shard, acc_word_ring(word), acc_word_offset(word), view) ||
        view->common.area >= seg->geometry.areas || !in_ring(seg, shard, view)) {
        return WORD_GARBAGE;
    }
    uint64_t hash = acc_hash_of_item(seg, view->common.area, view->key, view->common.key_size);
    struct acc_home home = acc_home_of(seg, hash);
    if (!is_home(seg, &home, shard, bucket, word)) {
        return WORD_GARBAGE;
    }
    bool forget, live = alive(seg, view, hash, acc_now(seg), &forget);
    return live ? WORD_LIVE : forget ? WORD_FORGET : WORD_DEAD;
}

static void measure_word(struct measure *m, uint32_t shard, uint32_t bucket, uint64_t *slot) {
    uint64_t word = acc_load_acquire(slot);
    struct acc_view view;
    if (word == 0) {
        return;
    }
    m->words++;
    enum word_state state = state_of_word(m->seg, shard, bucket, word, &view);
    acc_fence_acquire();
    if (acc_load_relaxed(slot) != word || !acc_view_current(&view)) {
        return; /* what was read may be of two items */
    }
    if (state == WORD_LIVE) {
        uint64_t units = acc_common_units(&view.common);
        m->totals->live_bytes += units * ACC_UNIT;
        m->main_live += view.ring == ACC_MAIN ? units : 0;
        if (acc_record_code(&view.record) == ACC_CODE_NOTE) {
            return; /* no entry of the user's */
        }
        m->totals->entries++;
        if (m->entries != NULL) {
            uint32_t area = acc_area_base(m->seg, view.common.area);
            m->entries[area]++;
            m->bytes[area] += units * ACC_UNIT;
        }
    } else if (state != WORD_DEAD && !m->seg->readonly && acc_cas64(slot, word, 0)) {
        m->words--;
    }
}

static void measure_shard(struct measure *m, uint32_t shard) {
    struct acc_segment *seg = m->seg;
    m->main_live = 0;
    m->words = 0;
    for (uint32_t b = 0; b < seg->geometry.buckets; b++) {
        struct acc_bucket *bucket = acc_bucket(seg, shard, b);
        for (uint32_t i = 0; i < ACC_BUCKET_SLOTS; i++) {
            measure_word(m, shard, b, &bucket->word[i]);
        }
    }
    for (uint32_t ring = 0; ring < 2; ring++) {
        m->totals->data_bytes += (uint64_t)seg->geometry.ring_units[ring] * ACC_UNIT;
        m->totals->used_bytes += acc_ring_used(seg, shard, ring) * ACC_UNIT;
    }
    if (!seg->readonly) {
        struct acc_shard *s = acc_shard(seg, shard);
        acc_store_relaxed(&s->main_live, m->main_live);
        acc_store_relaxed(&s->entries, m->words);
    }
}

void acc_maintenance_measure(struct acc_segment *seg, struct acc_totals *totals,
                             uint64_t *area_entries, uint64_t *area_bytes) {
    struct measure m = {.seg = seg, .totals = totals, .entries = area_entries, .bytes = area_bytes};
    memset(totals, 0, sizeof *totals);
    for (uint32_t shard = 0; shard < seg->geometry.shards; shard++) {
        measure_shard(&m, shard);
    }
}

void acc_segment_measure(struct acc_segment *seg) {
    uint32_t areas = seg->geometry.areas;
    uint64_t *gauges = calloc(2 * (size_t)areas, sizeof *gauges);
    struct acc_totals totals;
    if (gauges == NULL) {
        return;
    }
    acc_maintenance_measure(seg, &totals, gauges, gauges + areas);
    for (uint32_t i = 0; i < areas && !seg->readonly; i++) {
        acc_store_relaxed(&acc_area_slot(seg, i)->entries, gauges[i]);
        acc_store_relaxed(&acc_area_slot(seg, i)->bytes, gauges[areas + i]);
    }
    free(gauges);
    if (!seg->readonly) {
        acc_tags_sweep(seg);
    }
}

/* Who needs a dead leader's record takes it; this is for what nobody needs. */
static void sweep_flights(struct acc_segment *seg) {
    for (uint32_t shard = 0; shard < seg->geometry.shards; shard++) {
        if (acc_load_relaxed(&acc_shard(seg, shard)->flights) != 0 &&
            acc_lock_take(seg, shard, ACC_LOCK_BUDGET_NS)) {
            acc_flight_sweep_locked(seg, shard);
            acc_lock_give(seg, shard);
        }
    }
}

/* One process of the host at a time, elected by the CAS; a measurer that dies is followed after a
 * minute. */
static void measure_if_due(struct acc_segment *seg) {
    uint64_t *due = &acc_header(seg)->measured_at;
    uint64_t now = acc_clock_ms(), seen = acc_load_acquire(due);
    if ((seen > now && seen - now < 3600000u) || !acc_cas64(due, seen, now + 60000u)) {
        return;
    }
    acc_segment_measure(seg);
    sweep_flights(seg);
    uint64_t done = acc_clock_ms(), pause = (done - now) * MEASURE_SHARE;
    acc_store_release(due, done + (pause > MEASURE_MS ? pause : MEASURE_MS));
}

/* --- the thread ------------------------------------------------------------------------------- */

void acc_maintenance_tick(struct acc_segment *seg) {
    uint32_t mine = acc_incarnation(seg);
    if (mine == 0) {
        return;
    }
    if (!acc_process_assert(seg)) {
        /* Order: nobody enters again here, then nobody acts under the old id. */
        acc_store_release(&seg->fenced, 1u);
        acc_store_release(&seg->self->stamp, (uint64_t)0);
        return;
    }
    for (uint32_t shard = 0; shard < seg->geometry.shards; shard++) {
        disown(seg, shard, mine);
    }
    disown(seg, ACC_LOCK_AREAS, mine);
    acc_override_tick(seg);
    measure_if_due(seg);
}

static void *run(void *argument) {
    struct acc_segment *seg = argument;
    uint32_t mine = acc_load_acquire(&seg->thread_of);
    struct timespec pause = {.tv_nsec = ACC_TICK_MS * 1000000l};
    /* 0: told to stop before it had even begun. */
    while (mine != 0 && acc_load_acquire(&seg->thread_of) == mine && acc_incarnation(seg) == mine) {
        syscall(SYS_futex, &seg->thread_of, FUTEX_WAIT_PRIVATE, mine, &pause, NULL, 0);
        if (acc_load_acquire(&seg->thread_of) == mine) {
            acc_maintenance_tick(seg);
        }
    }
    return NULL;
}

/* Signals stay with the threads of the application. */
static void start_thread(struct acc_segment *seg) {
    sigset_t all, before;
    pthread_attr_t attributes;
    acc_store_release(&seg->thread_of, acc_incarnation(seg));
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 256u << 10);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool started = pthread_create(&seg->thread, &attributes, run, seg) == 0;
    if (!started) {
        acc_store_release(&seg->thread_of, 0u); /* no thread to be had: the cache works without */
    }
    seg->self->has_thread = started;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
}

static void entered(struct acc_segment *seg) {
    acc_override_notice(seg);
    if (!seg->self->has_thread) {
        start_thread(seg);
    }
}

enum acc_status acc_segment_register(struct acc_segment *seg) {
    return acc_process_enter(seg, entered);
}

static void stop_thread(struct acc_segment *seg) {
    acc_store_release(&seg->thread_of, 0u);
    if (seg->self->has_thread) {
        seg->self->has_thread = 0;
        syscall(SYS_futex, &seg->thread_of, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
        pthread_join(seg->thread, NULL);
    }
}

void acc_segment_unregister(struct acc_segment *seg) {
    acc_doorbell_stop(seg);
    stop_thread(seg);
    acc_process_leave(seg);
}

void acc_segment_close(struct acc_segment *seg) {
    acc_segment_unregister(seg);
    acc_segment_unmap(seg);
}

/* --- whole-segment operations ----------------------------------------------------------------- */

void acc_segment_clear(struct acc_segment *seg) {
    for (uint32_t i = 0; i < seg->geometry.areas; i++) {
        acc_add_release(&acc_area_slot(seg, i)->generation, (uint64_t)1);
    }
}

void acc_segment_empty(struct acc_segment *seg) {
    acc_segment_clear(seg);
    for (uint32_t shard = 0; shard < seg->geometry.shards; shard++) {
        acc_index_drop_ring(seg, shard, ACC_SMALL);
        acc_index_drop_ring(seg, shard, ACC_MAIN);
        acc_store_relaxed(&acc_shard(seg, shard)->entries, 0u);
    }
}

/* --- check ------------------------------------------------------------------------------------ */

struct checker {
    struct acc_segment *seg;
    acc_report *report;
    void *context;
    uint32_t violations;
};

static void violation(struct checker *c, const char *what, uint32_t shard, uint32_t ring,
                      uint64_t at) {
    char text[160];
    snprintf(text, sizeof text, "shard %u, %s ring, offset %llu: %s", shard,
             ring ? "main" : "small", (unsigned long long)at, what);
    c->violations++;
    c->report(c->context, text);
}

static void check_ring(struct checker *c, uint32_t shard, uint32_t ring) {
    struct acc_segment *seg = c->seg;
    const struct acc_ring *r = &acc_shard(seg, shard)->ring[ring];
    if (!acc_ring_sound(seg, shard, ring)) {
        violation(c, "head and tail do not fit the ring", shard, ring, r->head);
        return;
    }
    for (uint64_t at = r->head; at != r->tail;) {
        struct acc_view view;
        uint64_t units;
        if (acc_ring_step(seg, shard, ring, at, &view, &units) == ACC_CORRUPT ||
            units > acc_offset_distance(seg, ring, at, r->tail)) {
            violation(c, "the item does not verify", shard, ring, at);
            return;
        }
        at = acc_offset_add(seg, ring, at, units);
    }
}

static void check_word(struct checker *c, uint32_t shard, uint32_t bucket, uint64_t word) {
    struct acc_segment *seg = c->seg;
    uint32_t ring = acc_word_ring(word);
    struct acc_view view;
    if (!acc_view_load(seg, shard, ring, acc_word_offset(word), &view)) {
        violation(c, "an index word names what does not verify", shard, ring,
                  acc_word_offset(word));
        return;
    }
    uint64_t hash = acc_hash_of_item(seg, view.common.area, view.key, view.common.key_size);
    struct acc_home home = acc_home_of(seg, hash);
    if (!is_home(seg, &home, shard, bucket, word)) {
        violation(c, "an index word stands where its key does not belong", shard, ring,
                  view.offset);
    }
    struct acc_tags tags;
    if (acc_record_tagged(&view.record) && !acc_view_tags(seg, &view, &tags)) {
        violation(c, "the tags of an item do not verify", shard, ring, view.offset);
    }
    if (!in_ring(seg, shard, &view)) {
        violation(c, "an index word names what has left the ring", shard, ring, view.offset);
    }
}

uint32_t acc_maintenance_check(struct acc_segment *seg, acc_report *report, void *context) {
    struct checker c = {.seg = seg, .report = report, .context = context};
    for (uint32_t shard = 0; shard < seg->geometry.shards; shard++) {
        bool locked = !seg->readonly && acc_lock_take(seg, shard, 50 * ACC_LOCK_BUDGET_NS);
        check_ring(&c, shard, ACC_SMALL);
        check_ring(&c, shard, ACC_MAIN);
        for (uint32_t b = 0; b < seg->geometry.buckets; b++) {
            for (uint32_t i = 0; i < ACC_BUCKET_SLOTS; i++) {
                uint64_t word = acc_load_acquire(&acc_bucket(seg, shard, b)->word[i]);
                if (word != 0) {
                    check_word(&c, shard, b, word);
                }
            }
        }
        if (locked) {
            acc_lock_give(seg, shard);
        }
    }
    return c.violations + acc_leader_check(seg, report, context) +
           acc_link_check(seg, report, context) + acc_outbox_check(seg, report, context) +
           acc_tags_check(seg, report, context) + acc_override_check(seg, report, context) +
           acc_events_check(seg, report, context);
}
