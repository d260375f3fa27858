/* The mapping: geometry for all sizes, formatting, what is refused, read-only maps, private
 * segments. */
#include "evict.h"
#include "harness.h"

/* --- geometry --------------------------------------------------------------------------------- */

static void check_geometry(uint64_t size, uint32_t max_value_size) {
    struct acc_geometry g;
    CHECK_STATUS(ACC_OK, acc_geometry_of(size, max_value_size, &g));
    CHECK(g.shards >= 1 && g.shards <= ACC_SHARDS_MAX && (g.shards & (g.shards - 1)) == 0);
    CHECK((g.generations & (g.generations - 1)) == 0);
    CHECK_EQ(g.generations, 1ull << (64 - g.generation_shift));
    CHECK((g.tags & (g.tags - 1)) == 0 && g.tags >= 256 && g.tags <= 1u << 20);
    CHECK(g.tags * sizeof(struct acc_tag_slot) <= size / 64);
    CHECK(g.buckets >= 1);
    CHECK(g.entries_max >= 1 && g.entries_max < g.buckets * ACC_BUCKET_SLOTS);
    CHECK((uint64_t)g.ghost_lines * ACC_GHOST_SLOTS >= (uint64_t)g.buckets * ACC_BUCKET_SLOTS);
    /* One part behind the other, each on a line of its own, the rings last and within the segment.
     */
    const uint64_t at[] = {sizeof(struct acc_header),
                           g.process_at,
                           g.area_at,
                           g.stats_at,
                           g.facts_at,
                           g.hot_at,
                           g.flight_at,
                           g.turn_at,
                           g.link_at,
                           g.outbox_at,
                           g.generation_at,
                           g.tag_at,
                           g.override_at,
                           g.limit_at,
                           g.event_at,
                           g.shard_at,
                           g.index_at,
                           g.ghost_at,
                           g.ring_at};
    const uint64_t length[] = {
        0,
        g.processes * sizeof(struct acc_process),
        g.areas * sizeof(struct acc_area_slot),
        g.stats * sizeof(struct acc_stats),
        g.areas * sizeof(struct acc_facts),
        sizeof(struct acc_hot_head) + g.hot * sizeof(struct acc_hot_bucket),
        (uint64_t)g.shards * g.flight_groups * ACC_FLIGHT_GROUP * sizeof(struct acc_flight),
        g.turns * sizeof(struct acc_turn),
        sizeof(struct acc_link),
        g.outbox * sizeof(struct acc_outbox_slot),
        g.generations * 8ull,
        g.tags * sizeof(struct acc_tag_slot),
        (g.areas + 1) * sizeof(struct acc_overrides),
        ACC_LIMIT_SETS * sizeof(struct acc_limits),
        sizeof(struct acc_event_head) + g.events * sizeof(struct acc_event_slot),
        g.shards * sizeof(struct acc_shard),
        (uint64_t)g.shards * g.buckets * sizeof(struct acc_bucket),
        (uint64_t)g.shards * g.ghost_lines * sizeof(struct acc_ghosts),
        g.shards * g.shard_ring_bytes};
    for (size_t i = 1; i < sizeof at / sizeof *at; i++) {
        CHECK_EQ(0, at[i] % ACC_LINE);
        CHECK(at[i] >= at[i - 1] + length[i - 1]);
    }
    CHECK(g.ring_at + g.shards * g.shard_ring_bytes <= size);
    CHECK_EQ(0, g.shard_ring_bytes % ACC_LINE);
    CHECK(g.ring_at * 100 <= size * 15);
    CHECK(g.events >= 128 && g.events <= 8192 && (g.events & (g.events - 1)) == 0);
    CHECK(g.outbox >= 256 && g.outbox == 1u << g.outbox_bits);
    CHECK((uint64_t)g.outbox * sizeof(struct acc_outbox_slot) <= size / 64);
    for (int ring = 0; ring < 2; ring++) {
        CHECK(g.ring_units[ring] > 2 * sizeof(struct acc_item_twice) / ACC_UNIT);
        CHECK(g.ring_units[ring] <= 1ull << g.ring_bits[ring]);
        CHECK(g.ring_units[ring] > 1ull << (g.ring_bits[ring] - 1));
    }
    CHECK((uint64_t)(g.ring_units[0] + g.ring_units[1]) * ACC_UNIT <= g.shard_ring_bytes);
    CHECK((uint64_t)g.ring_units[0] * 8 < g.ring_units[1]);
    /* The largest value fits, unless the segment is too small for even one shard of it. */
    if (size / 8 >= max_value_size) {
        uint64_t most = g.ring_units[ACC_MAIN] / 4 * ACC_UNIT;
        CHECK(most >= max_value_size + (max_value_size > 4096 ? sizeof(struct acc_item) + 512 : 0));
    }
}

