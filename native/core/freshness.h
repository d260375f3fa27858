/* What the reads of an area with a second level may believe.
 *
 * L1 is a lease.  Who listens for other hosts' invalidations raises the area's `fresh_until` to the
 * time at which a heartbeat of its own set out, plus the bound, once that has come back in sequence:
 * every invalidation that was sent before it has been applied by then (its generation bumped, its
 * word cleared), and only after that is `fresh_until` raised, with release.
 *
 * A reader looks at `fresh_until` (acquire) and at the clock first, and only then loads the words
 * that say which item is the key's and that nothing has overtaken it.  So
 *   - what it finds valid has survived every invalidation sent before `fresh_until` - bound, because
 *     those stores come before the raise that it has seen, and its loads after it.  Were the item
 *     validated first and `fresh_until` loaded later, a reader that loses the processor in between
 *     could vouch for an item with a raise that came after that very item's invalidation;
 *   - the clock was read within the call, so that "now <= fresh_until - (bound - limit)" says: the
 *     item is what the other hosts had at most `limit` before this read.
 * Else the reader is capped, and goes by the age of the item alone: `loaded_at` is when its load
 * began, so one of age <= limit was in the source of truth at most `limit` ago, whatever invalidation
 * has been missed since.  That needs no word of the segment but the item's own.
 *
 * All roundings shorten: fresh_until is rounded down, bound - limit up, an age limit down; and the
 * coarse clock, which lags, is taken to lag as much as it can.
 *
 * Every judgement whether a value is fresh goes through here: get, mget, in, _read, and what a load
 * or an add finds there already.  If two of them differed, a reader that misses and a loader that is
 * told that there is nothing to load would send each other round.  Both judge at their own time, and
 * fresh_until may rise and an item age in between, but each new round looks again.
 *
 * A load that runs is as old as it has run: capped readers do not join one that is older than the
 * limit, but load beside it, and it is not stored any more (load.c).  What a load stores that nobody
 * would be given, because it took longer than the limit or because readers are given nothing, is
 * handed to those who have joined, who would else load one after the other.
 *
 * Crash: fresh_until is one word, raised by CAS.  Who dies before it leaves readers that are capped
 * the sooner; behind it, what it stands for has been applied. */
#ifndef ACC_FRESHNESS_H
#define ACC_FRESHNESS_H

#include "read.h"

#define ACC_ANY_AGE INT64_MAX
#define ACC_NO_AGE (-1)

/* One look, taken before the item is looked for. */
struct acc_look {
    uint64_t now;   /* long units; 0: the clock was not needed yet */
    int64_t oldest; /* greatest age, in units, of what may be given as fresh */
};

/* No fresh_until is farther ahead: it is garbage, and nobody is in step. */
#define ACC_FRESH_MOST ((uint64_t)ACC_LIFE_MAX)

/* Not capped at `now` if what is known must not be older than the bound less `margin`?  One
 * comparison: what lies behind is far ahead, without sign. */
static inline bool acc_fresh_at(uint64_t fresh_until, uint64_t now, uint64_t margin) {
    return fresh_until - (now + margin) <= ACC_FRESH_MOST;
}

/* In an area that is not judged this is nothing at all: no load, no clock. */
static inline struct acc_look acc_look(const struct acc_area *area) {
    struct acc_look look = {.now = 0, .oldest = ACC_ANY_AGE};
    if (acc_unlikely(area->judged)) {
        uint64_t until = acc_load_acquire(area->fresh_until);
        look.now = acc_now_long(area->seg);
        if (acc_unlikely(!acc_fresh_at(until, look.now, area->margin))) {
            look.oldest = area->capped_age;
        }
    }
    return look;
}

/* A look for a reader who wants no answer that is older than `within` units (ACC_ANY_AGE: any):
 * either all of the area is known to be that current, or the item is that young. */
struct acc_look acc_look_within(const struct acc_area *area, int64_t within);

/* The clock of a look, read at most once. */
static inline uint32_t acc_look_now(const struct acc_segment *seg, struct acc_look *look) {
    if (look->now == 0) {
        look->now = acc_now_long(seg);
    }
    return (uint32_t)look->now;
}

static inline bool acc_look_capped(const struct acc_look *look) {
    return acc_unlikely(look->oldest != ACC_ANY_AGE);
}

/* Is the item young enough?  (Of a look that is not capped: always.) */
bool acc_look_allows(const struct acc_look *look, const struct acc_record *record);

/* acc_record_age(), where what may not be given as fresh is stale. */
static inline enum acc_age acc_look_age(const struct acc_segment *seg, struct acc_look *look,
                                        const struct acc_record *record) {
    enum acc_age age =
        record->expire_at == 0 ? ACC_FRESH : acc_record_age(record, acc_look_now(seg, look));
    if (acc_look_capped(look) && age == ACC_FRESH && !acc_look_allows(look, record)) {
        return ACC_STALE;
    }
    return age;
}

/* What becomes of reads past fresh_until. */
enum acc_desync {
    ACC_CAP = 0,    /* given what is young enough */
    ACC_BYPASS = 1, /* given nothing */
    ACC_SERVE = 2,  /* as ever: no bound holds */
};

/* Let the reads of an area keep a bound (seconds, > 0), and be given nothing that is known to be older
 * than `limit` (0 to bound). */
void acc_area_bound(struct acc_area *area, double bound, double limit, enum acc_desync on_desync);

/* Raise the end of an area's lease, after everything that it stands for has been applied.  A word
 * that can only be garbage is replaced. */
void acc_area_extend(struct acc_area_slot *slot, uint64_t until);

/* Age in units of what is known of the other hosts; UINT64_MAX: nothing yet; 0 without a bound. */
uint64_t acc_area_freshness(const struct acc_area *area);

#endif
