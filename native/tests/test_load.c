/* The miss loads of accelerator.h: what is stored, what is handed over, what is neither; pauses and
 * latencies. */
#include "loads.h"

struct fixture {
    struct acc_segment *seg;
    struct acc_area area;
    struct test_key key, name; /* of one text, the second a lock's */
};

static struct fixture *new_fixture(void) {
    struct fixture *f = calloc(1, sizeof *f);
    f->seg = new_segment(2 * MIB, 64 << 10);
    hold_measurement(f->seg);
    f->area = open_area(f->seg, "loads");
    text_key(&f->area, &f->key, "the key");
    text_key(&f->area, &f->name, "the key");
    f->name.key.tag = ACC_TAG_LOCK;
    f->name.key.hash = acc_key_hash(&f->area, &f->name.key);
    return f;
}

static void end_fixture(struct fixture *f) {
    CHECK_SEGMENT(f->seg);
    acc_segment_close(f->seg);
    free(f);
}

static enum acc_status set_until(struct fixture *f, uint8_t mode, uint32_t expire_at,
                                 uint32_t stale_until) {
    const struct acc_write write = {.data = (const uint8_t *)"newer",
                                    .size = 5,
                                    .code = ACC_CODE_BYTES,
                                    .mode = mode,
                                    .expire_at = expire_at,
                                    .stale_until = stale_until};
    return acc_store(&f->area, &f->key.key, &write, ACC_LOCK_BUDGET_NS);
}

/* --- overtaken -------------------------------------------------------------------------------- */

static void by_set(struct fixture *f) {
    CHECK_STATUS(ACC_OK, set_until(f, ACC_SET, 0, 0));
}

static void by_add(struct fixture *f) {
    CHECK_STATUS(ACC_OK, set_until(f, ACC_ADD, 0, 0));
}

static void by_fill(struct fixture *f) {
    CHECK_STATUS(ACC_OK, set_until(f, ACC_FILL, 0, 0));
}

static void by_alone(struct fixture *f) {
    struct acc_ticket other = load_alone(&f->area, &f->key.key);
    CHECK_STATUS(ACC_OK, finish_bytes(&f->area, &f->key.key, &other, "newer", 5));
}

static void by_incr(struct fixture *f) {
    int64_t out, initial = 1;
    CHECK_STATUS(ACC_OK,
                 acc_incr(&f->area, &f->key.key, 1, &initial, 0, 0, ACC_LOCK_BUDGET_NS, &out));
}

static void by_delete(struct fixture *f) {
    CHECK(!acc_delete(&f->area, &f->key.key));
}

static void by_expire(struct fixture *f) {
    CHECK_STATUS(ACC_NOT_FOUND, acc_expire(&f->area, &f->key.key, ACC_LOCK_BUDGET_NS));
}

static void by_clear(struct fixture *f) {
    acc_area_clear(&f->area);
}

static void by_large_set(struct fixture *f) {
    const struct acc_write write = {.size = ACC_VALUE_MAX, .code = ACC_CODE_BYTES};
    CHECK_STATUS(ACC_TOO_LARGE, acc_store(&f->area, &f->key.key, &write, ACC_LOCK_BUDGET_NS));
}

