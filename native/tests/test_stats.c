/* Counter blocks: one a process and area, continued after a death, never lost and never shared. */
#include "harness.h"

static uint64_t sum_of(struct acc_segment *seg, uint32_t area, enum acc_counter which) {
    uint64_t counters[ACC_COUNTERS];
    acc_stats_sum(seg, area, counters);
    return counters[which];
}

static uint32_t blocks_of(const struct acc_segment *seg, uint32_t area) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < seg->geometry.stats; i++) {
        n += acc_stats_block(seg, i)->area == area + 1;
    }
    return n;
}

static void names(void) {
    for (int i = 0; i < ACC_COUNTERS; i++) {
        CHECK(acc_counter_names[i] != NULL);
        for (int other = 0; other < i; other++) {
            CHECK(strcmp(acc_counter_names[i], acc_counter_names[other]) != 0);
        }
    }
}

static void one_block_an_area(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    struct acc_stats *a = acc_stats_of(seg, 0), *b = acc_stats_of(seg, 1);
    CHECK(a != b);
    CHECK(a == acc_stats_of(seg, 0));
    CHECK_EQ(acc_incarnation(seg), a->owner);
    acc_count(a, ACC_LOCAL_HIT);
    acc_count(a, ACC_OBJECT_HIT);
    acc_count(b, ACC_LOCAL_MISS);
    CHECK_EQ(2, sum_of(seg, 0, ACC_LOCAL_HIT)); /* an object hit is a local hit too */
    CHECK_EQ(1, sum_of(seg, 0, ACC_OBJECT_HIT));
    CHECK_EQ(0, sum_of(seg, 0, ACC_LOCAL_MISS));
    CHECK_EQ(1, sum_of(seg, 1, ACC_LOCAL_MISS));
    CHECK_EQ(0, sum_of(seg, 2, ACC_LOCAL_HIT));
    acc_segment_close(seg);
}

static int count_and_die(void *argument) {
    struct acc_segment *seg = attach(argument);
    for (uint32_t area = 0; area < 3; area++) {
        acc_count(acc_stats_of(seg, area), ACC_SET_TOTAL);
    }
    kill(getpid(), SIGKILL);
    return 0;
}

/* Hundreds of workers that are killed leave their counts and use up no blocks. */
static void continued_after_death(void) {
    const char *path = new_segment_file(2 * MIB, 64 << 10);
    struct acc_segment *seg = attach(path);
    for (uint64_t n = 1; n <= 200; n++) {
        CHECK_EQ(128 + SIGKILL, in_child(count_and_die, (void *)(uintptr_t)path));
        for (uint32_t area = 0; area < 3; area++) {
            CHECK_EQ(n, sum_of(seg, area, ACC_SET_TOTAL));
            CHECK_EQ(1, blocks_of(seg, area));
        }
    }
    acc_segment_close(seg);
}

/* Killed between the two stores of a claim: the block is the area's, and the next one's. */
static void half_claimed(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    acc_stats_block(seg, 0)->area = 5 + 1;
    CHECK(acc_stats_of(seg, 5) == acc_stats_block(seg, 0));
    CHECK_EQ(acc_incarnation(seg), acc_stats_block(seg, 0)->owner);
    acc_segment_close(seg);
}

/* No block left: counts go nowhere, and that is counted. */
static void table_is_full(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    for (uint32_t i = 0; i < seg->geometry.stats; i++) {
        acc_stats_block(seg, i)->area = 1000;
    }
    struct acc_stats *lost = acc_stats_of(seg, 3);
    CHECK(lost == &seg->lost_stats);
    acc_count(lost, ACC_SET_TOTAL);
    CHECK_EQ(0, sum_of(seg, 3, ACC_SET_TOTAL));
    CHECK_EQ(1, acc_header(seg)->stats_lost);
    acc_segment_close(seg);
}

enum { CLAIMERS = 6, AREAS = 10 };

static void claim_all(const char *path, uint32_t *words, uint64_t seed) {
    struct acc_segment *seg = attach(path);
    struct chance chance = {seed};
    reach(&words[1 + seed], 1);
    await(&words[0], 1);
    for (int n = 0; n < 2000; n++) {
        acc_count(acc_stats_of(seg, random_below(&chance, AREAS)), ACC_LOAD);
    }
    for (uint32_t area = 0; area < AREAS; area++) {
        CHECK_EQ(acc_incarnation(seg), acc_stats_of(seg, area)->owner);
    }
    _exit(0);
}

/* Many at once, over blocks of the dead and free ones: each has its own, and nothing is lost. */
static void claimed_at_once(void) {
    uint64_t expected = 0;
    const char *path = new_segment_file(2 * MIB, 64 << 10);
    for (int round = 0; round < 10; round++) {
        uint32_t *words = shared_words();
        pid_t pids[CLAIMERS];
        for (uint64_t i = 0; i < CLAIMERS; i++) {
            pids[i] = fork_child();
            if (pids[i] == 0) {
                claim_all(path, words, i);
            }
        }
        for (int i = 0; i < CLAIMERS; i++) {
            await(&words[1 + i], 1);
        }
        reach(&words[0], 1);
        for (int i = 0; i < CLAIMERS; i++) {
            CHECK_EQ(0, wait_child(pids[i]));
        }
        munmap(words, 4096);
        expected += CLAIMERS * 2000;
        struct acc_segment *seg = attach(path);
        uint64_t sum = 0;
        for (uint32_t area = 0; area < AREAS; area++) {
            sum += sum_of(seg, area, ACC_LOAD);
            CHECK(blocks_of(seg, area) <= CLAIMERS + 2);
        }
        CHECK_EQ(expected, sum);
        CHECK_EQ(0, acc_header(seg)->stats_lost);
        acc_segment_close(seg);
    }
}

RUN(60, TEST(names), TEST(one_block_an_area), TEST(continued_after_death), TEST(half_claimed),
    TEST(table_is_full), TEST(claimed_at_once))
