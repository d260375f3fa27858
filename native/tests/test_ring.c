/* Rings: every size of item, the end of a lap, rewriting in place, and walking over garbage. */
#include "harness.h"
#include "ring.h"

static struct acc_segment *new_private(uint32_t max_value_size) {
    struct acc_segment *seg;
    CHECK_STATUS(ACC_OK, acc_segment_private(2 * MIB, max_value_size, &seg));
    return seg;
}

static struct acc_ring *ring_of(struct acc_segment *seg, uint32_t ring) {
    return &acc_shard(seg, 0)->ring[ring];
}

static struct acc_parts make_parts(const uint8_t *key, uint32_t key_size, const uint8_t *value,
                                   uint32_t size, bool twice) {
    return (struct acc_parts){
        .key = key,
        .value = value,
        .key_size = key_size + 1,
        .tag = 'b',
        .area = 3,
        .twice = twice,
        .record = {.size_code = size | ACC_CODE_BYTES << 26, .expire_at = 77, .key_count = 5},
    };
}

/* --- offsets ---------------------------------------------------------------------------------- */

/* Adding and measuring distances agree, over lap ends and near 2^47. */
static void offsets(void) {
    struct acc_segment *seg = new_private(64 << 10);
    struct chance chance = {11};
    for (uint32_t ring = 0; ring < 2; ring++) {
        uint64_t units = seg->geometry.ring_units[ring];
        uint32_t bits = seg->geometry.ring_bits[ring];
        for (int round = 0; round < 10000; round++) {
            uint64_t lap = random_below(&chance, 2) == 0 ? random_below(&chance, 10)
                                                         : (1ull << (ACC_OFFSET_BITS - bits)) - 2;
            uint64_t at = lap << bits | random_below(&chance, (uint32_t)units), start = at;
            uint64_t sum = 0;
            for (int step = 0; step < 5; step++) {
                uint64_t left = units - acc_place_of(seg, ring, at);
                uint64_t go = 1 + random_below(&chance, (uint32_t)left);
                at = acc_offset_add(seg, ring, at, go);
                sum += go;
                CHECK(acc_place_of(seg, ring, at) < units);
                CHECK_EQ(sum, acc_offset_distance(seg, ring, start, at));
                CHECK(at > start);
            }
        }
    }
    acc_segment_close(seg);
}

/* --- items ------------------------------------------------------------------------------------ */

static void check_item(struct acc_segment *seg, uint32_t ring, uint64_t offset,
                       const struct acc_parts *parts, const uint8_t *value) {
    struct acc_view view;
    uint64_t units;
    CHECK_STATUS(ACC_OK, acc_ring_step(seg, 0, ring, offset, &view, &units));
    CHECK_EQ(acc_parts_units(parts), units);
    CHECK_EQ(parts->twice, acc_view_twice(&view));
    CHECK_EQ(parts->key_size, view.common.key_size);
    CHECK_EQ(parts->area, view.common.area);
    CHECK_EQ('b', view.key[0]);
    CHECK_EQ(0, memcmp(view.key + 1, parts->key, parts->key_size - 1));
    CHECK_EQ(acc_record_size(&parts->record), acc_record_size(&view.record));
    CHECK_EQ(ACC_CODE_BYTES, acc_record_code(&view.record));
    CHECK_EQ(0, memcmp(view.value, value, acc_record_size(&view.record)));
    CHECK_EQ(77, view.record.expire_at);
    CHECK(view.value + acc_record_size(&view.record) <= view.item + units * ACC_UNIT);
}

