/* Tags: what goes and what stays, neighbours in the table, marks left by the killed, garbage in
 * blocks, slots and clock. */
#include "loads.h"
#include "tags.h"

#include "evict.h"

#include <sched.h>

static struct acc_segment *seg;
static struct acc_area area;

static void begin(void) {
    seg = map_file(new_segment_file(4 * MIB, 64 << 10));
    area = open_area(seg, "tags");
    hold_measurement(seg);
}

static void end(void) {
    CHECK_SEGMENT(seg);
    acc_segment_close(seg);
}

static const struct acc_key *key_of(struct test_key *key, uint64_t number) {
    return number_key(&area, key, number);
}

static void put(uint64_t number, const char *letters) {
    struct test_key key;
    CHECK_STATUS(ACC_OK, set_tagged(&area, key_of(&key, number), "value", 5, letters));
    CHECK(is_there(&area, &key.key));
}

static bool has(uint64_t number) {
    struct test_key key;
    return has_value(&area, key_of(&key, number), "value", 5);
}

static struct acc_found find(uint64_t number) {
    struct test_key key;
    struct acc_found found;
    struct acc_home home = acc_home_of(seg, key_of(&key, number)->hash);
    CHECK_STATUS(ACC_OK, acc_read_find(&area, &home, &key.key, &found));
    return found;
}

static uint64_t epoch(void) {
    return acc_area_slot(seg, area.id)->tag_epoch;
}

static uint64_t corrupt_items(void) {
    uint64_t counters[ACC_COUNTERS];
    acc_stats_sum(seg, area.id, counters);
    return counters[ACC_CORRUPT_ITEM];
}

/* --- what goes, and what stays ---------------------------------------------------------------- */

static void deleted_with_any_of_its_tags(void) {
    begin();
    for (uint64_t i = 0; i < 8; i++) {
        const char *all = "abcdefgh";
        const char letter[2] = {all[i], '\0'};
        put(i, all);
        put(100, letter);
        put(101, "z");
        mark_letters(&area, letter, false);
        CHECK(!has(i) && !has(100) && has(101));
    }
    put(1, "ab");
    CHECK(has(1)); /* stored behind it: not concerned */
    end();
}

static void two_copies(void) {
    begin();
    for (int i = 0; i < 5; i++) {
        put(1, "ab");
        CHECK(i < 2 || acc_view_twice(&(struct acc_view){.common = find(1).view.common}));
    }
    mark_letters(&area, "b", false);
    CHECK(!has(1));
    end();
}

/* An operation of another area, by a tag of the same name. */
static void of_its_area_only(void) {
    begin();
    struct acc_area other = open_area(seg, "other");
    put(1, "a");
    mark_letters(&other, "a", false);
    CHECK(has(1));
    end();
}

static struct acc_write write_with_lives(const struct acc_tags *tags, uint32_t stale) {
    uint32_t now = acc_now(seg);
    return (struct acc_write){.data = (const uint8_t *)"value",
                              .size = 5,
                              .code = ACC_CODE_BYTES,
                              .loaded_at = now,
                              .expire_at = now + 1000,
                              .stale_until = stale == 0 ? 0 : now + 1000 + stale,
                              .tags = tags};
}

static enum acc_age age_of(uint64_t number) {
    struct test_key key;
    uint8_t buffer[16];
    struct got got = read_key(&area, key_of(&key, number), buffer, sizeof buffer, false);
    return got.status == ACC_OK ? got.age : ACC_GONE;
}

static void expired(void) {
    begin();
    struct test_key key;
    for (uint32_t stale = 0; stale < 2; stale++) {
        struct acc_tags tags = letter_tags(&area, "a");
        struct acc_write write = write_with_lives(&tags, stale * 1000);
        CHECK_STATUS(ACC_OK, acc_store(&area, key_of(&key, stale), &write, ACC_LOCK_BUDGET_NS));
    }
    mark_letters(&area, "a", true);
    CHECK_EQ(ACC_GONE, age_of(0));
    CHECK_EQ(ACC_STALE, age_of(1));
    CHECK_STATUS(ACC_NOT_STORED, acc_touch(&area, key_of(&key, 1), 0, 0, ACC_LOCK_BUDGET_NS));
    CHECK_STATUS(ACC_NOT_FOUND, acc_expire(&area, key_of(&key, 1), ACC_LOCK_BUDGET_NS));
    CHECK_EQ(ACC_STALE, age_of(1));
    mark_letters(&area, "a", false);
    CHECK_EQ(ACC_GONE, age_of(1));
    end();
}