static void geometry_of_all_sizes(void) {
    const uint32_t values[] = {1,         100,     1 << 10,  4 << 10, 64 << 10,
                               256 << 10, 1 << 20, 16 << 20, 64 << 20};
    for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
        for (uint64_t size = 2 * MIB; size <= 512ull << 30; size += (size / 7) & ~4095ull) {
            check_geometry(size, values[v]);
        }
        for (uint64_t size = 2 * MIB; size <= 512ull << 30; size *= 2) {
            check_geometry(size, values[v]);
            check_geometry(size == 512ull << 30 ? size : size + 4096, values[v]);
        }
    }
}

static void sizes_refused(void) {
    struct acc_geometry g;
    CHECK_STATUS(ACC_EMISMATCH, acc_geometry_of(2 * MIB - 4096, 1024, &g));
    CHECK_STATUS(ACC_EMISMATCH, acc_geometry_of(2 * MIB + 1, 1024, &g));
    CHECK_STATUS(ACC_EMISMATCH, acc_geometry_of((512ull << 30) + 4096, 1024, &g));
    CHECK_STATUS(ACC_EMISMATCH, acc_geometry_of(2 * MIB, 0, &g));
    CHECK_STATUS(ACC_EMISMATCH, acc_geometry_of(2 * MIB, ACC_VALUE_MAX + 1, &g));
    CHECK_STATUS(ACC_EMISMATCH, acc_geometry_of(0, 1024, &g));
    CHECK_EQ(2 * MIB, acc_min_size());
    CHECK(acc_max_size() >= 64ull << 30);
}

/* --- formatting and mapping ------------------------------------------------------------------- */

static void format_and_map(void) {
    const char *path = new_segment_file(4 * MIB, 64 << 10);
    struct acc_segment *seg = map_file(path);
    const struct acc_prefix *prefix = &acc_header(seg)->prefix;
    CHECK_EQ(ACC_MAGIC, prefix->magic);
    CHECK_EQ(acc_layout(), prefix->layout);
    CHECK_EQ(ACC_STATE_READY, prefix->state);
    CHECK_EQ(4 * MIB, prefix->size);
    CHECK_EQ(0, strcmp("test", prefix->name));
    CHECK(acc_header(seg)->hash_key[0] != 0 || acc_header(seg)->hash_key[1] != 0);
    CHECK_EQ(0, strcmp(path, seg->path));
    CHECK_SEGMENT(seg);
    acc_segment_close(seg);
}

/* The library and the name are cut, and end with a 0. */
static void long_names_are_cut(void) {
    char text[200];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    const struct acc_identity identity = {.name = text, .library = text};
    const char *path = new_file(2 * MIB);
    int fd = open_file(path);
    CHECK_STATUS(ACC_OK, acc_segment_format(fd, 2 * MIB, 1024, &identity));
    struct acc_segment *seg = NULL;
    CHECK_STATUS(ACC_OK, acc_segment_map(fd, 2 * MIB, true, &seg));
    CHECK_EQ(63, strlen(acc_header(seg)->prefix.name));
    CHECK_EQ(31, strlen(acc_header(seg)->prefix.library));
    acc_segment_close(seg);
}

static enum acc_status try_map(const char *path, uint64_t size) {
    struct acc_segment *seg = NULL;
    int fd = open_file(path);
    enum acc_status status = acc_segment_map(fd, size, false, &seg);
    if (status == ACC_OK) {
        acc_segment_close(seg);
    } else {
        close(fd);
    }
    return status;
}

/* Write over a field of the header, see that the segment is refused, and put it back. */
static void check_refused(const char *path, size_t at, const void *bytes, size_t size) {
    uint8_t before[64];
    int fd = open_file(path);
    CHECK_EQ(size, pread(fd, before, size, (off_t)at));
    CHECK_EQ(size, pwrite(fd, bytes, size, (off_t)at));
    CHECK_STATUS(ACC_EMISMATCH, try_map(path, 2 * MIB));
    CHECK_EQ(size, pwrite(fd, before, size, (off_t)at));
    close(fd);
    CHECK_STATUS(ACC_OK, try_map(path, 2 * MIB));
}