/* Each size of value and key, once and with two copies, wherever in the ring it comes to lie. */
static void every_size(void) {
    struct acc_segment *seg = new_private(64 << 10);
    uint8_t key[ACC_KEY_MAX], value[3000];
    fill_value(key, sizeof key, 1, 1);
    fill_value(value, sizeof value, 2, 2);
    for (uint32_t ring = 0; ring < 2; ring++) {
        struct acc_ring *r = ring_of(seg, ring);
        for (uint32_t n = 0; n < 30000; n++) {
            uint32_t size = n % 3000, key_size = n / 7 % (ACC_KEY_MAX + 1);
            struct acc_parts parts = make_parts(key, key_size, value, size, n / 3000 % 2);
            uint32_t units = acc_parts_units(&parts);
            if (units > seg->geometry.ring_units[ring]) {
                continue;
            }
            while (!acc_ring_fits(seg, 0, ring, units, 0)) {
                struct acc_view view;
                uint64_t step;
                if (r->head == r->tail) {
                    CHECK(acc_ring_skip_lap(seg, 0, ring, units));
                    continue;
                }
                enum acc_status status = acc_ring_step(seg, 0, ring, r->head, &view, &step);
                CHECK(status == ACC_OK || status == ACC_NOT_FOUND);
                r->head = acc_offset_add(seg, ring, r->head, step);
            }
            uint64_t offset = acc_ring_append(seg, 0, ring, &parts);
            check_item(seg, ring, offset, &parts, value);
            CHECK(acc_ring_used(seg, 0, ring) <= seg->geometry.ring_units[ring]);
            CHECK(acc_ring_sound(seg, 0, ring));
        }
    }
    CHECK_EQ(0, acc_maintenance_check(seg, print_violation, NULL));
    acc_segment_close(seg);
}

/* Bring an empty ring's tail so that `left` units remain to its end. */
static void leave(struct acc_segment *seg, uint32_t ring, uint64_t left) {
    struct acc_ring *r = ring_of(seg, ring);
    r->head = r->tail = r->mid =
        5ull << seg->geometry.ring_bits[ring] | (seg->geometry.ring_units[ring] - left);
}

/* What is left before the ring's end: nothing, too little for a header, exactly the item, one more.
 */
static void end_of_lap(void) {
    struct acc_segment *seg = new_private(64 << 10);
    const uint8_t key[] = "key", value[100] = {1, 2, 3};
    struct acc_parts parts = make_parts(key, 3, value, 100, false);
    uint64_t units = acc_parts_units(&parts);
    for (uint32_t ring = 0; ring < 2; ring++) {
        struct acc_ring *r = ring_of(seg, ring);
        uint64_t next_lap = 6ull << seg->geometry.ring_bits[ring];
        for (uint64_t left = 1; left <= 2 * units; left++) {
            leave(seg, ring, left);
            uint64_t start = r->tail;
            CHECK_EQ(left >= units ? units : left + units, acc_ring_need(seg, 0, ring, units));
            uint64_t offset = acc_ring_append(seg, 0, ring, &parts);
            CHECK_EQ(left >= units ? start : next_lap, offset);
            check_item(seg, ring, offset, &parts, value);
            if (left == units) {
                CHECK_EQ(next_lap, r->tail);
            }
            /* Walk from the start: padding first where there is some. */
            uint64_t step;
            struct acc_view view;
            if (left < units) {
                CHECK_STATUS(ACC_NOT_FOUND, acc_ring_step(seg, 0, ring, start, &view, &step));
                CHECK_EQ(left, step);
                CHECK_EQ(next_lap, acc_offset_add(seg, ring, start, step));
            }
            CHECK_EQ(0, acc_maintenance_check(seg, print_violation, NULL));
        }
    }
    acc_segment_close(seg);
}

