/* The bound on staleness: its arithmetic, who raises it, and readers beside a listener that applies
 * and extends. */
#include "freshness.h"
#include "harness.h"
#include "loads.h"

#include <sched.h>

#define SECOND ACC_UNITS_PER_SECOND

static struct acc_segment *new_private(void) {
    struct acc_segment *seg;
    CHECK_STATUS(ACC_OK, acc_segment_private(4 * MIB, 64 << 10, &seg));
    CHECK_STATUS(ACC_OK, acc_segment_register(seg));
    return seg;
}

static struct acc_area open_bound(struct acc_segment *seg, double bound, double limit,
                                  enum acc_desync on_desync) {
    struct acc_area area = open_area(seg, "fresh");
    acc_area_bound(&area, bound, limit, on_desync);
    return area;
}

static struct acc_area_slot *slot_of(const struct acc_area *area) {
    return acc_area_slot(area->seg, area->id);
}

/* As if the last heartbeat had set out at `since`. */
static void heard(const struct acc_area *area, uint64_t since) {
    acc_area_extend(slot_of(area), since + area->bound);
}

static void store_aged(struct acc_area *area, const struct acc_key *key, uint32_t age) {
    const struct acc_write write = {.data = (const uint8_t *)"value",
                                    .size = 5,
                                    .code = ACC_CODE_BYTES,
                                    .loaded_at = acc_now(area->seg) - age};
    CHECK_STATUS(ACC_OK, acc_store(area, key, &write, ACC_LOCK_BUDGET_NS));
}

/* What the binding's reads do, without a copy. */
static enum acc_age age_of(struct acc_area *area, const struct acc_key *key, int64_t within) {
    struct acc_look look = acc_look_within(area, within);
    struct acc_home home = acc_home_of(area->seg, key->hash);
    struct acc_found found;
    if (acc_read_find_bounded(area, &home, key, &found) != ACC_OK ||
        !acc_found_live(area, &found, key->hash)) {
        return ACC_GONE;
    }
    return acc_look_age(area->seg, &look, &found.view.record);
}

static bool is_fresh(struct acc_area *area, const struct acc_key *key) {
    return age_of(area, key, ACC_ANY_AGE) == ACC_FRESH;
}

/* --- arithmetic ------------------------------------------------------------------------------- */

static void fresh_up_to_the_unit(void) {
    const uint64_t starts[] = {1000, UINT32_MAX - 3ull, UINT32_MAX + 3ull, 1ull << 40};
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        uint64_t until = starts[i];
        CHECK(acc_fresh_at(until, until, 0));
        CHECK(!acc_fresh_at(until, until + 1, 0));
        CHECK(acc_fresh_at(until, until - 500, 500));
        CHECK(!acc_fresh_at(until, until - 499, 500));
        CHECK(!acc_fresh_at(until, until + (1ull << 32), 0)); /* does not wrap */
    }
    CHECK(!acc_fresh_at(0, 1, 0)); /* never in step */
    CHECK(!acc_fresh_at(0, 1000, 500));
    CHECK(acc_fresh_at(1000 + ACC_FRESH_MOST, 1000, 0));
    CHECK(!acc_fresh_at(1001 + ACC_FRESH_MOST, 1000, 0)); /* garbage */
    CHECK(!acc_fresh_at(UINT64_MAX, 1000, 500));
}

static bool allowed(int64_t oldest, uint32_t loaded_at, uint64_t now) {
    const struct acc_record record = {.loaded_at = loaded_at};
    const struct acc_look look = {.now = now, .oldest = oldest};
    return acc_look_allows(&look, &record);
}

