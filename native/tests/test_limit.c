/* The limiter: one line a kind and interval, whoever writes it, and none that is not counted. */
#include "harness.h"
#include "limit.h"

static const uint64_t SECOND = 1000000000;

static uint64_t kind_of(uint64_t n) {
    return (n + 1) * 0x9e3779b97f4a7c15ull;
}

static void pass(struct acc_segment *seg, double seconds) {
    seg->clock_shift += (int32_t)(seconds * ACC_UNITS_PER_SECOND);
}

static void one_an_interval(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    CHECK_EQ(0, acc_limit_allowed(seg, kind_of(1), SECOND));
    for (int i = 0; i < 5; i++) {
        CHECK_EQ(-1, acc_limit_allowed(seg, kind_of(1), SECOND));
    }
    CHECK_EQ(0, acc_limit_allowed(seg, kind_of(2), SECOND));
    pass(seg, 0.8);
    CHECK_EQ(-1, acc_limit_allowed(seg, kind_of(1), SECOND));
    pass(seg, 0.4);
    CHECK_EQ(6, acc_limit_allowed(seg, kind_of(1), SECOND));
    pass(seg, 1.2);
    CHECK_EQ(0, acc_limit_allowed(seg, kind_of(1), SECOND));
    acc_segment_close(seg);
}

/* A kind whose hash is all zeros is one as any other. */
static void zero(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    const uint64_t long_ns = 100 * 86400 * SECOND; /* longer than this machine runs */
    CHECK_EQ(0, acc_limit_allowed(seg, 0, long_ns));
    CHECK_EQ(-1, acc_limit_allowed(seg, 0, long_ns));
    acc_segment_close(seg);
}

/* A set that is full lets its oldest go: a new kind is never kept back. */
static void full(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    for (uint64_t n = 1; n <= 2 * ACC_LIMIT_WAYS; n++) {
        CHECK_EQ(0, acc_limit_allowed(seg, n << 40 | 5, 3600 * SECOND));
        pass(seg, 1);
    }
    for (uint64_t n = ACC_LIMIT_WAYS + 1; n <= 2 * ACC_LIMIT_WAYS; n++) {
        CHECK_EQ(-1, acc_limit_allowed(seg, n << 40 | 5, 3600 * SECOND));
    }
    CHECK_EQ(0, acc_limit_allowed(seg, 1ull << 40 | 5, 3600 * SECOND));
    acc_segment_close(seg);
}

static void counts_end_somewhere(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    for (int i = 0; i < 70000; i++) {
        CHECK_EQ(i == 0 ? 0 : -1, acc_limit_allowed(seg, kind_of(1), 3600 * SECOND));
    }
    pass(seg, 3601);
    CHECK_EQ(65535, acc_limit_allowed(seg, kind_of(1), 3600 * SECOND));
    acc_segment_close(seg);
}

/* Four processes at once: of all their calls about a kind one is allowed, and the next line tells of
 * the rest. */
static void many_processes(void) {
    enum { PROCESSES = 4, KINDS = 60, CALLS = 3000 };
    const char *path = new_segment_file(2 * MIB, 1024);
    uint32_t *words = shared_words();
    pid_t pids[PROCESSES];
    for (int i = 0; i < PROCESSES; i++) {
        pids[i] = fork_child();
        if (pids[i] == 0) {
            struct acc_segment *seg = map_file(path);
            acc_add_relaxed(&words[0], 1u);
            await(&words[0], PROCESSES);
            for (int n = 0; n < KINDS * CALLS; n++) {
                uint64_t kind = (uint64_t)(n / CALLS);
                int64_t answer = acc_limit_allowed(seg, kind_of(kind), 3600 * SECOND);
                acc_add_relaxed(&words[1], (uint32_t)(answer >= 0));
            }
            _exit(0);
        }
    }
    for (int i = 0; i < PROCESSES; i++) {
        CHECK_EQ(0, wait_child(pids[i]));
    }
    CHECK_EQ(KINDS, words[1]);
    struct acc_segment *seg = map_file(path);
    pass(seg, 3601);
    for (uint64_t kind = 0; kind < KINDS; kind++) {
        CHECK_EQ(PROCESSES * CALLS - 1, acc_limit_allowed(seg, kind_of(kind), 3600 * SECOND));
    }
    munmap(words, 4096);
    acc_segment_close(seg);
}

static void garbage(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 1024);
    struct chance chance = {1};
    for (int i = 0; i < 5000; i++) {
        acc_limit_set(seg, random_below(&chance, ACC_LIMIT_SETS))
            ->word[random_below(&chance, ACC_LIMIT_WAYS)] =
            random_bits(&chance) >> random_below(&chance, 64);
        acc_limit_allowed(seg, random_bits(&chance), SECOND);
    }
    memset(acc_limit_set(seg, 0), 0xff, ACC_LIMIT_SETS * sizeof(struct acc_limits));
    CHECK_EQ(0, acc_limit_allowed(seg, kind_of(1), SECOND));
    CHECK_EQ(-1, acc_limit_allowed(seg, kind_of(1), SECOND));
    acc_segment_close(seg);
}

RUN(60, TEST(one_an_interval), TEST(zero), TEST(full), TEST(counts_end_somewhere),
    TEST(many_processes), TEST(garbage))
