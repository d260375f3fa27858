/* Versions of an area: their slots, and what is said of a key in all of them. */
#include "loads.h"
#include "outbox.h"
#include "version.h"

static struct acc_area open_version(struct acc_segment *seg, const char *name, uint32_t print) {
    struct acc_area area;
    CHECK_STATUS(ACC_OK, acc_area_open_version(seg, name, strlen(name), print, &area));
    CHECK(acc_area_enter(&area));
    return area;
}

static uint32_t versions_of(const struct acc_area *area) {
    return acc_load_acquire(area->versions);
}

static enum acc_status fill_bytes(struct acc_area *area, const struct acc_key *key,
                                  const char *text) {
    struct acc_write write = {.data = (const uint8_t *)text,
                              .size = (uint32_t)strlen(text),
                              .code = ACC_CODE_BYTES,
                              .mode = ACC_FILL,
                              .has_token = true};
    acc_token(area, key, &write.token_key, &write.token_area);
    return acc_store(area, key, &write, ACC_LOCK_BUDGET_NS);
}

/* --- slots ------------------------------------------------------------------------------------ */

static void slots(void) {
    const char *path = new_segment_file(2 * MIB, 64 << 10);
    struct acc_segment *seg = attach(path), *other = map_file(path);
    struct acc_area one = open_version(seg, "area", 1), again;
    struct acc_area_slot *base = acc_area_find(seg, "area", 4);
    CHECK(base != NULL && base->print == 0 && base->base == 0);
    CHECK_EQ(one.base, base - acc_area_slot(seg, 0));
    CHECK(one.id != one.base);
    CHECK_EQ(2, versions_of(&one));
    CHECK(!acc_area_shared(&one));
    /* Known: needs no entering, and no lock. */
    CHECK_STATUS(ACC_OK, acc_area_open_version(other, "area", 4, 1, &again));
    CHECK_EQ(one.id, again.id);
    CHECK_EQ(one.base, again.base);
    CHECK_EQ(0, acc_incarnation(other));
    CHECK_EQ(2, versions_of(&one));
    struct acc_area two = open_version(seg, "area", 2);
    CHECK(two.id != one.id && two.base == one.base);
    CHECK_EQ(4, versions_of(&one));
    CHECK(acc_area_shared(&one) && acc_area_shared(&two) && acc_area_shared(&again));
    struct acc_area lone = open_version(seg, "lone", 1), plain = open_area(seg, "lone");
    CHECK_EQ(plain.id, lone.base);
    CHECK_EQ(3, versions_of(&lone));
    CHECK(acc_area_shared(&lone) && acc_area_shared(&plain));
    struct acc_area usual = open_area(seg, "usual");
    CHECK_EQ(1, versions_of(&usual));
    CHECK(!acc_area_shared(&usual));
    acc_segment_close(other);
    acc_segment_close(seg);
}

/* Opened without a version after it was as one: from then on both have values. */
static void plain_comes_later(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    struct acc_area version = open_version(seg, "area", 5);
    struct acc_area
        listener; /* the plain area as the listener finds it: nobody holds values there */
    acc_area_at(seg, version.base, &listener);
    CHECK(!acc_area_shared(&version));
    CHECK(acc_area_shared(&listener));
    CHECK_EQ(2, versions_of(&version));
    struct acc_area plain = open_area(seg, "area");
    CHECK_EQ(3, versions_of(&version));
    CHECK(acc_area_shared(&version) && acc_area_shared(&plain));
    acc_segment_close(seg);
}

static void slots_are_full(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    struct acc_area area;
    for (uint32_t print = 1; print < seg->geometry.areas; print++) {
        CHECK_STATUS(ACC_OK, acc_area_open_version(seg, "area", 4, print, &area));
    }
    CHECK_EQ(2 * (seg->geometry.areas - 1), versions_of(&area));
    CHECK_STATUS(ACC_FULL, acc_area_open_version(seg, "area", 4, 4711, &area));
    CHECK_STATUS(ACC_FULL, acc_area_open_version(seg, "other", 5, 1, &area));
    CHECK_EQ(2 * (seg->geometry.areas - 1), acc_area_find(seg, "area", 4)->versions);
    CHECK_STATUS(ACC_OK, acc_area_open_version(seg, "area", 4, 7, &area));
    CHECK_STATUS(ACC_OK, acc_area_open(seg, "area", 4, &area));
    acc_segment_close(seg);
}