static void allowed_up_to_the_unit(void) {
    const uint64_t nows[] = {5000, UINT32_MAX, UINT32_MAX + 100ull, (7ull << 32) + 1};
    for (size_t i = 0; i < sizeof nows / sizeof *nows; i++) {
        uint32_t now = (uint32_t)nows[i];
        CHECK(allowed(500, now, nows[i]));
        CHECK(allowed(500, now - 500, nows[i]));
        CHECK(!allowed(500, now - 501, nows[i]));
        CHECK(!allowed(500, now - ACC_LIFE_MAX, nows[i]));
        CHECK(allowed(0, now, nows[i]));
        CHECK(!allowed(0, now - 1, nows[i]));
        CHECK(!allowed(ACC_NO_AGE, now, nows[i]));
        CHECK(allowed(ACC_ANY_AGE, now - ACC_LIFE_MAX, nows[i]));
        /* Stored after the look was taken; and what no store explains. */
        CHECK(allowed(0, now + 1, nows[i]));
        CHECK(allowed(0, now + SECOND, nows[i]));
        CHECK(!allowed(500, now + 2 * SECOND, nows[i]));
    }
}

/* Every rounding shortens, and the lag of the clock is taken off. */
static void roundings(void) {
    struct acc_segment *seg = new_private();
    uint32_t lag = acc_clock_lag();
    CHECK(lag >= 1 && lag <= 4);
    struct acc_area area = open_bound(seg, 2.0, 2.0, ACC_CAP);
    CHECK_EQ(500, area.bound);
    CHECK_EQ(lag, area.margin);
    CHECK_EQ(500 - lag, area.capped_age);
    area = open_bound(seg, 2.001, 0.999, ACC_CAP);
    CHECK_EQ(501, area.bound);
    CHECK_EQ(501 - 249 + lag, area.margin);
    CHECK_EQ(249 - lag, area.capped_age);
    area = open_bound(seg, 0.001, 0, ACC_CAP);
    CHECK_EQ(1, area.bound);
    CHECK_EQ(ACC_NO_AGE, area.capped_age);
    area = open_bound(seg, 2, 2, ACC_BYPASS);
    CHECK_EQ(ACC_NO_AGE, area.capped_age);
    area = open_bound(seg, 2, 2, ACC_SERVE);
    CHECK(!area.judged);
    area = open_bound(seg, 1e300, 1e300, ACC_CAP);
    CHECK_EQ(ACC_LIFE_MAX, area.bound);
    CHECK_EQ(lag, area.margin);
    acc_segment_close(seg);
}

/* --- raising it ------------------------------------------------------------------------------- */

static void only_raised(void) {
    struct acc_segment *seg = new_private();
    struct acc_area area = open_bound(seg, 2, 2, ACC_CAP);
    struct acc_area_slot *slot = slot_of(&area);
    CHECK_EQ(0, slot->fresh_until);
    CHECK_EQ(UINT64_MAX, acc_area_freshness(&area));
    acc_area_extend(slot, 1000);
    CHECK_EQ(1000, slot->fresh_until);
    acc_area_extend(slot, 999);
    acc_area_extend(slot, 1000);
    CHECK_EQ(1000, slot->fresh_until);
    acc_area_extend(slot, 1000 + (1ull << 33));
    CHECK_EQ(1000 + (1ull << 33), slot->fresh_until);
    acc_segment_close(seg);
}

/* A word that nobody can have meant is nobody's lease, and the next heartbeat puts it right. */
static void garbage(void) {
    struct acc_segment *seg = new_private();
    struct acc_area area = open_bound(seg, 2, 2, ACC_CAP);
    struct test_key k;
    const struct acc_key *key = text_key(&area, &k, "key");
    store_aged(&area, key, 100 * SECOND);
    const uint64_t words[] = {UINT64_MAX, 1ull << 63, 1ull << 50, 1, 0};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        acc_store_release(&slot_of(&area)->fresh_until, words[i]);
        CHECK(!is_fresh(&area, key));
        CHECK_EQ(ACC_STALE, age_of(&area, key, 100000));
        CHECK(acc_area_freshness(&area) > 100 * SECOND);
        heard(&area, acc_now_long(seg));
        CHECK(is_fresh(&area, key));
        CHECK(acc_area_freshness(&area) < SECOND);
    }
    acc_segment_close(seg);
}

enum { RAISERS = 4, RAISES = 20000 };

struct raiser {
    struct acc_area_slot *slot;
    uint64_t seed;
    bool fell;
};