/* Whatever comes between: not stored, given to those who joined before, joined by nobody after. */
static void overtaken(void) {
    static const struct {
        const char *name;
        void (*happens)(struct fixture *f);
        bool stores;
    } ways[] = {
        {"set", by_set, true},        {"add", by_add, true},      {"fill", by_fill, true},
        {"alone", by_alone, true},    {"incr", by_incr, true},    {"delete", by_delete, false},
        {"expire", by_expire, false}, {"clear", by_clear, false}, {"large", by_large_set, false}};
    struct fixture *f = new_fixture();
    const struct acc_key *key = &f->key.key;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        acc_delete(&f->area, key);
        struct acc_ticket leader = lead(&f->area, key), joined = join(&f->area, key), later;
        ways[i].happens(f);
        CHECK(acc_flight_running(f->seg, &joined));
        enum acc_status status = enter_load(&f->area, key, &later);
        if (ways[i].stores) {
            CHECK_STATUS(ACC_PRESENT, status);
            CHECK_EQ(ACC_LEASE_OVERTAKEN, acc_flight_lease(f->seg, &leader));
        } else {
            CHECK_STATUS(ACC_OK, status);
            CHECK(later.leading && !later.taken_over);
        }
        CHECK_EQ(1, acc_flight_waiting(f->seg, &leader));
        if (finish_bytes(&f->area, key, &leader, "older", 5) != ACC_NOT_STORED) {
            FAIL("stored though overtaken by %s", ways[i].name);
        }
        CHECK(!has_value(&f->area, key, "older", 5));
        CHECK_EQ(ways[i].stores, is_there(&f->area, key));
        CHECK_EQ(ACC_RESULT_HANDED, result_of(&f->area, &joined));
        CHECK(takes(&f->area, key, &joined, "older", 5));
        CHECK(takes(&f->area, key, &joined, "older", 5)); /* each of them, as often as he likes */
        if (!ways[i].stores) {
            CHECK_STATUS(ACC_OK, finish_bytes(&f->area, key, &later, "newer", 5));
            CHECK(has_value(&f->area, key, "newer", 5));
        }
    }
    CHECK_EQ(0, live_records(f->seg));
    end_fixture(f);
}

/* What has not been stored has overtaken nothing; nor have deletes of other keys. */
static void not_overtaken(void) {
    struct fixture *f = new_fixture();
    const struct acc_key *key = &f->key.key;
    struct test_key other;
    CHECK_STATUS(ACC_OK, set_until(f, ACC_SET, 0, 0));
    struct acc_ticket leader;
    CHECK_STATUS(ACC_OK, acc_load_enter(&f->area, key, ACC_LOAD_LEAD, ACC_WINDOW_ALL, LEASE,
                                        ACC_LOCK_BUDGET_NS, &leader));
    CHECK_STATUS(ACC_NOT_STORED, set_until(f, ACC_ADD, 0, 0));
    CHECK_STATUS(ACC_NOT_STORED, set_until(f, ACC_FILL, 0, 0));
    for (uint64_t number = 0; number < 5000; number++) {
        number_key(&f->area, &other, number);
        if (number % 50 == 0) {
            CHECK_STATUS(ACC_OK, set_bytes(&f->area, &other.key, "other", 5));
        }
    }
    acc_delete(&f->area, text_key(&f->area, &other, "another"));
    CHECK_EQ(ACC_LEASE_HELD, acc_flight_lease(f->seg, &leader));
    CHECK_STATUS(ACC_OK, finish_bytes(&f->area, key, &leader, "fresh", 5));
    CHECK(has_value(&f->area, key, "fresh", 5));
    end_fixture(f);
}

/* A refreshing load that a set has overtaken leaves the set's value. */
static void refresh_overtaken(void) {
    struct fixture *f = new_fixture();
    const struct acc_key *key = &f->key.key;
    struct acc_ticket leader;
    CHECK_STATUS(ACC_OK, set_bytes(&f->area, key, "first", 5));
    CHECK_STATUS(ACC_OK, acc_load_enter(&f->area, key, ACC_LOAD_JOIN, ACC_WINDOW_ALL, LEASE,
                                        ACC_LOCK_BUDGET_NS, &leader));
    CHECK(leader.leading);
    CHECK_STATUS(ACC_OK, set_bytes(&f->area, key, "second", 6));
    CHECK_STATUS(ACC_NOT_STORED, finish_bytes(&f->area, key, &leader, "older", 5));
    CHECK(has_value(&f->area, key, "second", 6));
    end_fixture(f);
}