/* A reader looks at the clock first (see acc_look()), and may be held up then: what was expired by tag
 * is not fresh for it either, nor if it was loaded when this clock had yet to come round. */
static void expired_for_who_looked_before(void) {
    begin();
    struct test_key key;
    struct acc_tags tags = letter_tags(&area, "a");
    struct acc_write write = write_with_lives(&tags, 1000);
    uint32_t looked = acc_now(seg);
    for (uint32_t i = 0; i < 2; i++) {
        write.loaded_at = i == 0 ? looked : looked + 1 - (1u << 31);
        CHECK_STATUS(ACC_OK, acc_store(&area, key_of(&key, i), &write, ACC_LOCK_BUDGET_NS));
    }
    mark_letters(&area, "a", true);
    while (acc_now(seg) == looked || acc_now(seg) == looked + 1) {
        sched_yield();
    }
    for (uint32_t i = 0; i < 2; i++) {
        struct acc_found found = find(i);
        CHECK(acc_found_tags_live(&area, &found));
        CHECK_EQ(ACC_STALE, acc_record_age(&found.view.record, looked));
    }
    end();
}

/* Whatever writes the value again keeps its tags, and of when they are. */
static void kept_by_touch_expire_and_incr(void) {
    begin();
    struct test_key key;
    int64_t out;
    uint32_t later = acc_now(seg) + 2000;
    struct acc_tags tags = letter_tags(&area, "a");
    struct acc_write write = write_with_lives(&tags, 1000);
    CHECK_STATUS(ACC_OK, acc_store(&area, key_of(&key, 1), &write, ACC_LOCK_BUDGET_NS));
    CHECK_STATUS(ACC_OK, acc_touch(&area, &key.key, later, later + 1000, ACC_LOCK_BUDGET_NS));
    CHECK_STATUS(ACC_OK, acc_store(&area, key_of(&key, 2), &write, ACC_LOCK_BUDGET_NS));
    CHECK_STATUS(ACC_OK, acc_expire(&area, &key.key, ACC_LOCK_BUDGET_NS));
    const int64_t number = 5;
    write.data = (const uint8_t *)&number;
    write.size = 8;
    write.code = ACC_CODE_INT;
    CHECK_STATUS(ACC_OK, acc_store(&area, key_of(&key, 3), &write, ACC_LOCK_BUDGET_NS));
    for (int64_t i = 1; i < 5; i++) {
        CHECK_STATUS(ACC_OK, acc_incr(&area, &key.key, 1, NULL, 0, 0, ACC_LOCK_BUDGET_NS, &out));
        CHECK_EQ(5 + i, out);
    }
    CHECK_EQ(ACC_STALE, age_of(2));
    mark_letters(&area, "a", false);
    CHECK_EQ(ACC_GONE, age_of(1));
    CHECK_EQ(ACC_GONE, age_of(2));
    CHECK_STATUS(ACC_NOT_FOUND,
                 acc_incr(&area, key_of(&key, 3), 1, NULL, 0, 0, ACC_LOCK_BUDGET_NS, &out));
    end();
}

/* --- loads ------------------------------------------------------------------------------------ */

static enum acc_status finish_tagged(const struct acc_key *key, struct acc_ticket *ticket) {
    struct acc_tags tags = letter_tags(&area, "a"); /* of now: the flight says since when */
    const struct acc_write write = {
        .data = (const uint8_t *)"value", .size = 5, .code = ACC_CODE_BYTES, .tags = &tags};
    return acc_load_finish(&area, key, ticket, &write, ACC_LOCK_BUDGET_NS);
}

static void load_that_began_before(void) {
    begin();
    struct test_key key;
    key_of(&key, 1);
    for (int expire = 0; expire < 2; expire++) {
        struct acc_ticket leading = lead(&area, &key.key), before = join(&area, &key.key);
        mark_letters(&area, "a", expire);
        struct acc_ticket after = join(&area, &key.key);
        CHECK_STATUS(ACC_NOT_STORED, finish_tagged(&key.key, &leading));
        CHECK(!has(1));
        CHECK_EQ(ACC_RESULT_HANDED, result_of(&area, &before));
        CHECK(takes(&area, &key.key, &before, "value", 5));
        CHECK(!takes(&area, &key.key, &after, "value", 5));
        mark_letters(&area, "a",
                     false); /* once more: who came after is given it no more than before */
        CHECK(takes(&area, &key.key, &before, "value", 5));
        CHECK(!takes(&area, &key.key, &after, "value", 5));
    }
    struct acc_ticket leading = lead(&area, &key.key);
    mark_letters(&area, "b", false);
    CHECK_STATUS(ACC_OK, finish_tagged(&key.key, &leading));
    CHECK(has(1));
    end();
}

