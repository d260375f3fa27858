/* Owns fresh_until of the areas; the judgement itself is in the header, because it stands before every
 * hit.  Takes no lock; what a killed process leaves is said there. */
#include "freshness.h"

/* How far an item may seem to be from the future: it was stored after the look was taken. */
#define SKEW (1u * ACC_UNITS_PER_SECOND)

static uint32_t units_up(double seconds) {
    return acc_clock_after(0, seconds);
}

/* The longest age that the lagging clock may show of what is not older than `units`. */
static int64_t age_limit(int64_t units) {
    int64_t limit = units - (int64_t)acc_clock_lag();
    return limit < 0 ? ACC_NO_AGE : limit;
}

static int64_t units_down(double seconds) {
    double exact = seconds * (double)ACC_UNITS_PER_SECOND;
    return exact >= (double)ACC_LIFE_MAX ? (int64_t)ACC_LIFE_MAX : (int64_t)exact;
}

/* The circle of 32 bits again: an item without expiry that is 198 days old seems to be new for as
 * long as `oldest` lasts. */
bool acc_look_allows(const struct acc_look *look, const struct acc_record *record) {
    if (look->oldest < 0) {
        return false;
    }
    uint32_t age = (uint32_t)look->now - record->loaded_at;
    return look->oldest == ACC_ANY_AGE || (uint64_t)(age + SKEW) <= (uint64_t)look->oldest + SKEW;
}

struct acc_look acc_look_within(const struct acc_area *area, int64_t within) {
    uint64_t until = acc_load_acquire(area->fresh_until);
    struct acc_look look = acc_look(area);
    if (within == ACC_ANY_AGE || area->bound == 0) {
        return look;
    }
    look.now = acc_now_long(area->seg);
    /* until - bound + within >= now + lag: known to be that current.  Added to both sides, so that
     * nothing goes below 0. */
    uint64_t now = look.now + acc_clock_lag() + area->bound;
    bool current = until != 0 && acc_fresh_at(until + (uint64_t)within, now, 0);
    int64_t oldest = current ? ACC_ANY_AGE : age_limit(within);
    look.oldest = oldest < look.oldest ? oldest : look.oldest;
    return look;
}

void acc_area_bound(struct acc_area *area, double bound, double limit, enum acc_desync on_desync) {
    area->bound = units_up(bound);
    area->margin = area->bound - (uint32_t)units_down(limit) + acc_clock_lag();
    area->limit = age_limit(units_down(limit));
    area->capped_age = on_desync == ACC_SERVE    ? ACC_ANY_AGE
                       : on_desync == ACC_BYPASS ? ACC_NO_AGE
                                                 : area->limit;
    area->judged = on_desync != ACC_SERVE;
    acc_area_watch(area);
}

void acc_area_extend(struct acc_area_slot *slot, uint64_t until) {
    uint64_t seen = acc_load_relaxed(&slot->fresh_until);
    /* Release: who sees it sees what was applied before. */
    while ((seen < until || seen - until > ACC_FRESH_MOST) &&
           !acc_cas64(&slot->fresh_until, seen, until)) {
        seen = acc_load_relaxed(&slot->fresh_until);
    }
}

uint64_t acc_area_freshness(const struct acc_area *area) {
    if (area->bound == 0) {
        return 0;
    }
    uint64_t until = acc_load_acquire(area->fresh_until);
    uint64_t now = acc_now_long(area->seg);
    if (until == 0 || (until > now && until - now > ACC_FRESH_MOST)) {
        return UINT64_MAX;
    }
    /* now - (until - bound), which the lag of the clock may put a little into the future. */
    return now + area->bound < until ? 0 : now + area->bound - until;
}