/* Killed between counting a version and showing its slot, and between the plain area and it. */
static void half_opened(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    struct acc_area one = open_version(seg, "area", 1), two;
    acc_area_slot(seg, one.base)->versions = 4;
    acc_store_relaxed(acc_lock_word(seg, ACC_LOCK_AREAS), 4242u);
    CHECK(acc_area_shared(&one)); /* needlessly */
    two = open_version(seg, "area", 2);
    CHECK_EQ(4, versions_of(&one));
    CHECK(two.base == one.base && two.id != one.id);
    for (uint32_t i = 0; i < seg->geometry.areas; i++) {
        struct acc_area_slot *slot = acc_area_slot(seg, i);
        if (slot->state == 0) { /* as garbage has it */
            slot->print = slot->base = slot->versions = 3;
        }
    }
    struct acc_area plain = open_area(seg, "plain"), version = open_version(seg, "new", 1);
    CHECK_EQ(plain.id, plain.base);
    CHECK_EQ(1, versions_of(&plain));
    CHECK_EQ(2, versions_of(&version));
    acc_segment_close(seg);
}

enum { OPENERS = 4, PRINTS = 6 };

static void open_all(const char *path, uint32_t *words, uint64_t seed) {
    struct acc_segment *seg = attach(path);
    struct chance chance = {seed};
    reach(&words[1 + seed], 1);
    await(&words[0], 1);
    for (int n = 0; n < 500; n++) {
        struct acc_area area;
        uint32_t print = random_below(&chance, PRINTS);
        CHECK_STATUS(ACC_OK, acc_area_open_version(seg, "area", 4, print, &area));
        uint32_t seen = acc_load_relaxed(&words[100 + print]);
        if (seen == 0 && acc_cas32(&words[100 + print], 0, area.id + 1)) {
            continue;
        }
        CHECK_EQ(acc_load_relaxed(&words[100 + print]), area.id + 1);
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
        CHECK_EQ(PRINTS, claimed);
        CHECK_EQ(2 * (PRINTS - 1) + 1, acc_area_find(seg, "area", 4)->versions);
        munmap(words, 4096);
        acc_segment_close(seg);
    }
}

/* --- keys ------------------------------------------------------------------------------------- */

/* One hash, one generation, and a value each. */
static void keys_are_shared(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 256 << 10); /* one shard */
    struct acc_area a = open_version(seg, "area", 1), b = open_version(seg, "area", 2);
    struct test_key in_a, in_b;
    text_key(&a, &in_a, "key");
    text_key(&b, &in_b, "key");
    CHECK_EQ(in_a.key.hash, in_b.key.hash);
    CHECK_STATUS(ACC_OK, fill_bytes(&a, &in_a.key, "A"));
    CHECK(!is_there(&b, &in_b.key));
    CHECK_STATUS(ACC_OK, fill_bytes(&b, &in_b.key, "B"));
    CHECK(has_value(&a, &in_a.key, "A", 1));
    CHECK(has_value(&b, &in_b.key, "B", 1));
    CHECK_EQ(2, count_words(seg, 0));
    acc_area_clear(&a);
    CHECK(!is_there(&a, &in_a.key) && !is_there(&b, &in_b.key));
    CHECK_SEGMENT(seg);
    acc_segment_close(seg);
}

enum { MANY = 12 };