/* A value loaded before a delete does not come back after it, whenever the delete comes. */
static void deleted_after_the_end(void) {
    struct fixture *f = new_fixture();
    const struct acc_key *key = &f->key.key;
    struct acc_ticket leader = lead(&f->area, key);
    CHECK_STATUS(ACC_OK, finish_bytes(&f->area, key, &leader, "value", 5));
    CHECK(acc_delete(&f->area, key));
    CHECK(!is_there(&f->area, key));
    CHECK_STATUS(ACC_NOT_STORED, finish_bytes(&f->area, key, &leader, "again", 5));
    CHECK(!is_there(&f->area, key));
    end_fixture(f);
}

/* --- who needs no load ------------------------------------------------------------------------ */

static void windows(void) {
    struct fixture *f = new_fixture();
    const struct acc_key *key = &f->key.key;
    struct acc_ticket ticket;
    const struct {
        uint32_t life, window;
        enum acc_status status;
    } cases[] = {
        {1000, 0, ACC_PRESENT}, {1000, 900, ACC_PRESENT},    {1000, 1100, ACC_OK},
        {0, 1100, ACC_PRESENT}, {0, ACC_WINDOW_ALL, ACC_OK}, {1000, ACC_WINDOW_ALL, ACC_OK},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t end = cases[i].life == 0 ? 0 : acc_now(f->seg) + cases[i].life;
        CHECK_STATUS(ACC_OK, set_until(f, ACC_SET, end, 0));
        CHECK_STATUS(cases[i].status, acc_load_enter(&f->area, key, ACC_LOAD_LEAD, cases[i].window,
                                                     LEASE, ACC_LOCK_BUDGET_NS, &ticket));
        if (cases[i].status == ACC_OK) {
            acc_load_end(&f->area, &ticket, ACC_RESULT_FAILED);
        }
    }
    /* A stale value is no reason not to load. */
    CHECK_STATUS(ACC_OK, set_until(f, ACC_SET, acc_now(f->seg) - 1, acc_now(f->seg) + 1000));
    ticket = lead(&f->area, key);
    acc_load_end(&f->area, &ticket, ACC_RESULT_FAILED);
    end_fixture(f);
}

/* --- ends without a stored value -------------------------------------------------------------- */

static void handed(void) {
    struct fixture *f = new_fixture();
    const struct acc_key *key = &f->key.key;
    static uint8_t value[9000];
    const uint32_t sizes[] = {0, 1, 5, 600, 9000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        fill_value(value, sizes[i], 1, i);
        struct acc_ticket leader = lead(&f->area, key);
        struct acc_ticket first = join(&f->area, key), second = join(&f->area, key);
        hand_bytes(&f->area, key, &leader, value, sizes[i]);
        CHECK(!is_there(&f->area, key));
        CHECK_EQ(ACC_RESULT_HANDED, result_of(&f->area, &first));
        CHECK(takes(&f->area, key, &first, value, sizes[i]));
        CHECK(takes(&f->area, key, &second, value, sizes[i]));
    }
    end_fixture(f);
}

/* Who joins just after the leader has looked for somebody to give it to enters again. */
static void handed_to_nobody(void) {
    struct fixture *f = new_fixture();
    const struct acc_key *key = &f->key.key;
    struct acc_ticket leader = lead(&f->area, key), joined = join(&f->area, key);
    uint64_t tail = acc_shard(f->seg, acc_home_of(f->seg, key->hash).shard)->ring[ACC_SMALL].tail;
    struct acc_ticket left = joined;
    acc_flight_leave(f->seg, &left);
    hand_bytes(&f->area, key, &leader, "value", 5);
    CHECK_EQ(tail, acc_shard(f->seg, acc_home_of(f->seg, key->hash).shard)->ring[ACC_SMALL].tail);
    CHECK(!acc_flight_running(f->seg, &joined));
    CHECK_EQ(ACC_RESULT_UNKNOWN, result_of(&f->area, &joined));
    CHECK(!takes(&f->area, key, &joined, "value", 5));
    end_fixture(f);
}

