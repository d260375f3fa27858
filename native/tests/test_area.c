/* Areas: one slot a name, for all processes the same. */
#include "harness.h"

static void same_name_same_slot(void) {
    const char *path = new_segment_file(2 * MIB, 64 << 10);
    struct acc_segment *seg = attach(path), *other = map_file(path);
    struct acc_area a, b, c, d;
    CHECK_STATUS(ACC_OK, acc_area_open(seg, "users", 5, &a));
    CHECK_STATUS(ACC_OK, acc_area_open(seg, "user", 4, &b));
    CHECK_STATUS(ACC_OK, acc_area_open(seg, "users\0x", 7, &c));
    CHECK_STATUS(ACC_OK, acc_area_open(other, "users", 5, &d)); /* known: needs no entering */
    CHECK_EQ(a.id, d.id);
    CHECK(a.id != b.id && a.id != c.id && b.id != c.id);
    CHECK_EQ(0, acc_incarnation(other));
    acc_segment_close(other);
    acc_segment_close(seg);
}

static void names_refused(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    struct acc_area area;
    char name[ACC_AREA_NAME_MAX + 1];
    memset(name, 'n', sizeof name);
    CHECK_STATUS(ACC_TOO_LARGE, acc_area_open(seg, "", 0, &area));
    CHECK_STATUS(ACC_TOO_LARGE, acc_area_open(seg, name, sizeof name, &area));
    CHECK_STATUS(ACC_OK, acc_area_open(seg, name, sizeof name - 1, &area));
    acc_segment_close(seg);
}

static void slots_are_full(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    struct acc_area area;
    uint64_t seen = 0;
    for (uint64_t n = 0; n < seg->geometry.areas; n++) {
        CHECK_STATUS(ACC_OK, acc_area_open(seg, (const char *)&n, sizeof n, &area));
        CHECK(area.id < 64 && !(seen & 1ull << area.id));
        seen |= 1ull << area.id;
    }
    CHECK_EQ(64, seg->geometry.areas);
    CHECK_STATUS(ACC_FULL, acc_area_open(seg, "one more", 8, &area));
    uint64_t known = 17;
    CHECK_STATUS(ACC_OK, acc_area_open(seg, (const char *)&known, sizeof known, &area));
    acc_segment_close(seg);
}

/* Killed while filling a slot, under the lock of areas: the slot is free, the lock is taken over. */
static void half_claimed(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    struct acc_area area;
    for (uint32_t i = 0; i < seg->geometry.areas; i++) {
        memcpy(acc_area_slot(seg, i)->name, "garbage", 7);
        acc_area_slot(seg, i)->name_size = 7;
    }
    acc_store_relaxed(acc_lock_word(seg, ACC_LOCK_AREAS), 4242u);
    CHECK_STATUS(ACC_OK, acc_area_open(seg, "area", 4, &area));
    CHECK_EQ(4, acc_area_slot(seg, area.id)->name_size);
    CHECK_STATUS(ACC_OK, acc_area_open(seg, "garbage", 7, &area));
    CHECK_EQ(1, acc_area_slot(seg, area.id)->state);
    acc_segment_close(seg);
}

enum { OPENERS = 4, NAMES = 40 };

static void open_all(const char *path, uint32_t *words, uint64_t seed) {
    struct acc_segment *seg = attach(path);
    struct chance chance = {seed};
    reach(&words[1 + seed], 1);
    await(&words[0], 1);
    for (int n = 0; n < 500; n++) {
        struct acc_area area;
        uint64_t name = random_below(&chance, NAMES);
        CHECK_STATUS(ACC_OK, acc_area_open(seg, (const char *)&name, sizeof name, &area));
        uint32_t seen = acc_load_relaxed(&words[100 + name]);
        if (seen == 0 && acc_cas32(&words[100 + name], 0, area.id + 1)) {
            continue;
        }
        CHECK_EQ(acc_load_relaxed(&words[100 + name]), area.id + 1);
    }
    _exit(0);
}

static void opened_at_once(void) {
    for (int round = 0; round < 10; round++) {
        const char *path = new_segment_file(2 * MIB, 64 << 10);
        uint32_t *words = shared_words();
        pid_t pids[OPENERS];
        for (uint64_t i = 0; i < OPENERS; i++) {
            pids[i] = fork_child();
            if (pids[i] == 0) {
                open_all(path, words, i);
            }
        }
        for (int i = 0; i < OPENERS; i++) {
            await(&words[1 + i], 1);
        }
        reach(&words[0], 1);
        for (int i = 0; i < OPENERS; i++) {
            CHECK_EQ(0, wait_child(pids[i]));
        }
        struct acc_segment *seg = map_file(path);
        uint32_t claimed = 0;
        for (uint32_t i = 0; i < seg->geometry.areas; i++) {
            claimed += acc_area_slot(seg, i)->state == 1;
        }
        CHECK_EQ(NAMES, claimed);
        munmap(words, 4096);
        acc_segment_close(seg);
    }
}

/* The same key in two areas is two keys; a clear ends one area's and leaves the other's. */
static void areas_are_apart(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    struct acc_area a = open_area(seg, "a"), b = open_area(seg, "b");
    struct test_key in_a, in_b;
    uint8_t buffer[8];
    text_key(&a, &in_a, "key");
    text_key(&b, &in_b, "key");
    CHECK_STATUS(ACC_OK, set_bytes(&a, &in_a.key, "A", 1));
    CHECK_STATUS(ACC_OK, set_bytes(&b, &in_b.key, "B", 1));
    CHECK_STATUS(ACC_OK, read_key(&a, &in_a.key, buffer, sizeof buffer, false).status);
    CHECK_EQ('A', buffer[0]);
    uint32_t token_key, token_area;
    acc_token(&a, &in_a.key, &token_key, &token_area);
    acc_area_clear(&a);
    CHECK(!is_there(&a, &in_a.key));
    CHECK(is_there(&b, &in_b.key));
    const struct acc_write fill = {.data = buffer,
                                   .size = 1,
                                   .mode = ACC_FILL,
                                   .has_token = true,
                                   .token_key = token_key,
                                   .token_area = token_area};
    CHECK_STATUS(ACC_NOT_STORED, acc_store(&a, &in_a.key, &fill, ACC_LOCK_BUDGET_NS));
    acc_segment_close(seg);
}

/* Entered means under the identity of now: not in a child, not after leaving, not after a fence. */
static void entered(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    struct acc_area area;
    CHECK_STATUS(ACC_OK, acc_area_open(seg, "area", 4, &area));
    CHECK(!acc_area_entered(&area));
    CHECK(acc_area_enter(&area));
    CHECK(acc_area_entered(&area));
    pid_t pid = fork_child();
    if (pid == 0) {
        _exit(acc_area_entered(&area) ? 1 : 0);
    }
    CHECK_EQ(0, wait_child(pid));
    acc_segment_unregister(seg);
    CHECK(!acc_area_entered(&area));
    CHECK(acc_area_enter(&area));
    CHECK(acc_area_entered(&area));
    acc_segment_close(seg);
}

RUN(60, TEST(same_name_same_slot), TEST(names_refused), TEST(slots_are_full), TEST(half_claimed),
    TEST(opened_at_once), TEST(areas_are_apart), TEST(entered))