/* More versions than a bucket has slots: none is overlooked. */
static void many_versions(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 256 << 10);
    struct acc_area areas[MANY];
    struct test_key key;
    hold_measurement(seg);
    for (uint32_t i = 0; i < MANY; i++) {
        areas[i] = open_version(seg, "area", i + 1);
    }
    text_key(&areas[0], &key, "key");
    for (int way = 0; way < 5; way++) {
        for (uint32_t i = 0; i < MANY; i++) {
            CHECK_STATUS(ACC_OK, fill_bytes(&areas[i], &key.key, "value"));
        }
        for (uint32_t i = 0; i < MANY; i++) {
            CHECK(is_there(&areas[i], &key.key));
        }
        CHECK_EQ(MANY, count_words(seg, 0));
        struct acc_area *one = &areas[way % MANY];
        switch (way) {
        case 0: CHECK(acc_delete(one, &key.key)); break;
        case 1: CHECK_STATUS(ACC_OK, acc_expire(one, &key.key, ACC_LOCK_BUDGET_NS)); break;
        case 2: CHECK_STATUS(ACC_OK, set_bytes(one, &key.key, "set", 3)); break;
        case 3:
            CHECK_STATUS(ACC_OK,
                         acc_touch(one, &key.key, acc_now(seg) + 10000, 0, ACC_LOCK_BUDGET_NS));
            break;
        default: CHECK_STATUS(ACC_TOO_LARGE, set_bytes(one, &key.key, "", ACC_VALUE_MAX));
        }
        bool stored = way == 2 || way == 3;
        CHECK_EQ(stored, count_words(seg, 0)); /* so that no object is believed */
        CHECK_EQ(stored, is_there(one, &key.key));
        CHECK_EQ(stored, acc_load_relaxed(&acc_shard(seg, 0)->entries));
        acc_delete(one, &key.key);
    }
    CHECK_SEGMENT(seg);
    acc_segment_close(seg);
}

/* A key has room for fourteen items: of more versions one goes for another, and none is wrong. */
static void too_many_versions(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    struct acc_area areas[40];
    struct test_key key;
    for (uint32_t i = 0; i < 40; i++) {
        char name[8];
        areas[i] = open_version(seg, "area", i + 1);
        text_key(&areas[i], &key, "key");
        snprintf(name, sizeof name, "%u", i);
        CHECK_STATUS(ACC_OK, fill_bytes(&areas[i], &key.key, name));
        CHECK(has_value(&areas[i], &key.key, name, (uint32_t)strlen(name)));
        CHECK_SEGMENT(seg);
    }
    CHECK(acc_delete(&areas[5], &key.key));
    for (uint32_t i = 0; i < 40; i++) {
        CHECK(!is_there(&areas[i], &key.key));
    }
    acc_segment_close(seg);
}

/* Turns are the area's; so are locks, and not loads. */
static void loads_and_locks(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    struct acc_area a = open_version(seg, "area", 1), b = open_version(seg, "area", 2);
    struct test_key key;
    struct acc_ticket one, two, three;
    text_key(&a, &key, "key");
    one = lead(&a, &key.key);
    two = lead(&b, &key.key);
    CHECK(one.leading && two.leading && one.record != two.record);
    CHECK_STATUS(ACC_OK, finish_bytes(&a, &key.key, &one, "A", 1));
    CHECK_STATUS(ACC_OK, finish_bytes(&b, &key.key, &two, "B", 1));
    CHECK(has_value(&a, &key.key, "A", 1) && has_value(&b, &key.key, "B", 1));
    CHECK_STATUS(ACC_OK, acc_load_alone(&a, &key.key, 1, LEASE, ACC_LOCK_BUDGET_NS, &one));
    CHECK_STATUS(ACC_FULL, acc_load_alone(&b, &key.key, 1, LEASE, ACC_LOCK_BUDGET_NS, &two));
    acc_load_end(&a, &one, ACC_RESULT_FAILED);
    key.key.tag = ACC_TAG_LOCK;
    key.key.hash = acc_key_hash(&a, &key.key);
    CHECK_STATUS(ACC_OK, acc_load_enter(&a, &key.key, ACC_LOAD_JOIN, ACC_WINDOW_ALL, LEASE,
                                        ACC_LOCK_BUDGET_NS, &one));
    CHECK_STATUS(ACC_OK, acc_load_enter(&b, &key.key, ACC_LOAD_JOIN, ACC_WINDOW_ALL, LEASE,
                                        ACC_LOCK_BUDGET_NS, &three));
    CHECK(one.leading && three.joined);
    acc_flight_leave(seg, &three);
    acc_load_end(&a, &one, ACC_RESULT_FAILED);
    acc_segment_close(seg);
}