/* Whoever comes too late for a value that was handed over gets nothing, and never other bytes. */
static void taken_too_late(void) {
    struct fixture *f = new_fixture();
    const struct acc_key *key = &f->key.key;
    static uint8_t value[3000], *got;
    uint8_t code;
    uint32_t size, found = 0, gone = 0;
    for (uint64_t round = 0; round < 20; round++) {
        fill_value(value, sizeof value, 1, round);
        struct acc_ticket leader = lead(&f->area, key), joined = join(&f->area, key);
        hand_bytes(&f->area, key, &leader, value, sizeof value);
        for (uint64_t number = 0; number < 3000; number++) {
            struct test_key other;
            number_key(&f->area, &other, round << 20 | number);
            CHECK_STATUS(ACC_OK,
                         set_bytes(&f->area, &other.key, value, 500 + (uint32_t)round * 90));
            enum acc_status status = acc_load_take(&f->area, key, &joined, &got, &size, &code);
            if (status == ACC_OK) {
                CHECK_EQ(sizeof value, size);
                CHECK_EQ(0, memcmp(value, got, size));
                free(got);
                found++;
            } else {
                CHECK_STATUS(ACC_NOT_FOUND, status);
                gone++;
                break;
            }
        }
    }
    CHECK_EQ(20, gone);
    CHECK(found > 20);
    end_fixture(f);
}

/* The place of what was handed over is garbage, and by chance that of an item of the same key. */
static void handed_is_garbage(void) {
    struct fixture *f = new_fixture();
    const struct acc_key *key = &f->key.key;
    CHECK_STATUS(ACC_OK, set_bytes(&f->area, key, "old", 3));
    uint8_t buffer[100];
    struct got old = read_key(&f->area, key, buffer, sizeof buffer, false);
    acc_delete(&f->area, key);
    struct acc_ticket leader = lead(&f->area, key), joined = join(&f->area, key);
    hand_bytes(&f->area, key, &leader, "value", 5);
    uint64_t *place = &acc_flight_record(f->seg, joined.record)->handed, right = *place;
    *place = (uint64_t)old.ring << 63 | old.offset;
    CHECK(!takes(&f->area, key, &joined, "old", 3));
    for (uint32_t bit = 0; bit < 64; bit++) {
        *place = right ^ 1ull << bit;
        CHECK(!takes(&f->area, key, &joined, "value", 5));
    }
    *place = right;
    CHECK(takes(&f->area, key, &joined, "value", 5));
    end_fixture(f);
}

static void declined_and_failed(void) {
    struct fixture *f = new_fixture();
    const struct acc_key *key = &f->key.key;
    const enum acc_flight_result results[] = {ACC_RESULT_DECLINED, ACC_RESULT_FAILED};
    for (int i = 0; i < 2; i++) {
        struct acc_ticket leader = lead(&f->area, key), joined = join(&f->area, key);
        acc_load_end(&f->area, &leader, results[i]);
        CHECK_EQ(results[i], result_of(&f->area, &joined));
        CHECK(!takes(&f->area, key, &joined, "", 0));
        acc_load_end(&f->area, &leader, ACC_RESULT_STORED); /* over: nothing happens */
        CHECK_EQ(results[i], result_of(&f->area, &joined));
        leader = lead(&f->area, key); /* one of those who waited */
        acc_load_end(&f->area, &leader, ACC_RESULT_FAILED);
    }
    end_fixture(f);
}

static void too_large(void) {
    struct fixture *f = new_fixture();
    const struct acc_key *key = &f->key.key;
    uint8_t *value = calloc(1, 2 * MIB);
    struct acc_ticket leader = lead(&f->area, key), joined = join(&f->area, key);
    CHECK_STATUS(ACC_TOO_LARGE, finish_bytes(&f->area, key, &leader, value, 2 * MIB));
    CHECK_EQ(ACC_RESULT_DECLINED, result_of(&f->area, &joined));
    leader = lead(&f->area, key);
    joined = join(&f->area, key);
    CHECK_STATUS(ACC_TOO_LARGE, finish_bytes(&f->area, key, &leader, value, ACC_VALUE_MAX));
    CHECK_EQ(ACC_RESULT_DECLINED, result_of(&f->area, &joined));
    leader = lead(&f->area, key);
    joined = join(&f->area, key);
    hand_bytes(&f->area, key, &leader, value, 2 * MIB);
    CHECK_EQ(ACC_RESULT_DECLINED, result_of(&f->area, &joined));
    free(value);
    end_fixture(f);
}