static void maps_refused(void) {
    const char *path = new_segment_file(2 * MIB, 64 << 10);
    const uint64_t wide = 12345;
    const uint32_t narrow = 12345, zero = 0, huge = UINT32_MAX, other_size = 32 << 10;
    check_refused(path, offsetof(struct acc_prefix, magic), &wide, 8);
    check_refused(path, offsetof(struct acc_prefix, layout), &narrow, 4);
    check_refused(path, offsetof(struct acc_prefix, size), &wide, 8);
    check_refused(path, offsetof(struct acc_prefix, state), &zero, 4);
    check_refused(path, offsetof(struct acc_header, max_value_size), &zero, 4);
    check_refused(path, offsetof(struct acc_header, max_value_size), &huge, 4);
    check_refused(path, offsetof(struct acc_header, max_value_size), &other_size, 4);
    check_refused(path, offsetof(struct acc_header, shards), &narrow, 4);
    check_refused(path, offsetof(struct acc_header, ring_units), &wide, 8);
    CHECK_STATUS(ACC_EMISMATCH, try_map(path, 4 * MIB));
    CHECK_STATUS(ACC_EMISMATCH, try_map(path, 2 * MIB - 4096));
    CHECK_STATUS(ACC_EMISMATCH, try_map(new_file(2 * MIB), 2 * MIB));
    CHECK_STATUS(ACC_EMISMATCH, try_map(new_file(4096), 4096));
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct acc_segment *seg = NULL;
    CHECK_STATUS(ACC_ESYS, acc_segment_map(fd, 2 * MIB, false, &seg));
    close(fd);
}

/* Formatting over an old segment leaves nothing of it. */
static void format_again(void) {
    const struct acc_identity identity = {.name = "again", .library = "test"};
    const char *path = new_segment_file(2 * MIB, 64 << 10);
    struct acc_segment *seg = attach(path);
    struct acc_area area = open_area(seg, "old");
    struct test_key key;
    for (uint64_t number = 0; number < 500; number++) {
        set_bytes(&area, number_key(&area, &key, number), path, 16);
    }
    acc_segment_close(seg);
    int fd = open_file(path);
    CHECK_STATUS(ACC_OK, acc_segment_format(fd, 2 * MIB, 64 << 10, &identity));
    close(fd);
    seg = attach(path);
    area = open_area(seg, "new");
    CHECK_EQ(0, count_words(seg, 0));
    CHECK_SEGMENT(seg);
    for (uint64_t number = 0; number < 500; number++) {
        number_key(&area, &key, number);
        CHECK(!is_there(&area, &key.key));
        CHECK_STATUS(ACC_OK, set_bytes(&area, &key.key, path, 16));
    }
    CHECK_SEGMENT(seg);
    acc_segment_close(seg);
}

/* --- read-only -------------------------------------------------------------------------------- */

/* A read-only map faults when it is written to, so that a test which gets through proves that
 * nothing does. */