static void *raise_often(void *argument) {
    struct raiser *raiser = argument;
    uint64_t last = 0;
    for (uint64_t i = 1; i <= RAISES; i++) {
        acc_area_extend(raiser->slot, i * RAISERS + raiser->seed);
        uint64_t seen = acc_load_acquire(&raiser->slot->fresh_until);
        raiser->fell |= seen < last || seen < i * RAISERS + raiser->seed;
        last = seen;
    }
    return NULL;
}

static void raised_by_many(void) {
    struct acc_segment *seg = new_private();
    struct acc_area area = open_area(seg, "fresh");
    struct raiser raisers[RAISERS];
    pthread_t threads[RAISERS];
    for (uint64_t i = 0; i < RAISERS; i++) {
        raisers[i] = (struct raiser){.slot = slot_of(&area), .seed = i};
        CHECK_EQ(0, pthread_create(&threads[i], NULL, raise_often, &raisers[i]));
    }
    for (int i = 0; i < RAISERS; i++) {
        pthread_join(threads[i], NULL);
        CHECK(!raisers[i].fell);
    }
    CHECK_EQ((uint64_t)RAISES * RAISERS + RAISERS - 1, slot_of(&area)->fresh_until);
    acc_segment_close(seg);
}

/* --- what reads are given --------------------------------------------------------------------- */

/* Without a bound there is no look at all, and nothing is ever capped. */
static void no_bound(void) {
    struct acc_segment *seg = new_private();
    struct acc_area area = open_area(seg, "fresh");
    struct test_key k;
    const struct acc_key *key = text_key(&area, &k, "key");
    store_aged(&area, key, 100 * SECOND);
    CHECK_EQ(0, acc_look(&area).now);
    CHECK_EQ(ACC_ANY_AGE, acc_look_within(&area, 0).oldest);
    CHECK(is_fresh(&area, key));
    CHECK_EQ(0, acc_area_freshness(&area));
    acc_segment_close(seg);
}

static void capped(void) {
    struct acc_segment *seg = new_private();
    struct acc_area areas[] = {open_bound(seg, 2, 2, ACC_CAP), open_bound(seg, 2, 2, ACC_BYPASS),
                               open_bound(seg, 2, 2, ACC_SERVE)};
    const bool young_is_fresh[] = {true, false, true}, old_is_fresh[] = {false, false, true};
    struct test_key y, o;
    const struct acc_key *young = text_key(&areas[0], &y, "young");
    const struct acc_key *old = text_key(&areas[0], &o, "old");
    store_aged(&areas[0], young, SECOND);
    store_aged(&areas[0], old, 3 * SECOND);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(young_is_fresh[i], is_fresh(&areas[i], young));
        CHECK_EQ(old_is_fresh[i], is_fresh(&areas[i], old));
        CHECK(age_of(&areas[i], old, ACC_ANY_AGE) != ACC_GONE);
    }
    heard(&areas[0], acc_now_long(seg));
    for (int i = 0; i < 3; i++) {
        CHECK(is_fresh(&areas[i], young));
        CHECK(is_fresh(&areas[i], old));
    }
    acc_segment_close(seg);
}

/* A loader and an add find there what a read does, at every moment around the end of both the lease
 * and the item's youth; else they would send each other round. */
static void loaders_agree(void) {
    struct acc_segment *seg = new_private();
    struct acc_area area = open_bound(seg, 2, 1, ACC_CAP);
    struct test_key k;
    const struct acc_key *key = text_key(&area, &k, "key");
    heard(&area, acc_now_long(seg));
    store_aged(&area, key, 0);
    uint32_t seen[2] = {0, 0};
    for (int32_t shift = 0; shift < 3 * (int32_t)SECOND; shift += 3) {
        seg->clock_shift = shift;
        bool before = is_fresh(&area, key);
        struct acc_ticket ticket;
        enum acc_status status = enter_load(&area, key, &ticket);
        if (status == ACC_OK) {
            acc_load_end(&area, &ticket, ACC_RESULT_FAILED);
        }
        bool after = is_fresh(&area, key); /* the clock runs: once false, it stays so */
        CHECK(before || !after);
        CHECK(before != after || before == (status == ACC_PRESENT));
        const struct acc_write add = {.data = (const uint8_t *)"x",
                                      .size = 1,
                                      .code = ACC_CODE_BYTES,
                                      .mode = ACC_ADD,
                                      .loaded_at = acc_now(seg) - 10 * SECOND};
        if (after) {
            /* May end this very moment, but only then. */
            enum acc_status added = acc_store(&area, key, &add, ACC_LOCK_BUDGET_NS);
            CHECK(added == ACC_NOT_STORED || !is_fresh(&area, key));
        } else {
            CHECK_STATUS(ACC_OK, acc_store(&area, key, &add, ACC_LOCK_BUDGET_NS));
            CHECK(!is_fresh(&area, key));
        }
        seen[after]++;
    }
    CHECK(seen[false] > 50 && seen[true] > 50);
    acc_segment_close(seg);
}