/* An item as large as the ring goes in from any place, if the rest of the lap is skipped. */
static void skip_lap(void) {
    struct acc_segment *seg = new_private(64 << 10);
    uint64_t all = seg->geometry.ring_units[ACC_SMALL];
    uint32_t size = (uint32_t)(all * ACC_UNIT - sizeof(struct acc_item) - 8);
    uint8_t *value = malloc(size);
    fill_value(value, size, 1, 1);
    struct acc_parts parts = make_parts((const uint8_t *)"keykey.", 7, value, size, false);
    CHECK_EQ(all, acc_parts_units(&parts));
    for (uint64_t left = 1; left <= all; left += left < 20 ? 1 : 97) {
        leave(seg, ACC_SMALL, left);
        if (left < all) {
            CHECK(!acc_ring_fits(seg, 0, ACC_SMALL, all, 0));
            CHECK(acc_ring_skip_lap(seg, 0, ACC_SMALL, all));
        }
        CHECK(acc_ring_fits(seg, 0, ACC_SMALL, all, 0));
        check_item(seg, ACC_SMALL, acc_ring_append(seg, 0, ACC_SMALL, &parts), &parts, value);
        CHECK_EQ(all, acc_ring_used(seg, 0, ACC_SMALL));
        CHECK(!acc_ring_fits(seg, 0, ACC_SMALL, 1, 0));
        CHECK_EQ(0, acc_maintenance_check(seg, print_violation, NULL));
    }
    CHECK(!acc_ring_skip_lap(seg, 0, ACC_SMALL, all + 1));
    free(value);
    acc_segment_close(seg);
}

/* Rewriting alternates between the copies, leaves the other one alone, and takes any size that fits
 * the room. */
static void rewrite(void) {
    struct acc_segment *seg = new_private(64 << 10);
    uint8_t value[200];
    for (uint32_t room = 0; room <= 200; room += 8) {
        fill_value(value, room, 1, 0);
        struct acc_parts parts = make_parts((const uint8_t *)"k", 1, value, room, true);
        uint64_t offset = acc_ring_append(seg, 0, ACC_MAIN, &parts);
        struct acc_view view, before;
        CHECK(acc_view_load(seg, 0, ACC_MAIN, offset, &before));
        CHECK_EQ(room, acc_view_room(&before));
        for (uint32_t n = 1; n < 50; n++) {
            uint32_t size = room == 0 ? 0 : n * 31 % (room + 1);
            struct acc_raw fresh = {.size_expire = size | ACC_CODE_BYTES << 26 | (uint64_t)n << 32};
            fill_value(value, size, 2, n);
            acc_ring_rewrite(&before, fresh, value, NULL);
            CHECK(!acc_view_current(&before));
            CHECK(acc_view_load(seg, 0, ACC_MAIN, offset, &view));
            CHECK(acc_view_current(&view));
            CHECK_EQ(n, view.sequence);
            CHECK_EQ(n, view.record.expire_at);
            CHECK_EQ(size, acc_record_size(&view.record));
            CHECK_EQ(0, memcmp(value, view.value, size));
            CHECK(view.value != before.value || room == 0);
            before = view;
        }
    }
    acc_segment_close(seg);
}

/* --- garbage ---------------------------------------------------------------------------------- */