static void fill_with_a_token(void) {
    begin();
    struct test_key key;
    uint32_t key_count, area_count;
    acc_token(&area, key_of(&key, 1), &key_count, &area_count);
    struct acc_tags tags = letter_tags(&area, "a"), others = letter_tags(&area, "b");
    struct acc_write write = write_with_lives(&tags, 0);
    write.mode = ACC_FILL;
    write.has_token = true;
    write.token_key = key_count;
    write.token_area = area_count;
    mark_letters(&area, "a", true);
    CHECK_STATUS(ACC_NOT_STORED, acc_store(&area, &key.key, &write, ACC_LOCK_BUDGET_NS));
    write.tags = &others;
    CHECK_STATUS(ACC_OK, acc_store(&area, &key.key, &write, ACC_LOCK_BUDGET_NS));
    CHECK(has(1));
    end();
}

/* --- the table -------------------------------------------------------------------------------- */

/* A neighbour goes only if both its slots were raised. */
static void neighbours(void) {
    begin();
    struct test_key key;
    struct acc_tags tags = {.count = 1, .slot = {10, 20}};
    const uint64_t first = 10 | (uint64_t)30 << 32, second = 40 | (uint64_t)20 << 32;
    struct acc_write write = write_with_lives(&tags, 0);
    CHECK_STATUS(ACC_OK, acc_store(&area, key_of(&key, 1), &write, ACC_LOCK_BUDGET_NS));
    acc_tags_mark(&area, &first, 1, false);
    CHECK(has(1));
    acc_tags_mark(&area, &second, 1, true);
    CHECK(has(1)); /* one deleted, one expired: neither happened to both */
    acc_tags_mark(&area, &second, 1, false);
    CHECK(!has(1)); /* the two together: the price of a bounded table */
    end();
}

/* Two slots that are one would make every neighbour there a victim. */
static void slots_differ(void) {
    begin();
    for (uint64_t i = 0; i < seg->geometry.tags; i++) {
        struct acc_tags tags = {.since = 0};
        acc_tags_add(seg, &tags, i | i << 32);
        CHECK_EQ(1, tags.count);
        CHECK(tags.slot[0] != tags.slot[1]);
        CHECK(tags.slot[0] < seg->geometry.tags && tags.slot[1] < seg->geometry.tags);
    }
    end();
}

/* --- killed on the way ------------------------------------------------------------------------ */

static void raise_slots(const struct acc_tags *tags, bool expire, uint32_t n, uint64_t count) {
    for (uint32_t i = 0; i < n; i++) {
        struct acc_tag_slot *slot = acc_tag_slot(seg, tags->slot[i]);
        *(expire ? &slot->expired : &slot->deleted) = count << 1 | 1;
    }
}

/* Killed between two slots: nothing has happened.  Killed before the epoch: who says so makes it so
 * for those who go by the epoch. */
static void killed_on_the_way(void) {
    begin();
    struct test_key key;
    struct acc_tags tags = letter_tags(&area, "a");
    for (uint32_t expire = 0; expire < 2; expire++) {
        tags.since = acc_tag_clock(seg);
        struct acc_write write = write_with_lives(&tags, 1000);
        CHECK_STATUS(ACC_OK, acc_store(&area, key_of(&key, 1), &write, ACC_LOCK_BUDGET_NS));
        uint64_t count = ++acc_header(seg)->tag_clock, before = epoch();
        raise_slots(&tags, expire, 1, count);
        CHECK_EQ(ACC_FRESH, age_of(1));
        CHECK_EQ(before, epoch());
        struct acc_found found = find(1);
        raise_slots(&tags, expire, 2, count);
        CHECK_EQ(expire ? ACC_STALE : ACC_GONE, age_of(1));
        CHECK(epoch() > before);
        CHECK_EQ(expire, acc_load_relaxed(acc_slot_word(found.slot)) == found.word);
        /* The next operation by the tag takes the marks away. */
        mark_letters(&area, "a", expire);
        CHECK(!(acc_tag_slot(seg, tags.slot[0])->deleted & 1) || expire);
        before = epoch();
        CHECK_EQ(ACC_GONE, expire ? ACC_GONE : age_of(1));
        CHECK_EQ(before, epoch());
    }
    end();
}

