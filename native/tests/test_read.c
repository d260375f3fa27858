/* Reads beside writes: no torn value, no other key's, nothing from before a delete that has
 * returned. */
#include "harness.h"

#include <sched.h>

enum { KEYS = 16, VALUE_MAX = 20000, SECONDS_OF_EACH = 2 };

struct reading {
    struct acc_segment *seg; /* of this process */
    const char *path;
    uint64_t *floors; /* shared: per key, versions below are deleted for sure */
    uint32_t *words;  /* shared: 0 stop; 1 failures; 2 hits; 3 lost races; 4 versions given */
    uint64_t seed;
};

static uint32_t random_size(struct chance *chance, uint64_t number) {
    /* Some keys keep their size and are rewritten in place, some change it all the time. */
    return number % 2 == 0 ? 16 + (uint32_t)number * 100
                           : 16 + random_below(chance, VALUE_MAX - 16);
}

static void write_some(struct reading *r, struct acc_area *area, uint8_t *value,
                       struct chance *chance) {
    struct test_key key;
    uint64_t number = random_below(chance, KEYS);
    number_key(area, &key, number);
    uint64_t version = acc_add_relaxed(&r->words[4], 1u);
    uint32_t size = random_size(chance, number);
    if (random_below(chance, 30) == 0) {
        /* Only one writer a key (see below), so everything older is gone when this returns. */
        acc_delete(area, &key.key);
        acc_store_release(&r->floors[number], version);
        return;
    }
    fill_value(value, size, number, version);
    set_bytes(area, &key.key, value, size);
    if (random_below(chance, 10) == 0) {
        uint32_t end = acc_now(area->seg) + 100000;
        acc_touch(area, &key.key, end, 0, ACC_LOCK_BUDGET_NS);
    }
}

static void read_some(struct reading *r, struct acc_area *area, uint8_t *buffer,
                      struct chance *chance) {
    struct test_key key;
    uint64_t number = random_below(chance, KEYS), version;
    number_key(area, &key, number);
    uint64_t floor = acc_load_acquire(&r->floors[number]);
    struct got got = read_once(area, &key.key, buffer, VALUE_MAX, true);
    if (got.status == ACC_RACE) {
        acc_add_relaxed(&r->words[3], 1u);
    } else if (got.status == ACC_OK) {
        acc_add_relaxed(&r->words[2], 1u);
        if (!proves_itself(buffer, got.size, number, &version) || version < floor) {
            acc_add_relaxed(&r->words[1], 1u);
        }
    } else if (got.status != ACC_NOT_FOUND) {
        acc_add_relaxed(&r->words[1], 1u);
    }
}

/* One writer only, so that versions rise and a floor is exact. */
static void write_until_stopped(struct reading *r) {
    struct acc_area area = open_area(r->seg, "read");
    struct chance chance = {r->seed};
    uint8_t *value = malloc(VALUE_MAX);
    while (!acc_load_relaxed(&r->words[0])) {
        write_some(r, &area, value, &chance);
    }
    free(value);
}

static void read_until_stopped(struct reading *r) {
    struct acc_area area = open_area(r->seg, "read");
    struct chance chance = {r->seed};
    uint8_t *buffer = malloc(VALUE_MAX);
    while (!acc_load_relaxed(&r->words[0])) {
        read_some(r, &area, buffer, &chance);
    }
    free(buffer);
}

static void *writer_thread(void *argument) {
    write_until_stopped(argument);
    return NULL;
}

static void *reader_thread(void *argument) {
    read_until_stopped(argument);
    return NULL;
}

static struct reading new_reading(void) {
    uint32_t *words = shared_words();
    return (struct reading){.words = words, .floors = (uint64_t *)(words + 64)};
}

static void end_reading(struct reading *r) {
    uint64_t counters[ACC_COUNTERS];
    struct acc_area area = open_area(r->seg, "read");
    acc_stats_sum(r->seg, area.id, counters);
    CHECK_EQ(0, r->words[1]);
    CHECK_EQ(0, counters[ACC_CORRUPT_ITEM]);
    CHECK(r->words[2] > 1000);
    CHECK_SEGMENT(r->seg);
    for (uint32_t shard = 0; shard < r->seg->geometry.shards; shard++) {
        CHECK_EQ(0, acc_shard(r->seg, shard)->resets);
    }
    munmap(r->words, 4096);
    acc_segment_close(r->seg);
}

