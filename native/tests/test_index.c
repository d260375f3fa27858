/* The index: matching tags, two buckets, and words that anybody may clear. */
#include "harness.h"

static struct acc_segment *new_private(void) {
    struct acc_segment *seg;
    CHECK_STATUS(ACC_OK, acc_segment_private(2 * MIB, 256 << 10, &seg));
    return seg;
}

static void words(void) {
    const uint64_t offsets[] = {0, 1, 12345, ACC_OFFSET_MASK, ACC_OFFSET_MASK + 1, UINT64_MAX};
    for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
        for (uint32_t ring = 0; ring < 2; ring++) {
            uint64_t word = acc_word_make(0xabcd, ring, offsets[i]);
            CHECK_EQ(0xabcd, acc_word_tag(word));
            CHECK_EQ(ring, acc_word_ring(word));
            CHECK_EQ(offsets[i] & ACC_OFFSET_MASK, acc_word_offset(word));
        }
    }
}

/* The fast match against the plain one, with marks of all kinds beside the words. */
static void match(void) {
    _Alignas(64) struct acc_bucket bucket;
    struct chance chance = {17};
    for (int round = 0; round < 20000; round++) {
        uint16_t tags[3] = {1, 0xffff, (uint16_t)(random_bits(&chance) | 1)};
        uint16_t wanted = tags[random_below(&chance, 3)];
        uint32_t expected = 0;
        for (uint32_t i = 0; i < ACC_BUCKET_SLOTS; i++) {
            uint16_t tag = random_below(&chance, 3) == 0 ? 0 : tags[random_below(&chance, 3)];
            bucket.word[i] = tag == 0 ? 0 : acc_word_make(tag, i & 1, random_bits(&chance));
            expected |= (uint32_t)(tag == wanted) << (4 * i);
        }
        for (int i = 0; i < 8; i++) {
            bucket.mark[i] = (uint8_t)random_bits(&chance);
        }
        if (random_below(&chance, 2) == 0) {
            memset(bucket.mark, 0xff, 8);
        }
        CHECK_EQ(expected, acc_bucket_match(&bucket, wanted));
    }
}

/* No tag is 0, every shard and bucket is used, and the two buckets of a key are seldom one. */
static void homes(void) {
    struct acc_segment *seg;
    CHECK_STATUS(ACC_OK, acc_segment_private(2 * MIB, 16 << 10, &seg));
    uint32_t *used = calloc((size_t)seg->geometry.shards * seg->geometry.buckets, sizeof *used);
    struct chance chance = {19};
    int same = 0;
    for (int i = 0; i < 100000; i++) {
        struct acc_home home = acc_home_of(seg, random_bits(&chance));
        CHECK(home.shard < seg->geometry.shards);
        CHECK(home.tag != 0);
        const struct acc_bucket *first = acc_home_first(seg, &home);
        const struct acc_bucket *second = acc_home_second(seg, &home);
        CHECK(second >= acc_bucket(seg, home.shard, 0));
        CHECK(second < acc_bucket(seg, home.shard, seg->geometry.buckets));
        used[first - acc_bucket(seg, 0, 0)]++;
        same += first == second;
    }
    for (uint32_t i = 0; i < seg->geometry.shards * seg->geometry.buckets; i++) {
        CHECK(used[i] > 0);
    }
    CHECK(same < 100000 * 2 / (int)seg->geometry.buckets + 100);
    CHECK(acc_home_of(seg, 0).tag != 0);
    free(used);
    acc_segment_close(seg);
}

/* Fourteen words find room, each is found again, the fifteenth does not, and a cleared slot is
 * used. */