/* Every operation changes the epoch, also if one with a later count was there before. */
static void each_operation_changes_the_epoch(void) {
    begin();
    uint64_t before = epoch();
    mark_letters(&area, "a", false);
    CHECK_EQ(before + 1, epoch());
    mark_letters(&area, "abc", true);
    CHECK_EQ(before + 2, epoch());
    CHECK_EQ(2, acc_tag_clock(seg));
    /* Its count is less than what stands there. */
    struct acc_tags tags = letter_tags(&area, "a");
    raise_slots(&tags, false, 2, 9);
    acc_header(seg)->tag_clock = 5;
    mark_letters(&area, "a", false);
    CHECK_EQ(before + 3, epoch());
    CHECK_EQ(9, acc_tag_slot(seg, tags.slot[0])->deleted >> 1);
    acc_tags_sweep(seg);
    CHECK_EQ(6, acc_tag_slot(seg, tags.slot[0])->deleted >> 1);
    end();
}

/* --- room ------------------------------------------------------------------------------------- */

/* What tags have made dead is stepped over, counts as no eviction and lets nobody live be evicted. */
static void dead_for_eviction(void) {
    begin();
    uint8_t value[1000] = {0};
    uint64_t counters[ACC_COUNTERS];
    struct test_key key;
    uint64_t items = seg->geometry.shards * seg->geometry.shard_ring_bytes / 1100 * 8 / 10;
    for (uint64_t i = 0; i < items; i++) {
        CHECK_STATUS(ACC_OK, set_tagged(&area, key_of(&key, i), value, sizeof value, "a"));
    }
    acc_stats_sum(seg, area.id, counters);
    uint64_t evicted = counters[ACC_EVICTIONS];
    mark_letters(&area, "a", false);
    struct acc_totals totals;
    acc_maintenance_measure(seg, &totals, NULL, NULL);
    CHECK_EQ(0, totals.entries);
    CHECK_EQ(0, totals.live_bytes);
    for (uint64_t i = 0; i < items; i++) {
        CHECK_STATUS(ACC_OK, set_tagged(&area, key_of(&key, items + i), value, sizeof value, "b"));
    }
    acc_stats_sum(seg, area.id, counters);
    CHECK_EQ(evicted, counters[ACC_EVICTIONS]);
    for (uint64_t i = 0; i < items; i++) {
        CHECK(is_there(&area, key_of(&key, items + i)));
    }
    end();
}

/* Moved from small to main and round main, an item keeps its tags. */
static void kept_when_moved(void) {
    begin();
    uint8_t value[1000] = {0};
    struct test_key key;
    put(1, "ab");
    uint64_t moves = 0, word = find(1).word;
    for (uint64_t i = 200; i < 30000; i++) {
        hit(&area, key_of(&key, 1));
        hit(&area, key_of(&key, i - 150)); /* so that main turns, too */
        CHECK_STATUS(ACC_OK, set_bytes(&area, key_of(&key, i), value, sizeof value));
        moves += find(1).word != word;
        word = find(1).word;
    }
    CHECK(moves > 2);
    CHECK(has(1));
    mark_letters(&area, "b", false);
    CHECK(!has(1));
    end();
}

/* --- garbage ---------------------------------------------------------------------------------- */

static void every_byte_of_a_block(void) {
    begin();
    uint64_t before = corrupt_items();
    uint32_t bytes = sizeof(struct acc_tag_block) + 16;
    for (uint32_t at = 0; at < bytes; at++) {
        put(1, "ab");
        struct acc_found found = find(1);
        uint8_t *block = (uint8_t *)(uintptr_t)found.view.value + 5;
        block[at] ^= (uint8_t)(1u << at % 8);
        CHECK(!has(1));
        CHECK_EQ(before + at + 1, corrupt_items());
        CHECK(acc_load_relaxed(acc_slot_word(found.slot)) != found.word);
    }
    end();
}

/* What does not verify is no tag of what is written over it, nor moved, nor touched. */
static void damaged_below_a_write(void) {
    begin();
    struct test_key key;
    put(1, "ab");
    ((uint8_t *)(uintptr_t)find(1).view.value)[5] ^= 1;
    CHECK_STATUS(ACC_NOT_STORED, acc_touch(&area, key_of(&key, 1), 0, 0, ACC_LOCK_BUDGET_NS));
    put(1, "ab");
    ((uint8_t *)(uintptr_t)find(1).view.value)[5] ^= 1;
    put(1, "c");
    CHECK(has(1));
    end();
}