/* One main ring that laps all the time. */
static void threads_beside_a_writer(void) {
    struct reading r = new_reading();
    pthread_t writer, readers[2];
    struct reading copies[3];
    r.seg = new_segment(2 * MIB, 256 << 10);
    for (int i = 0; i < 3; i++) {
        copies[i] = r;
        copies[i].seed = (uint64_t)i + 1;
    }
    CHECK_EQ(0, pthread_create(&writer, NULL, writer_thread, &copies[0]));
    CHECK_EQ(0, pthread_create(&readers[0], NULL, reader_thread, &copies[1]));
    CHECK_EQ(0, pthread_create(&readers[1], NULL, reader_thread, &copies[2]));
    sleep_ms(SECONDS_OF_EACH * 1000);
    reach(&r.words[0], 1);
    pthread_join(writer, NULL);
    pthread_join(readers[0], NULL);
    pthread_join(readers[1], NULL);
    end_reading(&r);
}

static void processes_beside_a_writer(void) {
    struct reading r = new_reading();
    pid_t pids[3];
    r.path = new_segment_file(2 * MIB, 64 << 10);
    for (int i = 0; i < 3; i++) {
        pids[i] = fork_child();
        if (pids[i] == 0) {
            r.seed = (uint64_t)i + 1;
            r.seg = attach(r.path);
            i == 0 ? write_until_stopped(&r) : read_until_stopped(&r);
            acc_segment_close(r.seg);
            _exit(0);
        }
    }
    sleep_ms(SECONDS_OF_EACH * 1000);
    reach(&r.words[0], 1);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(0, wait_child(pids[i]));
    }
    r.seg = attach(r.path);
    end_reading(&r);
}

/* A reader that is stopped in the middle of its reads, at moments of chance, while everything is
 * written over. */
static void reader_is_stopped(void) {
    struct reading r = new_reading();
    r.path = new_segment_file(2 * MIB, 256 << 10);
    pid_t pids[2];
    for (int i = 0; i < 2; i++) {
        pids[i] = fork_child();
        if (pids[i] == 0) {
            r.seed = (uint64_t)i + 1;
            r.seg = attach(r.path);
            i == 0 ? write_until_stopped(&r) : read_until_stopped(&r);
            _exit(0);
        }
    }
    struct chance chance = {37};
    uint64_t end = acc_clock_ns() + SECONDS_OF_EACH * 1000000000ull;
    while (acc_clock_ns() < end) {
        kill(pids[1], SIGSTOP);
        sleep_ms(1 + random_below(&chance, 10));
        kill(pids[1], SIGCONT);
        sleep_ms(random_below(&chance, 2));
    }
    reach(&r.words[0], 1);
    CHECK_EQ(0, wait_child(pids[0]));
    CHECK_EQ(0, wait_child(pids[1]));
    r.seg = attach(r.path);
    end_reading(&r);
}

/* --- what a single reader meets --------------------------------------------------------------- */

/* The words of another key with the same tag and buckets, before and behind the right one, are
 * passed over. */
static void keys_with_one_tag(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 256 << 10);
    struct acc_area area = open_area(seg, "read");
    struct test_key a, b;
    CHECK_STATUS(ACC_OK, set_bytes(&area, text_key(&area, &a, "a"), "A", 1));
    CHECK_STATUS(ACC_OK, set_bytes(&area, text_key(&area, &b, "b"), "B", 1));
    struct acc_home home = acc_home_of(seg, a.key.hash);
    uint8_t buffer[8];
    struct got got = read_key(&area, &b.key, buffer, sizeof buffer, false);
    uint64_t decoy = acc_word_make(home.tag, got.ring, got.offset);
    struct acc_bucket *bucket = acc_home_first(seg, &home);
    for (uint32_t i = 0; i < ACC_BUCKET_SLOTS; i++) {
        if (bucket->word[i] == 0) {
            bucket->word[i] = decoy;
            got = read_key(&area, &a.key, buffer, sizeof buffer, false);
            CHECK_STATUS(ACC_OK, got.status);
            CHECK_EQ('A', buffer[0]);
        }
    }
    acc_segment_close(seg);
}

