/* The tick and the measurement: gauges, what is forgotten, and garbage in what they go by. */
#include "harness.h"

static struct acc_totals measure(struct acc_segment *seg) {
    struct acc_totals totals;
    acc_maintenance_measure(seg, &totals, NULL, NULL);
    return totals;
}

static void put_until(struct acc_area *area, uint64_t number, uint32_t expire_at,
                      uint32_t stale_until) {
    struct test_key key;
    const struct acc_write write = {.data = (const uint8_t *)"0123456789",
                                    .size = 10,
                                    .code = ACC_CODE_BYTES,
                                    .expire_at = expire_at,
                                    .stale_until = stale_until};
    number_key(area, &key, number);
    CHECK_STATUS(ACC_OK, acc_store(area, &key.key, &write, ACC_LOCK_BUDGET_NS));
}

/* What is live is counted, in all and by area; dead, cleared and expired items are not. */
static void gauges(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    hold_measurement(seg);
    struct acc_area a = open_area(seg, "a"), b = open_area(seg, "b");
    uint32_t now = acc_now(seg);
    for (uint64_t number = 0; number < 100; number++) {
        put_until(&a, number, 0, 0);
        put_until(&b, number, number < 50 ? now + 1000 : 0, number < 20 ? now + 10000 : 0);
    }
    uint64_t bytes = acc_units_of(40 + 9 + 10) * ACC_UNIT;
    struct acc_totals totals = measure(seg);
    CHECK_EQ(200, totals.entries);
    CHECK_EQ(200 * bytes, totals.live_bytes);
    CHECK_EQ(200 * bytes, totals.used_bytes);
    CHECK(totals.data_bytes > seg->geometry.size * 8 / 10);
    seg->clock_shift += 1100;
    struct test_key key;
    acc_delete(&a, number_key(&a, &key, 7));
    acc_segment_measure(seg);
    CHECK_EQ(99, acc_area_slot(seg, a.id)->entries);
    CHECK_EQ(99 * bytes, acc_area_slot(seg, a.id)->bytes);
    CHECK_EQ(70, acc_area_slot(seg, b.id)->entries); /* 20 are stale, which is live */
    acc_area_clear(&b);
    acc_segment_measure(seg);
    CHECK_EQ(0, acc_area_slot(seg, b.id)->entries);
    CHECK_EQ(0, acc_area_slot(seg, b.id)->bytes);
    CHECK_EQ(99, measure(seg).entries);
    acc_segment_close(seg);
}

/* Words of what nobody can read any more are cleared: cleared areas, half deletes, what expired over an hour ago. */
static void forgotten(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 256 << 10);
    hold_measurement(seg);
    struct acc_area area = open_area(seg, "area");
    uint32_t now = acc_now(seg);
    put_until(&area, 1, now + 1000, 0);
    put_until(&area, 2, now + 1000, now + 100000);
    put_until(&area, 3, 0, 0);
    put_until(&area, 4, 0, 0);
    struct test_key key;
    uint64_t hash = number_key(&area, &key, 4)->hash;
    acc_generation_bump(acc_generation_word(seg, acc_generation_index(seg, hash)), hash);
    acc_segment_measure(seg);
    CHECK_EQ(3, count_words(seg, 0));
    seg->clock_shift += 2000;
    acc_segment_measure(seg);
    CHECK_EQ(3, count_words(seg, 0)); /* expired, but not for long */
    seg->clock_shift += 3600 * (int32_t)ACC_UNITS_PER_SECOND;
    acc_segment_measure(seg);
    CHECK_EQ(2, count_words(seg, 0)); /* the second was stale a while longer */
    seg->clock_shift += 100000;
    acc_segment_measure(seg);
    CHECK_EQ(1, count_words(seg, 0));
    CHECK_EQ(1, acc_shard(seg, 0)->entries);
    acc_area_clear(&area);
    acc_segment_measure(seg);
    CHECK_EQ(0, count_words(seg, 0));
    acc_segment_close(seg);
}