/* The shard's lock is not to be had: a try ends nothing; with a budget spent the flight has ended,
 * and the next leads. */
static void busy(void) {
    struct fixture *f = new_fixture();
    const struct acc_key *key = &f->key.key;
    const struct acc_write write = {
        .data = (const uint8_t *)"value", .size = 5, .code = ACC_CODE_BYTES};
    uint32_t shard = acc_home_of(f->seg, key->hash).shard;
    for (int hand = 0; hand < 2; hand++) {
        struct acc_ticket leader = lead(&f->area, key), joined = join(&f->area, key), none;
        enum acc_status (*end)(struct acc_area *, const struct acc_key *, struct acc_ticket *,
                               const struct acc_write *, uint64_t) =
            hand ? acc_load_hand : acc_load_finish;
        CHECK(acc_lock_take(f->seg, shard, 0));
        CHECK_STATUS(ACC_BUSY, enter_load(&f->area, key, &none));
        CHECK_EQ(ACC_NO_RECORD, none.record);
        CHECK_STATUS(ACC_BUSY, end(&f->area, key, &leader, &write, 0));
        CHECK(leader.leading && acc_flight_running(f->seg, &joined));
        CHECK_STATUS(hand ? ACC_OK : ACC_BUSY, end(&f->area, key, &leader, &write, 1000000));
        CHECK(!leader.leading && !acc_flight_running(f->seg, &joined));
        CHECK_EQ(hand ? ACC_RESULT_DECLINED : ACC_RESULT_FAILED, result_of(&f->area, &joined));
        /* Alone without the lock: it runs unrecorded. */
        CHECK_STATUS(ACC_OK, acc_load_alone(&f->area, key, 0, LEASE, 1000000, &none));
        CHECK(none.leading && none.record == ACC_NO_RECORD);
        acc_lock_give(f->seg, shard);
        CHECK_STATUS(ACC_NOT_STORED, finish_bytes(&f->area, key, &none, "value", 5));
    }
    end_fixture(f);
}

/* Two that nobody coordinates: the first is stored, the second has been overtaken by it. */
static void two_alone(void) {
    struct fixture *f = new_fixture();
    const struct acc_key *key = &f->key.key;
    struct acc_ticket first = load_alone(&f->area, key), second = load_alone(&f->area, key);
    struct acc_ticket leader = lead(&f->area, key); /* nobody joins those */
    CHECK_STATUS(ACC_OK, finish_bytes(&f->area, key, &first, "first", 5));
    CHECK_STATUS(ACC_NOT_STORED, finish_bytes(&f->area, key, &second, "second", 6));
    CHECK_STATUS(ACC_NOT_STORED, finish_bytes(&f->area, key, &leader, "third", 5));
    CHECK(has_value(&f->area, key, "first", 5));
    end_fixture(f);
}

/* --- pauses ----------------------------------------------------------------------------------- */

static void pauses(void) {
    struct fixture *f = new_fixture();
    const struct acc_key *key = &f->key.key;
    struct test_key other;
    CHECK(!acc_load_pausing(&f->area, key));
    acc_load_pause(&f->area, key, 100, ACC_LOCK_BUDGET_NS);
    CHECK(acc_load_pausing(&f->area, key));
    CHECK(!acc_load_pausing(&f->area, text_key(&f->area, &other, "another")));
    CHECK(!is_there(&f->area, key));
    f->seg->clock_shift += 101;
    CHECK(!acc_load_pausing(&f->area, key));
    acc_load_pause(&f->area, key, 100, ACC_LOCK_BUDGET_NS);
    CHECK(acc_load_pausing(&f->area, key));
    acc_area_clear(&f->area);
    CHECK(!acc_load_pausing(&f->area, key));
    end_fixture(f);
}