/* A word that names no item is dropped when it is met, counted, and no loss to the keys beside it.
 */
static void corrupt_words(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 256 << 10);
    struct acc_area area = open_area(seg, "read");
    struct test_key key;
    const uint64_t units[] = {seg->geometry.ring_units[0], seg->geometry.ring_units[1]};
    for (int round = 0; round < 40; round++) {
        uint32_t ring = (uint32_t)round % 2;
        CHECK_STATUS(ACC_OK, set_bytes(&area, text_key(&area, &key, "key"), "value", 5));
        struct acc_home home = acc_home_of(seg, key.key.hash);
        struct acc_bucket *bucket = acc_home_first(seg, &home);
        uint64_t offset = round < 20 ? units[ring] - (uint64_t)round / 2 : units[ring] + 1000;
        for (uint32_t i = 0; i < ACC_BUCKET_SLOTS; i++) {
            if (bucket->word[i] == 0) {
                bucket->word[i] = acc_word_make(home.tag, ring, offset);
            }
        }
        acc_shard(seg, 0)->entries = count_words(seg, 0);
        CHECK(is_there(&area, &key.key));
        CHECK(acc_delete(&area, &key.key));
        CHECK(!is_there(&area, &key.key));
        CHECK_EQ(0, count_words(seg, 0));
        CHECK_EQ(0, acc_shard(seg, 0)->entries);
    }
    uint64_t counters[ACC_COUNTERS];
    acc_stats_sum(seg, area.id, counters);
    CHECK_EQ(40 * 6, counters[ACC_CORRUPT_ITEM]);
    acc_segment_close(seg);
}

/* Deleted by one who died before he cleared the word: absent, and the next reader clears it. */
static void half_a_delete(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 256 << 10);
    struct acc_area area = open_area(seg, "read");
    struct test_key key;
    for (int then = 0; then < 5; then++) {
        CHECK_STATUS(ACC_OK, set_bytes(&area, text_key(&area, &key, "key"), "one", 3));
        CHECK_STATUS(ACC_OK, set_bytes(&area, &key.key, "two", 3)); /* with two copies now */
        acc_generation_bump(acc_generation_word(seg, acc_generation_index(seg, key.key.hash)),
                            key.key.hash);
        int64_t out, initial = 1;
        switch (then) {
        case 0: CHECK(!is_there(&area, &key.key)); break;
        case 1: CHECK(!acc_delete(&area, &key.key)); break;
        case 2:
            CHECK_STATUS(ACC_NOT_STORED, acc_touch(&area, &key.key, 0, 0, ACC_LOCK_BUDGET_NS));
            break;
        case 3: CHECK_STATUS(ACC_NOT_FOUND, acc_expire(&area, &key.key, ACC_LOCK_BUDGET_NS)); break;
        case 4:
            CHECK_STATUS(ACC_OK,
                         acc_incr(&area, &key.key, 1, &initial, 0, 0, ACC_LOCK_BUDGET_NS, &out));
            CHECK_EQ(2, out);
            CHECK(acc_delete(&area, &key.key));
            break;
        }
        CHECK(!is_there(&area, &key.key));
        CHECK_STATUS(ACC_OK, set_bytes(&area, &key.key, "new", 3));
        CHECK(is_there(&area, &key.key));
        CHECK_EQ(1, count_words(seg, 0));
        CHECK_EQ(1, acc_shard(seg, 0)->entries);
    }
    acc_segment_close(seg);
}

RUN(60, TEST(threads_beside_a_writer), TEST(processes_beside_a_writer), TEST(reader_is_stopped),
    TEST(keys_with_one_tag), TEST(corrupt_words), TEST(half_a_delete))