/* What has expired stays so for as long as anyone may leave it unmeasured: the circle is long. */
static void never_back_to_life(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 256 << 10);
    hold_measurement(seg);
    struct acc_area area = open_area(seg, "area");
    struct test_key key;
    number_key(&area, &key, 1);
    put_until(&area, 1, acc_now(seg) + 10, 0);
    for (int day = 0; day < 2 * 200; day++) {
        uint32_t half_a_day = 86400 / 2 * ACC_UNITS_PER_SECOND;
        seg->clock_shift = (int32_t)((uint32_t)seg->clock_shift + half_a_day);
        acc_segment_measure(seg);
        CHECK(!is_there(&area, &key.key));
    }
    acc_segment_close(seg);
}

/* Garbage words, and words of items that have left their ring, are cleared. */
static void garbage_words(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 256 << 10);
    hold_measurement(seg);
    struct acc_area area = open_area(seg, "area");
    struct chance chance = {41};
    for (uint64_t number = 0; number < 50; number++) {
        put_until(&area, number, 0, 0);
    }
    for (int n = 0; n < 500; n++) {
        struct acc_bucket *bucket =
            acc_bucket(seg, 0, random_below(&chance, seg->geometry.buckets));
        uint64_t *word = &bucket->word[random_below(&chance, ACC_BUCKET_SLOTS)];
        if (*word == 0) {
            *word = random_bits(&chance) >> random_below(&chance, 50);
        }
    }
    CHECK(acc_maintenance_check(seg, ignore_violation, NULL) > 0);
    acc_segment_measure(seg);
    CHECK_EQ(50, count_words(seg, 0));
    CHECK_EQ(50, acc_shard(seg, 0)->entries);
    CHECK_SEGMENT(seg);
    acc_shard(seg, 0)->ring[ACC_SMALL].head = acc_shard(seg, 0)->ring[ACC_SMALL].tail;
    acc_segment_measure(seg);
    CHECK_EQ(0, count_words(seg, 0));
    acc_segment_close(seg);
}

/* One process measures about once a second; a time that is garbage, or its who died, is got over. */
static void election(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    uint64_t *due = &acc_header(seg)->measured_at;
    const uint64_t garbage[] = {0, 1, UINT64_MAX, UINT64_MAX / 2, 1ull << 40};
    for (size_t i = 0; i < sizeof garbage / sizeof *garbage; i++) {
        acc_store_relaxed(due, garbage[i]);
        acc_maintenance_tick(seg);
        uint64_t now = acc_clock_ms(), next = acc_load_relaxed(due);
        CHECK(next > now && next - now <= 70000);
    }
    acc_segment_close(seg);
}

struct beside {
    struct acc_segment *seg;
    uint32_t stop;
};

static void *measure_often(void *argument) {
    struct beside *beside = argument;
    while (!acc_load_relaxed(&beside->stop)) {
        acc_segment_measure(beside->seg);
    }
    return NULL;
}

/* Measured beside writes that move, rewrite and delete: nothing live is cleared. */
static void beside_writes(void) {
    struct beside beside = {.seg = new_segment(2 * MIB, 256 << 10)};
    struct acc_segment *seg = beside.seg;
    hold_measurement(seg);
    struct acc_area area = open_area(seg, "area");
    struct chance chance = {43};
    pthread_t thread;
    uint8_t value[3000];
    struct test_key key;
    CHECK_EQ(0, pthread_create(&thread, NULL, measure_often, &beside));
    memset(value, 1, sizeof value);
    for (int n = 0; n < (UNDER_TSAN ? 5000 : 100000); n++) {
        number_key(&area, &key, random_below(&chance, 2000));
        if (random_below(&chance, 10) == 0) {
            acc_delete(&area, &key.key);
            CHECK(!is_there(&area, &key.key));
        } else {
            uint32_t size = random_below(&chance, sizeof value);
            CHECK_STATUS(ACC_OK, set_bytes(&area, &key.key, value, size));
            CHECK(is_there(&area, &key.key));
        }
    }
    acc_store_relaxed(&beside.stop, 1u);
    pthread_join(thread, NULL);
    CHECK_SEGMENT(seg);
    CHECK_EQ(0, acc_shard(seg, 0)->resets);
    acc_segment_close(seg);
}

RUN(60, TEST(gauges), TEST(forgotten), TEST(never_back_to_life), TEST(garbage_words),
    TEST(election), TEST(beside_writes))