/* Every single bit of a header counts, except the hint that the item is dead. */
static void header_bits(void) {
    struct acc_segment *seg = new_private(64 << 10);
    const uint8_t value[50] = {9};
    for (int twice = 0; twice < 2; twice++) {
        struct acc_parts parts = make_parts((const uint8_t *)"key", 3, value, 50, twice);
        uint64_t offset = acc_ring_append(seg, 0, ACC_MAIN, &parts);
        uint8_t *item = acc_ring_at(seg, 0, ACC_MAIN, offset);
        struct acc_view view;
        for (uint32_t bit = 0; bit < sizeof(struct acc_item) * 8; bit++) {
            item[bit / 8] ^= (uint8_t)(1u << bit % 8);
            CHECK_EQ(bit == 2, acc_view_load(seg, 0, ACC_MAIN, offset, &view));
            item[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        CHECK(acc_view_load(seg, 0, ACC_MAIN, offset, &view));
        /* The same bytes at another offset are no item. */
        CHECK(!acc_view_load(seg, 0, ACC_MAIN, offset + (1ull << seg->geometry.ring_bits[ACC_MAIN]),
                             &view));
    }
    acc_segment_close(seg);
}

static void fill_stack(void) {
    volatile uint8_t bytes[4096];
    memset((uint8_t *)bytes, 0xff, sizeof bytes);
}

static bool load_any(struct acc_segment *seg, uint32_t ring, uint64_t offset, bool *current) {
    struct acc_view view;
    bool sound = acc_view_load(seg, 0, ring, offset, &view);
    *current = acc_view_current(&view);
    return sound;
}

/* Any offset in any garbage: nothing is read outside the ring, not even the sequence of what is no
 * item. */
static void any_offset(void) {
    struct acc_segment *seg = new_private(256 << 10);
    struct chance chance = {13};
    uint8_t *main = acc_ring_base(seg, 0, ACC_MAIN);
    uint64_t units = seg->geometry.ring_units[ACC_MAIN];
    uint64_t after = seg->geometry.size - (uint64_t)(main + units * ACC_UNIT - seg->base);
    CHECK(after < ACC_LINE); /* so that a step outside is a fault, or one that the sanitizer sees */
    for (int round = 0; round < 100000; round++) {
        uint64_t place = random_below(&chance, 2) == 0 ? units - random_below(&chance, 20)
                                                       : random_bits(&chance);
        uint32_t flags = random_below(&chance, 8), left = random_below(&chance, 40);
        if (acc_place_of(seg, ACC_MAIN, place) < units) {
            uint32_t units_flags = left << 8 | flags;
            memcpy(acc_ring_at(seg, 0, ACC_MAIN, place), &units_flags, sizeof units_flags);
        }
        bool current;
        struct acc_view view;
        uint64_t step;
        fill_stack();
        CHECK(!load_any(seg, ACC_MAIN, place, &current));
        CHECK(current);
        enum acc_status status = acc_ring_step(seg, 0, ACC_MAIN, place, &view, &step);
        CHECK(status == ACC_CORRUPT || (status == ACC_NOT_FOUND && step != 0));
    }
    acc_segment_close(seg);
}

static void sound_positions(void) {
    struct acc_segment *seg = new_private(64 << 10);
    struct acc_ring *r = ring_of(seg, ACC_MAIN);
    uint64_t units = seg->geometry.ring_units[ACC_MAIN];
    uint64_t lap = 1ull << seg->geometry.ring_bits[ACC_MAIN];
    const struct {
        uint64_t head, tail;
        bool sound;
    } cases[] = {
        {0, 0, true},
        {0, lap, true},
        {5, lap + 5, true},
        {5, lap + 6, false},
        {1, 0, false},
        {0, units, false},
        {units, lap, false},
        {lap, 0, false},
        {0, UINT64_MAX, false},
        {UINT64_MAX, UINT64_MAX, false},
        {3 * lap, 4 * lap, true},
        {0, 3 * lap, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        r->head = cases[i].head;
        r->tail = cases[i].tail;
        CHECK_EQ(cases[i].sound, acc_ring_sound(seg, 0, ACC_MAIN));
    }
    acc_segment_close(seg);
}

/* After a reset the ring is empty, at a place that no index word can name. */
static void reset(void) {
    struct acc_segment *seg = new_private(64 << 10);
    struct acc_ring *r = ring_of(seg, ACC_SMALL);
    uint64_t lap = 1ull << seg->geometry.ring_bits[ACC_SMALL];
    r->head = 7 * lap + 3;
    r->tail = 8 * lap + 1;
    acc_ring_reset(seg, 0, ACC_SMALL);
    CHECK_EQ(10 * lap, r->head);
    CHECK_EQ(10 * lap, r->tail);
    CHECK_EQ(10 * lap, r->mid);
    CHECK(acc_ring_sound(seg, 0, ACC_SMALL));
    acc_segment_close(seg);
}

RUN(60, TEST(offsets), TEST(every_size), TEST(end_of_lap), TEST(skip_lap), TEST(rewrite),
    TEST(header_bits), TEST(any_offset), TEST(sound_positions), TEST(reset))