/* What a flight loads is as old as the flight. */
static void loads_age(void) {
    struct acc_segment *seg = new_private();
    struct acc_area area = open_bound(seg, 2, 2, ACC_CAP);
    struct test_key k;
    const struct acc_key *key = text_key(&area, &k, "key");
    struct acc_ticket together = lead(&area, key), alone = load_alone(&area, key);
    CHECK(acc_now(seg) - together.started < SECOND);
    CHECK(acc_now(seg) - alone.started < SECOND);
    seg->clock_shift = 40 * SECOND;
    struct acc_ticket next = lead(&area, key);
    CHECK(next.taken_over);
    CHECK(acc_now(seg) - next.started < SECOND);
    acc_load_end(&area, &together, ACC_RESULT_FAILED);
    acc_load_end(&area, &alone, ACC_RESULT_FAILED);
    acc_load_end(&area, &next, ACC_RESULT_FAILED);
    acc_segment_close(seg);
}

/* Capped readers join no load older than the limit; who has joined one is handed what nobody would be
 * given. */
static void loads_out_of_step(void) {
    struct acc_segment *seg = new_private();
    struct acc_area area = open_bound(seg, 2, 2, ACC_CAP);
    struct test_key k;
    const struct acc_key *key = text_key(&area, &k, "key");
    struct acc_ticket old = lead(&area, key), patient = join(&area, key);
    seg->clock_shift = 2 * SECOND + 10;
    struct acc_ticket late = lead(&area, key), joined = join(&area, key);
    CHECK(!late.taken_over);
    CHECK(late.record != old.record);
    CHECK_EQ(ACC_LEASE_OVERTAKEN, acc_flight_lease(seg, &old));
    CHECK_STATUS(ACC_NOT_STORED, finish_bytes(&area, key, &old, "old", 3));
    CHECK_EQ(ACC_RESULT_HANDED, result_of(&area, &patient));
    const struct acc_write write = {.data = (const uint8_t *)"late",
                                    .size = 4,
                                    .code = ACC_CODE_BYTES,
                                    .loaded_at = acc_now(seg) - 3 * SECOND};
    CHECK_STATUS(ACC_OK, acc_load_finish(&area, key, &late, &write, ACC_LOCK_BUDGET_NS));
    CHECK_EQ(ACC_STALE, age_of(&area, key, ACC_ANY_AGE));
    CHECK_EQ(ACC_RESULT_HANDED, result_of(&area, &joined));
    uint8_t *value, code;
    uint32_t size;
    CHECK_STATUS(ACC_OK, acc_load_take(&area, key, &joined, &value, &size, &code));
    CHECK_EQ(4, size);
    CHECK(memcmp(value, "late", 4) == 0);
    free(value);
    acc_flight_leave(seg, &patient);
    acc_flight_leave(seg, &joined);
    CHECK_SEGMENT(seg);
    acc_segment_close(seg);
}

/* --- readers beside a listener ---------------------------------------------------------------- */

/* The value of the one key is the time at which it was stored, and is out of date from the moment that
 * the listener asks "what is it now?".  The listener asks, forgets (by a delete, or by a clear alone,
 * as after a gap), extends, stores anew; and now and then it is away for longer than the bound.
 * Readers, who are often stopped between any two of their steps, must never be given as fresh what
 * was stored more than the bound, and what the listener takes, before they began. */
enum { READERS = 3, RACE_MS = 3000 };
#define RACE_BOUND 0.06