/* A block with a count that is larger than the item is not read beyond it. */
static void count_beyond_the_item(void) {
    begin();
    struct acc_tags tags = {.count = 0}, out;
    uint8_t room[sizeof(struct acc_tag_block) + 64];
    for (uint32_t i = 0; i < ACC_TAGS_MAX; i++) {
        acc_tags_add(seg, &tags, i * 0x123456789abcdefull);
    }
    acc_tags_put(room, &tags, 77);
    CHECK(acc_tags_get(seg, room, sizeof room, 77, &out));
    CHECK_EQ(tags.count, out.count);
    CHECK(memcmp(tags.slot, out.slot, sizeof tags.slot) == 0);
    CHECK(!acc_tags_get(seg, room, sizeof room, 78, &out)); /* of another record */
    for (uint64_t less = 0; less < sizeof room; less++) {
        uint8_t *copy = malloc(less == 0 ? 1 : less); /* the sanitizer sees a byte beyond it */
        memcpy(copy, room, less);
        CHECK(!acc_tags_get(seg, copy, less, 77, &out));
        free(copy);
    }
    end();
}

/* Counts that the clock has not reached forget what was before, and not what comes. */
static void slots_from_beyond_the_clock(void) {
    begin();
    put(1, "a");
    struct acc_tags tags = letter_tags(&area, "a");
    acc_tag_slot(seg, tags.slot[0])->deleted = acc_tag_slot(seg, tags.slot[1])->deleted =
        UINT64_MAX;
    mark_letters(&area, "q", false);
    CHECK(!has(1));
    put(1, "a");
    CHECK(has(1));
    end();
}

/* A clock that was set back: what is from beyond it is dropped; one that is absurd begins anew. */
static void clock_set_back_or_absurd(void) {
    begin();
    for (int i = 0; i < 10; i++) {
        mark_letters(&area, "q", false);
    }
    put(1, "a");
    acc_header(seg)->tag_clock = 3;
    CHECK(!has(1));
    put(1, "a");
    acc_header(seg)->tag_clock = UINT64_MAX - 1;
    mark_letters(&area, "a", false);
    CHECK(!has(1));
    put(2, "a");
    mark_letters(&area, "b", false); /* clears the area */
    CHECK(!has(2));
    acc_segment_measure(seg);
    CHECK_EQ(0, acc_tag_clock(seg));
    put(1, "a");
    put(2, "b");
    mark_letters(&area, "b", false);
    CHECK(has(1) && !has(2));
    end();
}

/* --- read-only -------------------------------------------------------------------------------- */

/* Who only looks stores nothing, and finds what is gone gone. */
static void seen_read_only(void) {
    const char *path = new_segment_file(2 * MIB, 64 << 10);
    seg = map_file(path);
    area = open_area(seg, "tags");
    hold_measurement(seg);
    put(1, "a");
    put(2, "b");
    struct acc_tags tags = letter_tags(&area, "a");
    raise_slots(&tags, false, 2, ++acc_header(seg)->tag_clock); /* by one who was killed then */
    struct acc_segment *looking;
    int fd = open(path, O_RDONLY);
    CHECK(fd >= 0);
    CHECK_STATUS(ACC_OK, acc_segment_map(fd, 2 * MIB, true, &looking));
    struct acc_area seen;
    CHECK_STATUS(ACC_OK, acc_area_open(looking, "tags", 4, &seen));
    struct test_key key;
    CHECK(!has_value(&seen, number_key(&seen, &key, 1), "value", 5));
    CHECK(has_value(&seen, number_key(&seen, &key, 2), "value", 5));
    struct acc_totals totals;
    acc_maintenance_measure(looking, &totals, NULL, NULL);
    CHECK_EQ(1, totals.entries);
    CHECK_EQ(0, acc_maintenance_check(looking, print_violation, NULL));
    acc_segment_measure(looking);
    acc_segment_close(looking);
    end();
}

RUN(60, TEST(deleted_with_any_of_its_tags), TEST(two_copies), TEST(of_its_area_only), TEST(expired),
    TEST(expired_for_who_looked_before), TEST(kept_by_touch_expire_and_incr),
    TEST(load_that_began_before), TEST(fill_with_a_token), TEST(neighbours), TEST(slots_differ),
    TEST(killed_on_the_way), TEST(each_operation_changes_the_epoch), TEST(dead_for_eviction),
    TEST(kept_when_moved), TEST(every_byte_of_a_block), TEST(damaged_below_a_write),
    TEST(count_beyond_the_item), TEST(slots_from_beyond_the_clock), TEST(clock_set_back_or_absurd),
    TEST(seen_read_only))
