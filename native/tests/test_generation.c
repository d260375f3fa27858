/* The generation words: a bump invalidates its own key's stamps, and as few of the neighbours' as
 * possible. */
#include "harness.h"

#define HASH(print) ((uint64_t)(print) << 16 | 0xabcd000000001234ull)

static void bump_invalidates_own_stamps(void) {
    uint64_t word = 0;
    for (uint32_t stamp = 0; stamp < 10; stamp++) {
        CHECK(acc_generation_valid(word, stamp, HASH(7)));
        CHECK_EQ(stamp, acc_generation_count(acc_generation_bump(&word, HASH(7))));
        CHECK(!acc_generation_valid(word, stamp, HASH(7)));
        CHECK_EQ(stamp + 1, acc_generation_count(word));
    }
}

/* A key that is deleted all the time costs its neighbours nothing. */
static void run_of_one_key(void) {
    uint64_t word = 0;
    acc_generation_bump(&word, HASH(1));
    uint32_t stamp = acc_generation_count(word);
    for (int i = 0; i < 1000; i++) {
        acc_generation_bump(&word, HASH(2));
        CHECK(acc_generation_valid(word, stamp, HASH(1)));
        CHECK(acc_generation_valid(word, stamp, HASH(3)));
        CHECK(!acc_generation_valid(word, stamp, HASH(2)));
    }
    /* Before the run: nothing is known any more. */
    CHECK(!acc_generation_valid(word, stamp - 1, HASH(1)));
    /* A second key's bump ends the run: what was stamped before it is lost, to be safe. */
    acc_generation_bump(&word, HASH(3));
    CHECK(!acc_generation_valid(word, stamp, HASH(1)));
    CHECK(acc_generation_valid(word, acc_generation_count(word) - 1, HASH(1)));
}

/* The run stands still at its largest number; beyond it stamps count as invalid, never as valid. */
static void run_is_full(void) {
    uint64_t word = 0;
    acc_generation_bump(&word, HASH(1));
    uint32_t stamp = acc_generation_count(word);
    for (int i = 0; i < UINT16_MAX; i++) {
        acc_generation_bump(&word, HASH(2));
    }
    CHECK(acc_generation_valid(word, stamp, HASH(1)));
    acc_generation_bump(&word, HASH(2));
    CHECK(!acc_generation_valid(word, stamp, HASH(1)));
    CHECK(acc_generation_valid(word, stamp + 1, HASH(1)));
    CHECK(!acc_generation_valid(word, stamp + 1, HASH(2)));
}

static void count_runs_over(void) {
    uint64_t word = (uint64_t)UINT32_MAX << 32;
    CHECK(acc_generation_valid(word, UINT32_MAX, HASH(1)));
    acc_generation_bump(&word, HASH(1));
    CHECK_EQ(0, acc_generation_count(word));
    CHECK(!acc_generation_valid(word, UINT32_MAX, HASH(1)));
    CHECK(acc_generation_valid(word, UINT32_MAX, HASH(2)));
    CHECK(acc_generation_valid(word, 0, HASH(1)));
    /* A stamp from the future, as garbage may be. */
    CHECK(!acc_generation_valid(word, 1, HASH(2)));
    CHECK(!acc_generation_valid(word, 0x80000000u, HASH(2)));
}

/* A fingerprint of 0, and a word that nobody has bumped. */
static void print_zero(void) {
    uint64_t word = 0;
    CHECK(acc_generation_valid(word, 0, HASH(0)));
    CHECK(!acc_generation_valid(word, UINT32_MAX, HASH(0)));
    CHECK(!acc_generation_valid(word, UINT32_MAX, HASH(1)));
    acc_generation_bump(&word, HASH(0));
    CHECK(!acc_generation_valid(word, 0, HASH(0)));
    CHECK(acc_generation_valid(word, 0, HASH(1)));
}

/* Against the definition: valid only if no bump since was the key's own, for all short histories of
 * three keys. */
static void never_valid_after_own_bump(void) {
    for (uint32_t history = 0; history < 6561; history++) { /* eight bumps of three keys */
        uint64_t word = 0, own_bumps[3] = {0}, h = history;
        uint32_t stamps[9];
        uint64_t own_at[9][3];
        stamps[0] = 0;
        memset(own_at[0], 0, sizeof own_at[0]);
        for (int step = 1; step <= 8; step++, h /= 3) {
            acc_generation_bump(&word, HASH(h % 3 + 10));
            own_bumps[h % 3]++;
            stamps[step] = acc_generation_count(word);
            memcpy(own_at[step], own_bumps, sizeof own_bumps);
        }
        for (int step = 0; step <= 8; step++) {
            for (uint64_t key = 0; key < 3; key++) {
                if (own_at[step][key] != own_bumps[key]) {
                    CHECK(!acc_generation_valid(word, stamps[step], HASH(key + 10)));
                }
            }
        }
    }
}

struct bumper {
    uint64_t *word;
    uint64_t hash;
};

static void *bump_often(void *argument) {
    const struct bumper *bumper = argument;
    for (int i = 0; i < 50000; i++) {
        acc_generation_bump(bumper->word, bumper->hash);
    }
    return NULL;
}

static void no_bump_is_lost(void) {
    uint64_t word = 0;
    pthread_t threads[4];
    struct bumper bumpers[4];
    for (uint64_t i = 0; i < 4; i++) {
        bumpers[i] = (struct bumper){&word, HASH(i / 2)};
        CHECK_EQ(0, pthread_create(&threads[i], NULL, bump_often, &bumpers[i]));
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    CHECK_EQ(200000, acc_generation_count(word));
}

static void index_is_in_range(void) {
    struct acc_segment *seg;
    CHECK_STATUS(ACC_OK, acc_segment_private(2 * MIB, 64 << 10, &seg));
    struct chance chance = {5};
    uint32_t least = UINT32_MAX, most = 0;
    for (int i = 0; i < 100000; i++) {
        uint32_t index = acc_generation_index(seg, random_bits(&chance));
        CHECK(index < seg->geometry.generations);
        least = index < least ? index : least;
        most = index > most ? index : most;
    }
    CHECK_EQ(0, least);
    CHECK_EQ(seg->geometry.generations - 1, most);
    acc_segment_close(seg);
}

RUN(30, TEST(bump_invalidates_own_stamps), TEST(run_of_one_key), TEST(run_is_full),
    TEST(count_runs_over), TEST(print_zero), TEST(never_valid_after_own_bump),
    TEST(no_bump_is_lost), TEST(index_is_in_range))