struct race {
    struct acc_segment *seg;
    uint32_t stop, failures, fresh, refused;
};

static void stall(struct chance *chance) {
    uint64_t n = random_below(chance, 200);
    if (n == 0) {
        sleep_ms(5 + random_below(chance, 100));
    } else if (n < 20) {
        sched_yield();
    }
}

static bool read_bounded(struct acc_area *area, const struct acc_key *key, struct chance *chance,
                         uint64_t *value) {
    struct acc_home home = acc_home_of(area->seg, key->hash);
    struct acc_found found;
    struct acc_look look = acc_look(area);
    stall(chance);
    if (acc_read_find(area, &home, key, &found) != ACC_OK) {
        return false;
    }
    stall(chance);
    if (!acc_found_live(area, &found, key->hash) ||
        acc_look_age(area->seg, &look, &found.view.record) != ACC_FRESH) {
        return false;
    }
    memcpy(value, found.view.value, sizeof *value);
    return acc_read_valid(&found);
}

static void *read_in_race(void *argument) {
    struct race *race = argument;
    struct acc_area area = open_bound(race->seg, RACE_BOUND, RACE_BOUND, ACC_CAP);
    struct chance chance = {(uint64_t)(uintptr_t)&area};
    struct test_key k;
    const struct acc_key *key = text_key(&area, &k, "key");
    while (!acc_load_relaxed(&race->stop)) {
        uint64_t start = acc_clock_ns(), value;
        if (!read_bounded(&area, key, &chance, &value)) {
            acc_add_relaxed(&race->refused, 1u);
            continue;
        }
        acc_add_relaxed(&race->fresh, 1u);
        if (value + (uint64_t)(RACE_BOUND * 1e9) < start) {
            acc_add_relaxed(&race->failures, 1u);
        }
    }
    return NULL;
}

static void listen_once(struct acc_area *area, const struct acc_key *key, struct chance *chance) {
    uint64_t asked = acc_clock_ns();
    stall(chance);
    if (random_below(chance, 2) == 0) {
        acc_area_clear(area);
    } else {
        acc_delete(area, key);
    }
    acc_area_extend(slot_of(area), asked / ACC_UNIT_NS + area->bound - 1); /* bound is rounded up */
    sleep_ms(random_below(chance, 20));
    /* From here on it is that again.  After a clear the word of what was before stays until then, so
     * that only the generation tells. */
    asked = acc_clock_ns();
    const struct acc_write write = {.data = (const uint8_t *)&asked,
                                    .size = sizeof asked,
                                    .code = ACC_CODE_BYTES,
                                    .loaded_at = acc_now(area->seg)};
    CHECK_STATUS(ACC_OK, acc_store(area, key, &write, ACC_LOCK_BUDGET_NS));
}

static void race(void) {
    struct race race = {.seg = new_private()};
    struct acc_area area = open_bound(race.seg, RACE_BOUND, RACE_BOUND, ACC_CAP);
    struct chance chance = {4711};
    struct test_key k;
    const struct acc_key *key = text_key(&area, &k, "key");
    pthread_t threads[READERS];
    for (int i = 0; i < READERS; i++) {
        CHECK_EQ(0, pthread_create(&threads[i], NULL, read_in_race, &race));
    }
    uint64_t end = acc_clock_ns() + RACE_MS * 1000000ull;
    while (acc_clock_ns() < end) {
        listen_once(&area, key, &chance);
        sleep_ms(random_below(&chance, 8) == 0 ? 100 : 1);
    }
    acc_store_release(&race.stop, 1u);
    for (int i = 0; i < READERS; i++) {
        pthread_join(threads[i], NULL);
    }
    CHECK_EQ(0, race.failures);
    CHECK(race.fresh > 100);
    CHECK(race.refused > 100);
    CHECK_SEGMENT(race.seg);
    acc_segment_close(race.seg);
}

RUN(60, TEST(fresh_up_to_the_unit), TEST(allowed_up_to_the_unit), TEST(roundings),
    TEST(only_raised), TEST(garbage), TEST(raised_by_many), TEST(no_bound), TEST(capped),
    TEST(loaders_agree), TEST(loads_age), TEST(loads_out_of_step), TEST(race))
