/* How areas are configured: whole rows or none, whoever writes, and a count of what has changed. */
#include "harness.h"

#include "facts.h"

static void pattern(uint32_t number, uint32_t facts[ACC_FACTS]) {
    for (uint32_t i = 0; i < ACC_FACTS; i++) {
        facts[i] = number * 1000 + i;
    }
}

static bool is_pattern(const uint32_t facts[ACC_FACTS], uint32_t number) {
    uint32_t expected[ACC_FACTS];
    pattern(number, expected);
    return memcmp(expected, facts, sizeof expected) == 0;
}

static void written_and_read(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    uint32_t facts[ACC_FACTS], changed;
    CHECK(!acc_facts_read(seg, 0, facts, &changed));
    uint32_t last = seg->geometry.areas - 1;
    const uint32_t given[] = {1, 2, UINT32_MAX};
    acc_facts_write(seg, last, given, 3);
    CHECK(acc_facts_read(seg, last, facts, &changed));
    CHECK(memcmp(given, facts, sizeof given) == 0);
    for (uint32_t i = 3; i < ACC_FACTS; i++) {
        CHECK_EQ(0, facts[i]);
    }
    CHECK_EQ(0, changed);
    CHECK(!acc_facts_read(seg, last - 1, facts, &changed));
    acc_segment_close(seg);
}

/* The first is none, the same again is none, another one is. */
static void changes_are_counted(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    uint32_t facts[ACC_FACTS], changed;
    const uint32_t numbers[] = {1, 1, 2, 2, 1}, expected[] = {0, 0, 1, 1, 2};
    for (int i = 0; i < 5; i++) {
        pattern(numbers[i], facts);
        acc_facts_write(seg, 0, facts, ACC_FACTS);
        CHECK(acc_facts_read(seg, 0, facts, &changed));
        CHECK(is_pattern(facts, numbers[i]));
        CHECK_EQ(expected[i], changed);
    }
    acc_segment_close(seg);
}

/* Rows of zeros are facts, too. */
static void zeros(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    uint32_t facts[ACC_FACTS], changed;
    acc_facts_write(seg, 0, NULL, 0);
    CHECK(acc_facts_read(seg, 0, facts, &changed));
    acc_segment_close(seg);
}

/* Every damage of a word is noticed, and gone with the next write. */
static void damaged(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    uint32_t facts[ACC_FACTS], changed;
    for (uint32_t i = 0; i <= ACC_FACTS; i++) {
        pattern(7, facts);
        acc_facts_write(seg, 0, facts, ACC_FACTS);
        ((uint32_t *)acc_facts_row(seg, 0))[i] ^= 1u << i; /* the last one is the check */
        CHECK(!acc_facts_read(seg, 0, facts, &changed));
    }
    pattern(7, facts);
    acc_facts_write(seg, 0, facts, ACC_FACTS);
    CHECK(acc_facts_read(seg, 0, facts, &changed));
    *acc_facts_row(seg, 1) = *acc_facts_row(seg, 0); /* another area's */
    CHECK(!acc_facts_read(seg, 1, facts, &changed));
    acc_segment_close(seg);
}

/* Processes that write different things at once, some of which are killed: what is read is whole, and
 * when the last has written, something is there. */
static void written_at_once(void) {
    enum { WRITERS = 3, ROUNDS = 20 };
    const char *path = new_segment_file(2 * MIB, 64 << 10);
    struct acc_segment *seg = attach(path);
    uint32_t *words = shared_words(), whole = 0;
    for (int round = 0; round < ROUNDS; round++) {
        pid_t pids[WRITERS];
        for (uint32_t i = 0; i < WRITERS; i++) {
            pids[i] = fork_child();
            if (pids[i] == 0) {
                struct acc_segment *own = attach(path);
                uint32_t facts[ACC_FACTS];
                for (uint32_t n = 0;; n++) {
                    pattern(i + WRITERS * (n % 2), facts);
                    acc_facts_write(own, 0, facts, ACC_FACTS);
                    acc_add_relaxed(&words[0], 1u);
                }
            }
        }
        uint32_t began = acc_load_relaxed(&words[0]), facts[ACC_FACTS], changed;
        while (acc_load_relaxed(&words[0]) - began < 3000) {
            if (acc_facts_read(seg, 0, facts, &changed)) {
                whole++;
                CHECK(is_pattern(facts, facts[0] / 1000));
            }
        }
        for (int i = 0; i < WRITERS; i++) {
            kill_child(pids[i]);
        }
        pattern(9, facts);
        acc_facts_write(seg, 0, facts, ACC_FACTS);
        CHECK(acc_facts_read(seg, 0, facts, &changed));
        CHECK(is_pattern(facts, 9));
    }
    CHECK(whole > 0);
    munmap(words, 4096);
    acc_segment_close(seg);
}

RUN(60, TEST(written_and_read), TEST(changes_are_counted), TEST(zeros), TEST(damaged),
    TEST(written_at_once))