static void two_buckets(void) {
    struct acc_segment *seg = new_private();
    struct acc_home home = acc_home_of(seg, 0x123456789abcdef0ull);
    struct acc_slot slot;
    CHECK(acc_home_first(seg, &home) != acc_home_second(seg, &home));
    for (uint64_t n = 1; n <= 14; n++) {
        CHECK(acc_index_insert(seg, &home, acc_word_make(home.tag, 0, n), 2));
        for (uint64_t other = 1; other <= n; other++) {
            CHECK(acc_index_find(seg, &home, acc_word_make(home.tag, 0, other), &slot));
            CHECK_EQ(2, *acc_slot_mark(slot));
        }
    }
    CHECK(!acc_index_insert(seg, &home, acc_word_make(home.tag, 0, 15), 2));
    CHECK(!acc_index_find(seg, &home, acc_word_make(home.tag, 0, 15), &slot));
    CHECK(acc_index_find(seg, &home, acc_word_make(home.tag, 0, 9), &slot));
    acc_shard(seg, home.shard)->entries = 14;
    CHECK(acc_index_remove(seg, home.shard, slot, acc_word_make(home.tag, 0, 9)));
    CHECK(!acc_index_remove(seg, home.shard, slot, acc_word_make(home.tag, 0, 9)));
    CHECK_EQ(13, acc_shard(seg, home.shard)->entries);
    CHECK(acc_index_insert(seg, &home, acc_word_make(home.tag, 1, 15), 0));
    CHECK(acc_index_find(seg, &home, acc_word_make(home.tag, 1, 15), &slot));
    acc_segment_close(seg);
}

/* A lookup that needs one line, until something overflows. */
static void overflow(void) {
    struct acc_segment *seg = new_private();
    struct acc_home home = acc_home_of(seg, 0x123456789abcdef0ull);
    const struct acc_bucket *first = acc_home_first(seg, &home);
    uint64_t n = 1;
    while (!acc_bucket_overflowed(first)) {
        CHECK(n <= 7);
        CHECK_EQ(n - 1, (uint64_t)__builtin_popcount(acc_bucket_match(first, home.tag)));
        CHECK(acc_index_insert(seg, &home, acc_word_make(home.tag, 0, n), 0));
        n++;
    }
    CHECK_EQ(1, __builtin_popcount(acc_bucket_match(acc_home_second(seg, &home), home.tag)));
    acc_segment_close(seg);
}

/* A move that lost against a delete stores nothing. */
static void replace(void) {
    struct acc_segment *seg = new_private();
    struct acc_home home = acc_home_of(seg, 42);
    uint64_t old = acc_word_make(home.tag, 0, 1), new = acc_word_make(home.tag, 1, 2);
    struct acc_slot slot;
    CHECK(acc_index_insert(seg, &home, old, 3));
    CHECK(acc_index_find(seg, &home, old, &slot));
    CHECK(acc_index_replace(slot, old, new, 1));
    CHECK_EQ(1, *acc_slot_mark(slot));
    CHECK_EQ(new, *acc_slot_word(slot));
    CHECK(!acc_index_replace(slot, old, new, 0));
    CHECK(acc_index_remove(seg, home.shard, slot, new));
    CHECK(!acc_index_replace(slot, new, old, 0));
    CHECK_EQ(0, *acc_slot_word(slot));
    acc_segment_close(seg);
}

static void drop_ring(void) {
    struct acc_segment *seg = new_private();
    struct chance chance = {23};
    uint32_t small = 0, main = 0;
    for (uint64_t n = 0; n < 1000; n++) {
        struct acc_home home = acc_home_of(seg, random_bits(&chance));
        if (acc_index_insert(seg, &home, acc_word_make(home.tag, n & 1, n), 0)) {
            small += !(n & 1);
            main += n & 1;
        }
    }
    acc_shard(seg, 0)->entries = small + main;
    CHECK_EQ(small, acc_index_drop_ring(seg, 0, ACC_SMALL));
    CHECK_EQ(main, count_words(seg, 0));
    CHECK_EQ(main, acc_shard(seg, 0)->entries);
    CHECK_EQ(main, acc_index_drop_ring(seg, 0, ACC_MAIN));
    CHECK_EQ(0, count_words(seg, 0));
    acc_segment_close(seg);
}

static void marks(void) {
    uint8_t mark = 0;
    for (int hits = 1; hits < 6; hits++) {
        acc_mark_raise(&mark);
        CHECK_EQ(hits < 3 ? hits : 3, mark);
    }
    mark = 0xff; /* garbage */
    acc_mark_raise(&mark);
    CHECK_EQ(0xff, mark);
}

RUN(30, TEST(words), TEST(match), TEST(homes), TEST(two_buckets), TEST(overflow), TEST(replace),
    TEST(drop_ring), TEST(marks))