/* Evictions, expiries and what is measured are counted for the area. */
static void counted(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    struct acc_area a = open_version(seg, "area", 1), b = open_version(seg, "area", 2);
    static uint8_t value[1000];
    struct test_key key;
    uint64_t sums[ACC_COUNTERS];
    const uint64_t keys = 5000;
    acc_area_clear(&b); /* what is judged is the generation that they share */
    for (uint64_t n = 0; n < keys; n++) {
        struct acc_write write = {
            .data = value, .size = sizeof value, .code = ACC_CODE_BYTES, .mode = ACC_FILL};
        struct acc_area *area = n % 2 == 0 ? &a : &b;
        CHECK_STATUS(ACC_OK,
                     acc_store(area, number_key(area, &key, n), &write, ACC_LOCK_BUDGET_NS));
    }
    acc_segment_measure(seg);
    acc_stats_sum(seg, a.base, sums);
    CHECK_EQ(keys, sums[ACC_EVICTIONS] + acc_area_slot(seg, a.base)->entries);
    CHECK(sums[ACC_EVICTIONS] > 1000);
    CHECK_EQ(0, acc_area_slot(seg, a.id)->entries + acc_area_slot(seg, b.id)->entries);
    CHECK(acc_area_slot(seg, a.base)->bytes > 1000 * acc_area_slot(seg, a.base)->entries);
    CHECK_SEGMENT(seg);
    acc_segment_close(seg);
}

/* --- everything at once ----------------------------------------------------------------------- */

enum { WORKERS = 3, STORM_KEYS = 4, ROUNDS = 300000 };

/* Of one key: what the source of truth says, and the last explicit write that has returned. */
struct truth {
    uint64_t source, done;
    uint32_t writing;
};

/* An object as a process keeps it: believed while its word stands. */
struct object {
    uint64_t *slot, word, version;
};

static uint64_t now_done(const struct truth *truth) {
    uint64_t done = acc_load_acquire(&truth->done);
    acc_fence_behind_cas();
    return done;
}

static void write_key(struct acc_area *area, const struct acc_key *key, uint64_t number,
                      struct truth *truth, struct chance *chance) {
    uint8_t value[40];
    while (!acc_cas32(&truth->writing, 0, 1)) {
        acc_pause();
    }
    uint64_t version = acc_load_relaxed(&truth->source) + 1;
    acc_store_release(&truth->source, version);
    fill_value(value, sizeof value, number, version);
    const struct acc_write write = {.data = value, .size = sizeof value, .code = ACC_CODE_BYTES};
    switch (random_below(chance, 4)) {
    case 0: acc_delete(area, key); break;
    case 1: acc_expire(area, key, ACC_LOCK_BUDGET_NS); break; /* nothing here has a stale life */
    default: acc_store(area, key, &write, ACC_LOCK_BUDGET_NS);
    }
    acc_store_release(&truth->done, version);
    acc_store_release(&truth->writing, 0u);
}

static void load_key(struct acc_area *area, const struct acc_key *key, uint64_t number,
                     const struct truth *truth, bool with_flight) {
    uint8_t value[40];
    struct acc_ticket ticket;
    struct acc_write fill = {.data = value,
                             .size = sizeof value,
                             .code = ACC_CODE_BYTES,
                             .mode = ACC_FILL,
                             .has_token = true};
    if (with_flight) {
        if (enter_load(area, key, &ticket) != ACC_OK || !ticket.leading) {
            acc_flight_leave(area->seg, &ticket);
            return;
        }
    } else {
        acc_token(area, key, &fill.token_key, &fill.token_area);
    }
    fill_value(value, sizeof value, number, acc_load_acquire(&truth->source));
    if (with_flight) {
        fill.has_token = false;
        acc_load_finish(area, key, &ticket, &fill, ACC_LOCK_BUDGET_NS);
    } else {
        acc_store(area, key, &fill, ACC_LOCK_BUDGET_NS);
    }
}