static void readonly_never_writes(void) {
    const char *path = new_segment_file(2 * MIB, 64 << 10);
    struct acc_segment *writer = attach(path), *reader = NULL;
    struct acc_area area = open_area(writer, "area"), seen;
    struct test_key key, gone, corrupt;
    CHECK_STATUS(ACC_OK, set_bytes(&area, text_key(&area, &key, "key"), "value", 5));
    CHECK_STATUS(ACC_OK, set_bytes(&area, text_key(&area, &gone, "gone"), "value", 5));
    CHECK_STATUS(ACC_OK, set_bytes(&area, text_key(&area, &corrupt, "corrupt"), "value", 5));
    /* Deleted by one who died before he cleared the word; and an item whose header does not verify.
     */
    acc_generation_bump(acc_generation_word(writer, acc_generation_index(writer, gone.key.hash)),
                        gone.key.hash);
    uint8_t buffer[16];
    struct got got = read_key(&area, &corrupt.key, buffer, sizeof buffer, false);
    uint32_t shard = acc_home_shard(writer, corrupt.key.hash);
    acc_ring_at(writer, shard, got.ring, got.offset)[12] ^= 1;

    CHECK_STATUS(ACC_OK, acc_segment_map(open(path, O_RDONLY | O_CLOEXEC), 2 * MIB, true, &reader));
    CHECK_STATUS(ACC_READONLY, acc_segment_register(reader));
    CHECK_STATUS(ACC_OK, acc_area_open(reader, "area", 4, &seen));
    CHECK_STATUS(ACC_READONLY, acc_area_open(reader, "unknown", 7, &seen));
    CHECK_STATUS(ACC_OK, acc_area_open(reader, "area", 4, &seen));
    CHECK(!acc_area_enter(&seen));
    got = read_key(&seen, &key.key, buffer, sizeof buffer, false);
    CHECK_STATUS(ACC_OK, got.status);
    CHECK_EQ(5, got.size);
    CHECK(!is_there(&seen, &gone.key));
    CHECK(!is_there(&seen, &corrupt.key));
    struct acc_totals totals;
    acc_maintenance_measure(reader, &totals, NULL, NULL);
    CHECK_EQ(1, totals.entries);
    acc_segment_measure(reader);
    acc_maintenance_tick(reader);
    uint64_t counters[ACC_COUNTERS];
    acc_stats_sum(reader, seen.id, counters);
    CHECK(acc_process_any_other(reader) == false); /* the writer is this process: not asked about */
    CHECK_EQ(2, acc_maintenance_check(reader, ignore_violation,
                                      NULL)); /* corrupt: in its ring, and by its word */
    uint32_t token_key, token_area;
    acc_token(&seen, &key.key, &token_key, &token_area);
    acc_segment_close(reader);
    acc_segment_close(writer);
}

/* --- private, emptied, cleared ---------------------------------------------------------------- */

static void private_segment(void) {
    struct acc_segment *seg;
    CHECK_STATUS(ACC_EMISMATCH, acc_segment_private(MIB, 1024, &seg));
    CHECK_STATUS(ACC_OK, acc_segment_private(2 * MIB, 64 << 10, &seg));
    struct acc_area area = open_area(seg, "private");
    struct test_key key;
    CHECK(!acc_process_any_other(seg));
    for (uint64_t number = 0; number < 20000; number++) {
        CHECK_STATUS(ACC_OK, set_bytes(&area, number_key(&area, &key, number), "0123456789", 10));
        CHECK(is_there(&area, &key.key));
    }
    acc_maintenance_tick(seg);
    CHECK_EQ(acc_incarnation(seg), (uint32_t)area.stamp);
    CHECK_SEGMENT(seg);
    acc_segment_close(seg);
}

static void empty_and_clear(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    struct acc_area a = open_area(seg, "a"), b = open_area(seg, "b");
    struct test_key key;
    for (int how = 0; how < 3; how++) {
        for (uint64_t number = 0; number < 300; number++) {
            CHECK_STATUS(ACC_OK, set_bytes(&a, number_key(&a, &key, number), "a", 1));
            CHECK_STATUS(ACC_OK, set_bytes(&b, number_key(&b, &key, number), "b", 1));
        }
        acc_count(a.stats, ACC_SET_TOTAL);
        if (how == 0) {
            acc_segment_empty(seg);
            for (uint32_t shard = 0; shard < seg->geometry.shards; shard++) {
                CHECK_EQ(0, count_words(seg, shard));
                CHECK_EQ(0, acc_shard(seg, shard)->entries);
            }
        } else if (how == 1) {
            acc_segment_clear(seg);
        } else {
            acc_area_clear(&a);
        }
        for (uint64_t number = 0; number < 300; number++) {
            CHECK(!is_there(&a, number_key(&a, &key, number)));
            CHECK_EQ(how == 2, is_there(&b, number_key(&b, &key, number)));
        }
        CHECK_SEGMENT(seg);
    }
    uint64_t counters[ACC_COUNTERS];
    acc_stats_sum(seg, a.id, counters);
    CHECK_EQ(3, counters[ACC_SET_TOTAL]);
    acc_segment_close(seg);
}

RUN(60, TEST(geometry_of_all_sizes), TEST(sizes_refused), TEST(format_and_map),
    TEST(long_names_are_cut), TEST(maps_refused), TEST(format_again), TEST(readonly_never_writes),
    TEST(private_segment), TEST(empty_and_clear))