/* Notes are ours: no entries of the user's. */
static void notes_are_no_entries(void) {
    struct fixture *f = new_fixture();
    struct acc_totals totals;
    uint64_t *gauges = calloc(2 * (size_t)f->seg->geometry.areas, sizeof *gauges);
    struct test_key key;
    for (uint64_t number = 0; number < 10; number++) {
        number_key(&f->area, &key, number);
        acc_load_pause(&f->area, &key.key, 10000, ACC_LOCK_BUDGET_NS);
        CHECK(number >= 3 || set_bytes(&f->area, &key.key, "value", 5) == ACC_OK);
    }
    acc_maintenance_measure(f->seg, &totals, gauges, gauges + f->seg->geometry.areas);
    CHECK_EQ(3, totals.entries);
    CHECK_EQ(3, gauges[f->area.id]);
    CHECK(acc_load_pausing(&f->area, &key.key)); /* and the measurement leaves them */
    free(gauges);
    end_fixture(f);
}

/* --- locks ------------------------------------------------------------------------------------ */

static struct acc_ticket take_or_join(struct fixture *f) {
    struct acc_ticket ticket;
    CHECK_STATUS(ACC_OK, acc_load_enter(&f->area, &f->name.key, ACC_LOAD_JOIN, ACC_WINDOW_ALL,
                                        LEASE, ACC_LOCK_BUDGET_NS, &ticket));
    return ticket;
}

static struct acc_flight_info look_at(struct fixture *f, const struct acc_ticket *ticket) {
    struct acc_flight_info info;
    CHECK(acc_flight_look(f->seg, ticket->record, &info));
    return info;
}

/* Whatever happens to the key of the same text, to its neighbours or to the area: a lock is held by
 * who took it, and all others wait for him. */
static void lock_stays(void) {
    static void (*const happens[])(struct fixture *f) = {
        by_set, by_add, by_fill, by_alone, by_incr, by_delete, by_expire, by_clear, by_large_set};
    struct fixture *f = new_fixture();
    struct acc_ticket holder = take_or_join(f), leader = lead(&f->area, &f->key.key);
    CHECK(holder.leading && !holder.taken_over);
    for (size_t i = 0; i < sizeof happens / sizeof *happens; i++) {
        acc_delete(&f->area, &f->key.key);
        happens[i](f);
        acc_delete(&f->area, &f->name.key); /* nobody can: but another key may have its group */
        CHECK_STATUS(ACC_NOT_FOUND, acc_expire(&f->area, &f->name.key, ACC_LOCK_BUDGET_NS));
        struct acc_ticket waiting = take_or_join(f);
        CHECK(waiting.joined && !waiting.leading);
        CHECK_EQ(holder.record, waiting.record);
        CHECK_EQ(ACC_LEASE_HELD, acc_flight_lease(f->seg, &holder));
        CHECK(!acc_load_overtaken(&f->area, &f->name.key, &holder));
        struct acc_flight_info info = look_at(f, &holder);
        CHECK(info.locked && !info.overtaken && !info.alone);
        acc_flight_leave(f->seg, &waiting);
    }
    acc_segment_clear(f->seg);
    acc_segment_empty(f->seg);
    struct acc_ticket waiting = take_or_join(f);
    CHECK(waiting.joined);
    CHECK(!look_at(f, &leader).locked);
    acc_load_end(&f->area, &leader, ACC_RESULT_FAILED);
    CHECK(acc_flight_running(f->seg, &waiting));
    acc_load_end(&f->area, &holder, ACC_RESULT_FAILED);
    CHECK(!acc_flight_running(f->seg, &waiting));
    CHECK(take_or_join(f).leading);
    end_fixture(f);
}