static void check_object(const struct object *object, const struct truth *truth) {
    uint64_t done = now_done(truth);
    if (object->slot != NULL && acc_load_acquire(object->slot) == object->word) {
        CHECK(object->version >= done);
    }
}

/* As the binding reads and keeps. */
static void read_and_keep(struct acc_area *area, const struct acc_key *key, uint64_t number,
                          const struct truth *truth, struct object *object) {
    const struct acc_segment *seg = area->seg;
    struct acc_home home = acc_home_of(seg, key->hash);
    struct acc_found found;
    uint8_t value[40];
    uint64_t done = now_done(truth), version = 0;
    if (acc_read_find_bounded(area, &home, key, &found) != ACC_OK ||
        !acc_found_live(area, &found, key->hash) ||
        acc_record_size(&found.view.record) != sizeof value) {
        return;
    }
    memcpy(value, found.view.value, sizeof value);
    if (!acc_read_valid(&found)) {
        return;
    }
    CHECK(proves_itself(value, sizeof value, number, &version));
    CHECK(version >= done);
    uint64_t group =
        acc_load_acquire(acc_generation_word(seg, acc_generation_index(seg, key->hash)));
    if (acc_generation_valid(group, found.view.record.key_count, key->hash) &&
        !acc_view_twice(&found.view)) {
        *object = (struct object){acc_slot_word(found.slot), found.word, version};
    }
}

static void work(const char *path, struct truth *truths, uint32_t *words, uint32_t worker) {
    struct acc_segment *seg = attach(path);
    struct acc_area area =
        worker == 2 ? open_area(seg, "area") : open_version(seg, "area", worker + 1);
    struct chance chance = {worker};
    struct object objects[STORM_KEYS] = {0};
    struct test_key keys[STORM_KEYS], filler;
    static uint8_t bulk[3000];
    reach(&words[1 + worker], 1);
    await(&words[0], 1);
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t n = random_below(&chance, STORM_KEYS);
        const struct acc_key *key = number_key(&area, &keys[n], n);
        switch (random_below(&chance, 8)) {
        case 0: write_key(&area, key, n, &truths[n], &chance); break;
        case 1:
        case 2: load_key(&area, key, n, &truths[n], round % 2 == 0); break;
        case 3: /* what moves items about */
            number_key(&area, &filler, 1000 + random_below(&chance, 1000));
            acc_store(&area, &filler.key,
                      &(struct acc_write){.data = bulk,
                                          .size = 100 + random_below(&chance, 2900),
                                          .code = ACC_CODE_BYTES,
                                          .mode = ACC_FILL},
                      ACC_LOCK_BUDGET_NS);
            break;
        default:
            check_object(&objects[n], &truths[n]);
            read_and_keep(&area, key, n, &truths[n], &objects[n]);
        }
    }
    _exit(0);
}

/* Two versions and the plain area in a process each: none reads, or goes on believing, what is older
 * than an explicit write of any of them. */
static void storm(void) {
    const char *path = new_segment_file(2 * MIB, 64 << 10);
    uint32_t *words = shared_words(), *more = shared_words();
    pid_t pids[WORKERS];
    for (uint32_t i = 0; i < WORKERS; i++) {
        pids[i] = fork_child();
        if (pids[i] == 0) {
            work(path, (struct truth *)more, words, i);
        }
    }
    for (int i = 0; i < WORKERS; i++) {
        await(&words[1 + i], 1); /* all have opened theirs */
    }
    reach(&words[0], 1);
    for (int i = 0; i < WORKERS; i++) {
        CHECK_EQ(0, wait_child(pids[i]));
    }
    struct acc_segment *seg = attach(path);
    CHECK_SEGMENT(seg);
    munmap(words, 4096);
    munmap(more, 4096);
    acc_segment_close(seg);
}

RUN(60, TEST(slots), TEST(plain_comes_later), TEST(slots_are_full), TEST(half_opened),
    TEST(opened_at_once), TEST(keys_are_shared), TEST(many_versions), TEST(too_many_versions),
    TEST(loads_and_locks), TEST(counted), TEST(storm))
