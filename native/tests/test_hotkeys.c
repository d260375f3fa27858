/* The table of hot keys: it finds what is read most, tells how often, forgets, and never grows. */
#include "harness.h"

#include "hotkeys.h"

enum { KEYS = 20000, READERS = 4, TOP = 10, SHOWN = 20 };

/* Keys drawn as Zipf says (exponent 1): the n-th most often, with a chance of 1/n of the first. */
static double chance_below[KEYS];

static void make_zipf(void) {
    double sum = 0;
    for (int n = 0; n < KEYS; n++) {
        sum += 1.0 / (n + 1);
        chance_below[n] = sum;
    }
    for (int n = 0; n < KEYS; n++) {
        chance_below[n] /= sum;
    }
}

static double share_of(uint32_t n) {
    return chance_below[n] - (n == 0 ? 0 : chance_below[n - 1]);
}

static uint32_t draw_zipf(struct chance *chance) {
    double x = (double)(random_bits(chance) >> 11) / 9007199254740992.0;
    uint32_t low = 0, high = KEYS - 1;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (chance_below[middle] < x) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static uint64_t hash_of(uint32_t n) {
    return acc_remix(n + 1, 0xe7037ed1a0b428dbull);
}

/* Read as the binding does: most reads are not counted. */
static void read_zipf(struct acc_segment *seg, uint32_t reads, uint64_t seed) {
    struct chance chance = {seed};
    struct acc_hot_draw draw = {0};
    acc_hot_draw_next(&draw, random_bits(&chance));
    for (uint32_t i = 0; i < reads; i++) {
        uint32_t key = draw_zipf(&chance);
        if (--draw.left <= 0) {
            acc_hot_draw_next(&draw, random_bits(&chance));
            acc_hot_count(seg, 3, hash_of(key));
        }
    }
}

static void read_in_children(const char *path, uint32_t reads) {
    pid_t pids[READERS];
    for (int i = 0; i < READERS; i++) {
        pids[i] = fork_child();
        if (pids[i] == 0) {
            read_zipf(attach(path), reads, 1000u + (uint64_t)i);
            _exit(0);
        }
    }
    for (int i = 0; i < READERS; i++) {
        CHECK_EQ(0, wait_child(pids[i]));
    }
}

static const struct acc_hot_key *find(const struct acc_hot_key *keys, uint32_t n, uint64_t hash) {
    for (uint32_t i = 0; i < n; i++) {
        if (keys[i].hash == hash) {
            return &keys[i];
        }
    }
    return NULL;
}

static double square_root(double x) {
    double root = x < 1 ? 1 : x;
    for (int i = 0; i < 60; i++) {
        root = (root + x / root) / 2;
    }
    return root;
}

/* Four processes: each of the true top is among those shown, and its share of all reads is told to
 * within five times the error that there is in drawing so many. */
static void accuracy(uint64_t size, uint32_t top) {
    const uint32_t reads = 4000000;
    const char *path = new_segment_file(size, 64 << 10);
    struct acc_segment *seg = attach(path);
    struct acc_hot_key keys[SHOWN];
    read_in_children(path, reads);
    double total = acc_hot_total(seg), samples = (double)READERS * reads / ACC_HOT_SAMPLE;
    uint32_t n = acc_hot_top(seg, keys, SHOWN);
    CHECK_EQ(SHOWN, n);
    for (uint32_t i = 0; i < top; i++) {
        const struct acc_hot_key *key = find(keys, n, hash_of(i));
        CHECK(key != NULL);
        double expected = share_of(i) * samples, told = key->rate / total * samples;
        double error = told < expected ? expected - told : told - expected;
        CHECK(error <= 5 * square_root(expected));
        CHECK_EQ(3, key->area);
    }
    for (uint32_t i = 1; i < n; i++) {
        CHECK(keys[i].rate <= keys[i - 1].rate);
    }
    CHECK_EQ(hash_of(0), keys[0].hash);
    acc_segment_close(seg);
}

static void finds_the_top(void) {
    accuracy(64 * MIB, TOP);
}

/* Eighty entries for twenty thousand keys are enough for the hottest. */
static void finds_the_top_in_a_small_segment(void) {
    accuracy(2 * MIB, 5);
}

/* Every read has the same chance to be counted: the n-th of somebody who begins, too. */
static void drawn_alike(void) {
    enum { BEGINNERS = 200000, READS = 3000, PARTS = 3 };
    uint32_t counted[PARTS] = {0};
    struct chance chance = {7};
    for (int i = 0; i < BEGINNERS; i++) {
        struct acc_hot_draw draw = {0};
        acc_hot_draw_next(&draw, random_bits(&chance));
        for (int32_t at = draw.left; at <= READS; at += draw.left) {
            counted[(at - 1) / (READS / PARTS)]++;
            acc_hot_draw_next(&draw, random_bits(&chance));
        }
    }
    double expected = (double)BEGINNERS * READS / PARTS / ACC_HOT_SAMPLE;
    for (int i = 0; i < PARTS; i++) {
        CHECK(counted[i] > expected * 0.98 && counted[i] < expected * 1.02);
    }
}

static double rate_of(const struct acc_segment *seg, uint64_t hash) {
    struct acc_hot_key keys[SHOWN];
    const struct acc_hot_key *key = find(keys, acc_hot_top(seg, keys, SHOWN), hash);
    return key == NULL ? 0 : key->rate;
}

static void move_clock(struct acc_segment *seg, uint32_t ms) {
    seg->clock_shift += (int32_t)(ms / 1000 * ACC_UNITS_PER_SECOND);
}

/* To where a window has just begun, so that a test is over before it ends. */
static void begin_window(struct acc_segment *seg) {
    uint64_t into = acc_now_ns(seg) / 1000000 % ACC_HOT_WINDOW_MS;
    move_clock(seg, (uint32_t)(ACC_HOT_WINDOW_MS - into + 1000));
}

/* In the next window it still counts, in the one after that it does not. */
static void forgets(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    begin_window(seg);
    for (int i = 0; i < 600; i++) {
        acc_hot_count(seg, 1, 42);
    }
    double now = rate_of(seg, 42);
    CHECK(now > 0);
    move_clock(seg, ACC_HOT_WINDOW_MS);
    double later = rate_of(seg, 42);
    CHECK(later > 600.0 * ACC_HOT_SAMPLE / 60 && later < now);
    CHECK(acc_hot_total(seg) > 0);
    acc_hot_count(seg, 1, 42);
    CHECK(rate_of(seg, 42) > later);
    move_clock(seg, ACC_HOT_WINDOW_MS);
    CHECK(rate_of(seg, 42) < 2.0 * ACC_HOT_SAMPLE / 30); /* one was counted */
    CHECK(rate_of(seg, 42) > 0);
    move_clock(seg, ACC_HOT_WINDOW_MS);
    CHECK(rate_of(seg, 42) == 0);
    CHECK(acc_hot_total(seg) == 0);
    acc_segment_close(seg);
}

/* A million keys that are asked for once: the table has its size, its neighbours are as they were, and
 * what was hot before still is. */
static void bounded(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    const struct acc_geometry *g = &seg->geometry;
    uint64_t end = g->hot_at + sizeof(struct acc_hot_head) + g->hot * sizeof(struct acc_hot_bucket);
    CHECK(end <= g->flight_at);
    size_t before = g->hot_at - g->facts_at;
    uint8_t *copy = malloc(before);
    CHECK(copy != NULL);
    memset(seg->base + g->facts_at, 0x5a, before);
    memcpy(copy, seg->base + g->facts_at, before);
    begin_window(seg);
    for (int i = 0; i < 2000; i++) {
        acc_hot_count(seg, 1, 42);
    }
    struct chance chance = {5};
    for (int i = 0; i < 200000; i++) {
        acc_hot_count(seg, 1, random_bits(&chance));
    }
    struct acc_hot_key *keys = calloc(4096, sizeof *keys);
    CHECK(keys != NULL);
    uint32_t n = acc_hot_top(seg, keys, 4096);
    CHECK(n > acc_hot_entries(seg) / 2 && n <= acc_hot_entries(seg));
    CHECK_EQ(42, keys[0].hash);
    CHECK(memcmp(copy, seg->base + g->facts_at, before) == 0);
    for (uint64_t at = end; at < g->flight_at; at++) {
        CHECK_EQ(0, seg->base[at]);
    }
    free(keys);
    free(copy);
    acc_segment_close(seg);
}

/* A table full of garbage shows next to nothing, never an area that there cannot be, and serves. */
static void garbage(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    struct chance chance = {11};
    begin_window(seg);
    for (int round = 0; round < 200; round++) {
        uint64_t *words = (uint64_t *)acc_hot_head(seg);
        size_t n =
            (sizeof(struct acc_hot_head) + seg->geometry.hot * sizeof(struct acc_hot_bucket)) / 8;
        for (size_t i = 0; i < n; i++) {
            words[i] = random_bits(&chance) >> random_below(&chance, 64);
        }
        struct acc_hot_key keys[SHOWN];
        uint32_t shown = acc_hot_top(seg, keys, SHOWN);
        CHECK_EQ(0, shown); /* the checks have 44 bits */
        CHECK(acc_hot_total(seg) >= 0);
        for (int i = 0; i < 100; i++) {
            acc_hot_count(seg, 1, 42);
        }
        CHECK_EQ(1, acc_hot_top(seg, keys, SHOWN));
        CHECK_EQ(42, keys[0].hash);
        CHECK(keys[0].rate > 0);
    }
    acc_segment_close(seg);
}

/* Killed, or overtaken, between the stores that take an entry: it is nobody's, and the next one's. */
static void half_taken(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    begin_window(seg);
    acc_hot_count(seg, 1, 42);
    struct acc_hot_entry *entry = &acc_hot_bucket(seg, 0)->entry[0];
    CHECK_EQ(42, entry->hash);
    uint64_t count = entry->count, area = entry->area;
    entry->count = 0; /* before the new owner is stored */
    CHECK(rate_of(seg, 42) == 0);
    entry->hash = 43; /* half of him */
    entry->count = count;
    CHECK(rate_of(seg, 43) == 0);
    entry->hash = 42;
    entry->area = area + 1; /* of another area, with the check of this one */
    CHECK(rate_of(seg, 42) == 0);
    entry->area = area ^ 1ull << 40; /* of this area, with the check of none */
    CHECK(rate_of(seg, 42) == 0);
    acc_hot_count(seg, 1, 44);
    CHECK_EQ(44, entry->hash);
    CHECK(rate_of(seg, 44) > 0);
    acc_segment_close(seg);
}

static void fill_bucket(struct acc_segment *seg, uint32_t counts) {
    for (uint64_t hash = 1; hash <= ACC_HOT_WAYS; hash++) {
        acc_hot_count(seg, 1, hash);
        acc_hot_bucket(seg, 0)->entry[hash - 1].count += counts - 1;
    }
}

/* What has become hot gets into a bucket that is full of what is less so. */
static void comes_in(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    begin_window(seg);
    fill_bucket(seg, 2);
    for (int i = 0; i < 100; i++) {
        acc_hot_count(seg, 1, 42);
    }
    struct acc_hot_key keys[SHOWN];
    CHECK_EQ(ACC_HOT_WAYS, acc_hot_top(seg, keys, SHOWN));
    CHECK_EQ(42, keys[0].hash);
    CHECK(rate_of(seg, 42) > 10 * keys[1].rate);
    acc_segment_close(seg);
}

/* What is read once does not push out what is hot, not even the least of it. */
static void stays(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    begin_window(seg);
    fill_bucket(seg, 500000);
    for (uint64_t hash = 100; hash < 150; hash++) {
        acc_hot_count(seg, 1, hash);
    }
    for (uint64_t hash = 1; hash <= ACC_HOT_WAYS; hash++) {
        CHECK(rate_of(seg, hash) > 0);
    }
    acc_segment_close(seg);
}

/* Two who took places for one key at once: it is shown once, with what both have counted. */
static void taken_twice(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    begin_window(seg);
    acc_hot_count(seg, 1, 42);
    double once = rate_of(seg, 42);
    struct acc_hot_bucket *bucket = acc_hot_bucket(seg, 0);
    bucket->entry[3] = bucket->entry[0];
    struct acc_hot_key keys[SHOWN];
    CHECK_EQ(1, acc_hot_top(seg, keys, SHOWN));
    CHECK(keys[0].rate == 2 * once);
    acc_segment_close(seg);
}

/* The same hash in two areas is two keys; no area is one that there cannot be. */
static void areas_are_apart(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    begin_window(seg);
    acc_hot_count(seg, 1, 42);
    acc_hot_count(seg, 2, 42);
    acc_hot_count(seg, 2, 42);
    struct acc_hot_key keys[SHOWN];
    CHECK_EQ(2, acc_hot_top(seg, keys, SHOWN));
    CHECK_EQ(2, keys[0].area);
    CHECK_EQ(1, keys[1].area);
    CHECK(keys[0].rate == 2 * keys[1].rate);
    CHECK_EQ(1, acc_hot_top(seg, keys, 1));
    acc_segment_close(seg);
}

/* A count that cannot rise any more stays, and spoils none of its neighbours in the word. */
static void saturates(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    begin_window(seg);
    acc_hot_count(seg, 1, 42);
    struct acc_hot_entry *entry = &acc_hot_bucket(seg, 0)->entry[0];
    entry->count |= 0xfffff;
    uint64_t full = entry->count;
    acc_hot_count(seg, 1, 42);
    CHECK_EQ(full, entry->count);
    acc_segment_close(seg);
}

/* Whoever cannot store counts nothing. */
static void read_only(void) {
    const char *path = new_segment_file(2 * MIB, 64 << 10);
    struct acc_segment *seg = attach(path), *mapped;
    acc_hot_count(seg, 1, 42);
    CHECK_STATUS(ACC_OK, acc_segment_map(open_file(path), 2 * MIB, true, &mapped));
    acc_hot_count(mapped, 1, 43);
    CHECK(rate_of(mapped, 42) > 0);
    CHECK(rate_of(mapped, 43) == 0);
    acc_segment_close(mapped);
    acc_segment_close(seg);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        TEST(finds_the_top),   TEST(finds_the_top_in_a_small_segment),
        TEST(drawn_alike),     TEST(forgets),
        TEST(bounded),         TEST(garbage),
        TEST(half_taken),      TEST(taken_twice),
        TEST(comes_in),        TEST(stays),
        TEST(areas_are_apart), TEST(saturates),
        TEST(read_only)};
    make_zipf();
    return run_tests(tests, sizeof tests / sizeof *tests, 60, argc, argv);
}