/* What would store or hand over a value frees it, and does neither. */
static void lock_stores_nothing(void) {
    struct fixture *f = new_fixture();
    for (int i = 0; i < 2; i++) {
        struct acc_ticket holder = take_or_join(f), waiting = take_or_join(f);
        CHECK(holder.leading && waiting.joined);
        if (i == 0) {
            CHECK_STATUS(ACC_NOT_STORED, finish_bytes(&f->area, &f->name.key, &holder, "value", 5));
        } else {
            hand_bytes(&f->area, &f->name.key, &holder, "value", 5);
        }
        CHECK_EQ(ACC_RESULT_FAILED, result_of(&f->area, &waiting));
        CHECK(!takes(&f->area, &f->name.key, &waiting, "value", 5));
        CHECK(!is_there(&f->area, &f->name.key) && !is_there(&f->area, &f->key.key));
    }
    CHECK_EQ(0, live_records(f->seg));
    end_fixture(f);
}

/* Past the lease the next one gets it, and who held it can tell; what he does then has no effect. */
static void lock_lost(void) {
    struct fixture *f = new_fixture();
    struct acc_ticket former = take_or_join(f);
    f->seg->clock_shift += (int32_t)LEASE + 1;
    CHECK(!acc_load_overtaken(&f->area, &f->name.key, &former)); /* as long as nobody wants it */
    struct acc_ticket next = take_or_join(f);
    CHECK(next.leading && next.taken_over);
    CHECK(acc_load_overtaken(&f->area, &f->name.key, &former));
    acc_load_end(&f->area, &former, ACC_RESULT_FAILED);
    CHECK(take_or_join(f).joined);
    CHECK_EQ(ACC_LEASE_HELD, acc_flight_lease(f->seg, &next));
    acc_load_end(&f->area, &next, ACC_RESULT_FAILED);
    end_fixture(f);
}

/* --- latencies -------------------------------------------------------------------------------- */

/* On the bound is in the bucket; the last has none; over processes, also those that are gone. */
static void latencies(void) {
    struct fixture *f = new_fixture();
    uint64_t sums[ACC_LATENCY_SLOTS], sum = 0;
    for (uint32_t i = 0; i < ACC_LATENCY_BOUNDS; i++) {
        CHECK(i == 0 || acc_latency_bounds_us[i] > acc_latency_bounds_us[i - 1]);
        acc_stats_load(f->area.stats, acc_latency_bounds_us[i]);
        acc_stats_load(f->area.stats, acc_latency_bounds_us[i] + 1ull);
        sum += 2ull * acc_latency_bounds_us[i] + 1;
    }
    acc_stats_load(f->area.stats, 1ull << 40);
    sum += 1ull << 40;
    pid_t pid = fork_child();
    if (pid == 0) {
        CHECK(acc_area_enter(&f->area));
        acc_stats_load(f->area.stats, 0);
        _exit(0);
    }
    CHECK_EQ(0, wait_child(pid));
    acc_stats_sum_loads(f->seg, f->area.id, sums);
    CHECK_EQ(2, sums[0]);
    for (uint32_t i = 1; i < ACC_LATENCY_BOUNDS; i++) {
        CHECK_EQ(2, sums[i]);
    }
    CHECK_EQ(2, sums[ACC_LATENCY_BOUNDS]);
    CHECK_EQ(sum, sums[ACC_LATENCY_SLOTS - 1]);
    end_fixture(f);
}

RUN(60, TEST(overtaken), TEST(not_overtaken), TEST(refresh_overtaken), TEST(deleted_after_the_end),
    TEST(windows), TEST(handed), TEST(handed_to_nobody), TEST(taken_too_late),
    TEST(handed_is_garbage), TEST(declined_and_failed), TEST(too_large), TEST(busy),
    TEST(two_alone), TEST(pauses), TEST(notes_are_no_entries), TEST(lock_stays),
    TEST(lock_stores_nothing), TEST(lock_lost), TEST(latencies))
