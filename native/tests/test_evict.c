/* The rules of eviction, one by one, in one shard; the invariants are checked all along. */
#include "evict.h"
#include "harness.h"

struct place {
    struct acc_segment *seg;
    struct acc_area area;
    uint64_t puts;
    uint8_t value[1 << 20];
};

static struct place *new_place(void) {
    struct place *p = calloc(1, sizeof *p);
    p->seg = new_segment(2 * MIB, 256 << 10);
    p->area = open_area(p->seg, "evict");
    hold_measurement(p->seg);
    CHECK_EQ(1, p->seg->geometry.shards);
    return p;
}

static void end_place(struct place *p) {
    CHECK_SEGMENT(p->seg);
    CHECK_EQ(0, acc_shard(p->seg, 0)->resets);
    CHECK_EQ(count_words(p->seg, 0), acc_shard(p->seg, 0)->entries);
    acc_segment_close(p->seg);
    free(p);
}

static enum acc_status put(struct place *p, uint64_t number, uint32_t size) {
    struct test_key key;
    enum acc_status status =
        set_bytes(&p->area, number_key(&p->area, &key, number), p->value, size);
    if (p->puts++ % 16 == 0) {
        CHECK_EQ(0, acc_maintenance_check(p->seg, print_violation, NULL));
    }
    return status;
}

static struct got peek(struct place *p, uint64_t number) {
    struct test_key key;
    static uint8_t buffer[1 << 20];
    return read_key(&p->area, number_key(&p->area, &key, number), buffer, sizeof buffer, false);
}

static bool there(struct place *p, uint64_t number) {
    return peek(p, number).status == ACC_OK;
}

static bool in_main(struct place *p, uint64_t number) {
    struct got got = peek(p, number);
    CHECK_STATUS(ACC_OK, got.status);
    return got.ring == ACC_MAIN;
}

static uint8_t *mark_of(struct place *p, uint64_t number) {
    struct test_key key;
    struct acc_home home = acc_home_of(p->seg, number_key(&p->area, &key, number)->hash);
    struct acc_found found;
    CHECK_STATUS(ACC_OK, acc_read_find(&p->area, &home, &key.key, &found));
    return acc_slot_mark(found.slot);
}

static uint64_t counter(struct place *p, enum acc_counter which) {
    uint64_t counters[ACC_COUNTERS];
    acc_stats_sum(p->seg, p->area.id, counters);
    return counters[which];
}

static uint64_t units_of(uint32_t size) {
    return acc_units_of(sizeof(struct acc_item) + 9 + size);
}

/* How many items of a size fill a ring. */
static uint64_t count_for(struct place *p, uint32_t ring, uint32_t size) {
    return p->seg->geometry.ring_units[ring] / units_of(size);
}

/* New keys from `first` on, until main takes no more by itself.  The next number. */
static uint64_t fill_main(struct place *p, uint64_t first, uint32_t size) {
    uint64_t number = first;
    for (uint64_t evicted = counter(p, ACC_EVICTIONS); counter(p, ACC_EVICTIONS) == evicted;) {
        CHECK_STATUS(ACC_OK, put(p, number++, size));
    }
    return number;
}

/* --- where new items go ----------------------------------------------------------------------- */

static void new_items_enter_small(void) {
    struct place *p = new_place();
    CHECK_STATUS(ACC_OK, put(p, 1, 100));
    CHECK(!in_main(p, 1));
    CHECK_EQ(0, *mark_of(p, 1));
    end_place(p);
}

/* What small cannot hold enters main; what main should not hold is refused, and the older value
 * goes. */
static void large_items(void) {
    struct place *p = new_place();
    uint32_t small = (uint32_t)(p->seg->geometry.ring_units[ACC_SMALL] * ACC_UNIT);
    uint32_t most = (uint32_t)(acc_evict_units_max(p->seg) * ACC_UNIT) - 40 - 9;
    CHECK_STATUS(ACC_OK, put(p, 1, small - 49));
    CHECK(!in_main(p, 1));
    CHECK_STATUS(ACC_OK, put(p, 2, small - 48));
    CHECK(in_main(p, 2));
    CHECK_STATUS(ACC_OK, put(p, 3, most));
    CHECK(in_main(p, 3));
    CHECK_STATUS(ACC_TOO_LARGE, put(p, 3, most + 1));
    CHECK(!there(p, 3));
    /* Nine tenths of a thousand items of any size find their place. */
    for (uint32_t size = 1; size < most; size += most / 200) {
        CHECK_STATUS(ACC_OK, put(p, 1000 + size, size));
        CHECK(there(p, 1000 + size));
    }
    end_place(p);
}

/* Unmarked items move on into main while it has free room: a new cache fills up whole. */
static void spill_into_main(void) {
    struct place *p = new_place();
    uint64_t n = count_for(p, ACC_SMALL, 1000) + count_for(p, ACC_MAIN, 1000) * 9 / 10;
    for (uint64_t number = 0; number < n; number++) {
        CHECK_STATUS(ACC_OK, put(p, number, 1000));
    }
    for (uint64_t number = 0; number < n; number++) {
        CHECK(there(p, number));
    }
    CHECK_EQ(0, counter(p, ACC_EVICTIONS));
    CHECK(in_main(p, 0));
    CHECK(!in_main(p, n - 1));
    end_place(p);
}

/* --- leaving small ---------------------------------------------------------------------------- */

/* Unmarked and no room in main: out, with a ghost; and the key enters main when it comes back. */
static void ghost_hit_enters_main(void) {
    struct place *p = new_place();
    uint64_t next = fill_main(p, 0, 1000), out = next;
    for (uint64_t number = next; number-- > 0;) {
        out = there(p, number) ? out : number;
    }
    CHECK(out < next);
    CHECK_STATUS(ACC_OK, put(p, out, 1000));
    CHECK(in_main(p, out));
    CHECK_STATUS(ACC_OK, put(p, next + 1000, 1000));
    CHECK(!in_main(p, next + 1000));
    end_place(p);
}

/* A ghost is good for 0.9 x (entries) evictions. */
static void old_ghosts_count_nothing(void) {
    struct place *p = new_place();
    struct acc_shard *shard = acc_shard(p->seg, 0);
    uint64_t next = fill_main(p, 0, 1000), out = next;
    for (uint64_t number = next; number-- > 0;) {
        out = there(p, number) ? out : number;
    }
    struct test_key key;
    uint64_t hash = number_key(&p->area, &key, out)->hash;
    uint32_t clock = shard->ghost_clock;
    shard->ghost_clock = clock + shard->entries * 9 / 10 + 1;
    CHECK(!acc_ghost_take(p->seg, 0, hash));
    CHECK(!acc_ghost_take(p->seg, 0, hash)); /* taken all the same */
    shard->ghost_clock = clock;
    end_place(p);
}

/* A hit outside the newest quarter: to main, mark 0, also when main is full. */
static void marked_items_move_to_main(void) {
    struct place *p = new_place();
    uint64_t next = fill_main(p, 0, 1000), marked = next;
    CHECK_STATUS(ACC_OK, put(p, marked, 1000));
    uint64_t lap = count_for(p, ACC_SMALL, 1000);
    for (uint64_t n = 1; n < lap / 2; n++) {
        CHECK_STATUS(ACC_OK, put(p, marked + n, 1000));
    }
    struct test_key key;
    CHECK(hit(&p->area, number_key(&p->area, &key, marked)));
    CHECK_EQ(1, *mark_of(p, marked));
    for (uint64_t n = lap / 2; n < 2 * lap; n++) {
        CHECK_STATUS(ACC_OK, put(p, marked + n, 1000));
    }
    CHECK(in_main(p, marked));
    CHECK_EQ(0, *mark_of(p, marked));
    /* Making room for it freed, at the end of a lap, up to main's slack for those behind it. */
    uint64_t others = 0;
    for (uint64_t n = 1; n < lap / 2; n++) {
        others += there(p, marked + n);
    }
    CHECK(others < lap / 4);
    end_place(p);
}

/* A hit within the newest quarter says little: its mark goes when the item leaves that quarter. */
static void mid_hand_takes_marks(void) {
    struct place *p = new_place();
    uint64_t lap = count_for(p, ACC_SMALL, 1000);
    for (uint64_t n = 0; n < 2 * lap; n++) {
        CHECK_STATUS(ACC_OK, put(p, n, 1000));
    }
    *mark_of(p, 2 * lap - 1) = 3;
    uint64_t steps = 0;
    while (*mark_of(p, 2 * lap - 1) != 0) {
        CHECK_STATUS(ACC_OK, put(p, 2 * lap + steps++, 1000));
        CHECK(steps < lap);
    }
    CHECK(!in_main(p, 2 * lap - 1));
    CHECK(steps >= lap / 4 * 15 / 16 - 3); /* small keeps a 16th free */
    CHECK(steps <= lap / 4 + 3);
    end_place(p);
}

/* --- leaving main ----------------------------------------------------------------------------- */

/* Main's oldest: unmarked out and without ghost; marked to the newest end, its mark one less. */
static void main_hand(void) {
    struct place *p = new_place();
    uint64_t next = fill_main(p, 0, 1000);
    CHECK(in_main(p, 0) && in_main(p, 1));
    *mark_of(p, 0) = 2;
    uint64_t before = peek(p, 0).offset;
    /* Moved to main for their marks: each makes room there. */
    for (uint64_t n = 0; n < 3; n++) {
        struct acc_budget budget = acc_budget_full();
        CHECK(acc_lock_take(p->seg, 0, ACC_LOCK_BUDGET_NS));
        uint64_t room = 4 * units_of(1000) + p->seg->geometry.ring_units[ACC_MAIN] / 64 * n;
        CHECK(acc_evict_make_room(p->seg, 0, ACC_MAIN, room, true, &budget));
        acc_lock_give(p->seg, 0);
    }
    CHECK(there(p, 0));
    CHECK(peek(p, 0).offset > before);
    CHECK_EQ(1, *mark_of(p, 0));
    CHECK(!there(p, 1));
    struct test_key key;
    CHECK(!acc_ghost_take(p->seg, 0, number_key(&p->area, &key, 1)->hash));
    CHECK(next > 0);
    end_place(p);
}

/* When everything is marked, one write still ends: after 32 items the rest goes, with ghosts. */
static void budget_of_one_write(void) {
    struct place *p = new_place();
    uint64_t next = fill_main(p, 0, 600);
    for (uint64_t number = 0; number < next; number++) {
        if (there(p, number)) {
            *mark_of(p, number) = 3;
        }
    }
    struct acc_budget budget = acc_budget_full();
    uint64_t evicted = counter(p, ACC_EVICTIONS);
    CHECK(acc_lock_take(p->seg, 0, ACC_LOCK_BUDGET_NS));
    uint64_t most = acc_evict_units_max(p->seg);
    CHECK(acc_evict_make_room(p->seg, 0, ACC_MAIN, most, true, &budget));
    CHECK(acc_ring_fits(p->seg, 0, ACC_MAIN, most, 0));
    CHECK(!acc_evict_make_room(p->seg, 0, ACC_MAIN, most + 1, true, &budget));
    acc_lock_give(p->seg, 0);
    CHECK_EQ(0, budget.items);
    CHECK(counter(p, ACC_EVICTIONS) > evicted + 100);
    /* Its ghost lets it in again at once. */
    uint64_t out = 0;
    while (there(p, out)) {
        out++;
    }
    CHECK_STATUS(ACC_OK, put(p, out, 600));
    CHECK(in_main(p, out));
    end_place(p);
}

/* Dead and expired items at main's oldest end go with the next write, eight at a time. */
static void reap(void) {
    struct place *p = new_place();
    fill_main(p, 0, 1000);
    struct test_key key;
    for (uint64_t number = 0; number < 20; number++) {
        CHECK(in_main(p, number));
        CHECK(acc_delete(&p->area, number_key(&p->area, &key, number)));
    }
    const struct acc_ring *main = &acc_shard(p->seg, 0)->ring[ACC_MAIN];
    uint64_t evicted = counter(p, ACC_EVICTIONS);
    CHECK(acc_lock_take(p->seg, 0, ACC_LOCK_BUDGET_NS));
    for (int n = 0; n < 3; n++) {
        uint64_t head = main->head;
        struct acc_budget budget = acc_budget_full();
        acc_evict_reap(p->seg, 0, &budget);
        CHECK(main->head > head);
    }
    acc_lock_give(p->seg, 0);
    CHECK_EQ(evicted, counter(p, ACC_EVICTIONS));
    CHECK(there(p, 20));
    end_place(p);
}

static void expired_items_leave_ghosts(void) {
    struct place *p = new_place();
    struct test_key key;
    const struct acc_write write = {.data = p->value,
                                    .size = 1000,
                                    .code = ACC_CODE_BYTES,
                                    .expire_at = acc_now(p->seg) + 10000};
    number_key(&p->area, &key, 0);
    CHECK_STATUS(ACC_OK, acc_store(&p->area, &key.key, &write, ACC_LOCK_BUDGET_NS));
    uint64_t next = fill_main(p, 1, 1000);
    CHECK(in_main(p, 0));
    *mark_of(p, 0) = 3;
    p->seg->clock_shift += 20000;
    CHECK_EQ(0, counter(p, ACC_EXPIRED));
    CHECK_STATUS(ACC_OK, put(p, next, 1000));
    CHECK_EQ(1, counter(p, ACC_EXPIRED));
    CHECK(!there(p, 0));
    CHECK_STATUS(ACC_OK, put(p, 0, 1000));
    CHECK(in_main(p, 0));
    end_place(p);
}

/* Does the key share its generation word with 0, 4 or 8?  (Two deletes of others in its group take a
 * key with them: one run of this test in fifty met that.) */
static bool shares_with_kept(struct place *p, uint64_t number) {
    struct test_key a, b;
    uint64_t hash = number_key(&p->area, &a, number)->hash;
    for (uint64_t kept = 0; kept <= 8; kept += 4) {
        if (acc_generation_index(p->seg, number_key(&p->area, &b, kept)->hash) ==
            acc_generation_index(p->seg, hash)) {
            return true;
        }
    }
    return false;
}

/* Dead bytes behind live items: while the last measurement found much of them, each write moves two
 * live ones on. */
static void squeeze(void) {
    struct place *p = new_place();
    uint64_t next = fill_main(p, 0, 1000), in = 0;
    struct test_key key;
    for (uint64_t number = 1; number < next; number++) {
        if (there(p, number) && in_main(p, number)) {
            in++;
            if (number % 4 != 0 && !shares_with_kept(p, number)) {
                acc_delete(&p->area, number_key(&p->area, &key, number));
            }
        }
    }
    acc_segment_measure(p->seg);
    uint64_t used = acc_ring_used(p->seg, 0, ACC_MAIN);
    uint64_t evicted = counter(p, ACC_EVICTIONS);
    for (uint64_t n = 0; n < in / 2; n++) {
        struct acc_budget budget = acc_budget_full();
        CHECK(acc_lock_take(p->seg, 0, ACC_LOCK_BUDGET_NS));
        acc_evict_reap(p->seg, 0, &budget);
        acc_lock_give(p->seg, 0);
        if (n % 50 == 0) {
            acc_segment_measure(p->seg);
        }
    }
    CHECK(acc_ring_used(p->seg, 0, ACC_MAIN) < used * 6 / 10);
    CHECK_EQ(evicted, counter(p, ACC_EVICTIONS));
    CHECK(there(p, 0) && there(p, 4) && there(p, 8));
    end_place(p);
}

/* --- one key, many keys ----------------------------------------------------------------------- */

/* A key that is rewritten all the time pushes nobody out. */
static void rewriting_one_key(void) {
    const uint32_t sizes[] = {0, 8, 100, 1000, 5000};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        struct place *p = new_place();
        uint64_t n = count_for(p, ACC_MAIN, 1000) * 9 / 10;
        for (uint64_t number = 0; number < n; number++) {
            CHECK_STATUS(ACC_OK, put(p, number, 1000));
        }
        for (int times = 0; times < 10000; times++) {
            struct test_key key;
            number_key(&p->area, &key, 1000000);
            /* Between half of the room and all of it. */
            uint32_t size = sizes[s] - (uint32_t)(times * 7) % (sizes[s] / 4 + 1);
            CHECK_STATUS(ACC_OK, set_bytes(&p->area, &key.key, p->value, size));
        }
        CHECK_EQ(0, acc_maintenance_check(p->seg, print_violation, NULL));
        CHECK_EQ(0, counter(p, ACC_EVICTIONS));
        for (uint64_t number = 0; number < n; number++) {
            CHECK(there(p, number));
        }
        CHECK(peek(p, 1000000).twice);
        end_place(p);
    }
}

/* The same in a full segment, where each append that needs room pushes somebody out: a key that just
 * came, one from small's old half (which is stored once more before it gets two copies), and main's
 * oldest.  Then a new key comes and pushes out what it must, and another one is rewritten. */
static void rewriting_in_a_full_segment(void) {
    const uint32_t sizes[] = {100, 500, 1000};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        struct place *p = new_place();
        uint64_t next = fill_main(p, 0, sizes[s]), lap = count_for(p, ACC_SMALL, sizes[s]);
        const uint64_t keys[] = {next - 1, next - lap * 3 / 4, next - lap / 4, 0, 1};
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
            CHECK_EQ(keys[k] < 2, in_main(p, keys[k]));
            uint64_t evicted = counter(p, ACC_EVICTIONS), entries = count_words(p->seg, 0);
            for (int times = 0; times < 300; times++) {
                CHECK_STATUS(ACC_OK, put(p, keys[k], sizes[s]));
            }
            CHECK(peek(p, keys[k]).twice);
            CHECK_EQ(evicted, counter(p, ACC_EVICTIONS));
            CHECK_EQ(entries, count_words(p->seg, 0));
            for (uint64_t n = 0; n < 3; n++) {
                CHECK_STATUS(ACC_OK, put(p, next++, sizes[s]));
            }
        }
        CHECK(counter(p, ACC_EVICTIONS) > 0);
        end_place(p);
    }
}

/* Sizes that jump about cost rings of space, but never the key itself. */
static void rewriting_with_any_size(void) {
    struct place *p = new_place();
    struct chance chance = {29};
    for (int times = 0; times < 3000; times++) {
        uint32_t size = random_below(&chance, random_below(&chance, 3) == 0 ? 100000 : 3000);
        CHECK_STATUS(ACC_OK, put(p, (uint64_t)times % 7, size));
        CHECK_EQ(size, peek(p, (uint64_t)times % 7).size);
    }
    end_place(p);
}

/* More of the smallest items than the index can name: none is refused, and the latest are there. */
static void index_is_full_first(void) {
    struct place *p = new_place();
    struct test_key key;
    uint32_t slots = p->seg->geometry.buckets * ACC_BUCKET_SLOTS;
    for (uint64_t number = 0; number < 3 * slots; number++) {
        CHECK_STATUS(ACC_OK, set_bytes(&p->area, number_key(&p->area, &key, number), "", 0));
        CHECK(there(p, number));
        if (number % 500 == 0) {
            CHECK_SEGMENT(p->seg);
        }
    }
    CHECK(count_words(p->seg, 0) <= p->seg->geometry.entries_max + 1);
    CHECK(count_words(p->seg, 0) > p->seg->geometry.entries_max * 9 / 10);
    end_place(p);
}

/* Keys that all belong into the same two buckets: the least worthy goes, the new one is there. */
static void buckets_are_full(void) {
    struct place *p = new_place();
    struct test_key key;
    struct acc_bucket *wanted = acc_bucket(p->seg, 0, 5);
    uint64_t found[30], n = 0;
    for (uint64_t number = 0; n < 30; number++) {
        struct acc_home home = acc_home_of(p->seg, number_key(&p->area, &key, number)->hash);
        bool same = acc_home_first(p->seg, &home) == wanted;
        if (same) {
            found[n++] = number;
        }
    }
    for (uint64_t i = 0; i < 30; i++) {
        CHECK_STATUS(ACC_OK, put(p, found[i], 20));
        CHECK(there(p, found[i]));
        if (i == 0) {
            *mark_of(p, found[0]) = 3;
        }
        CHECK(there(p, found[0]));
    }
    end_place(p);
}

/* Mixed sizes for many laps of both rings, main's end moved through scratch memory too. */
static void many_laps(void) {
    struct place *p = new_place();
    struct chance chance = {31};
    uint32_t most = (uint32_t)(acc_evict_units_max(p->seg) * ACC_UNIT) - 100;
    for (int times = 0; times < 6000; times++) {
        uint64_t number = random_below(&chance, 300);
        uint32_t kind = random_below(&chance, 10);
        uint32_t size = random_below(&chance, kind == 0 ? most : kind < 4 ? 60000 : 3000);
        CHECK_STATUS(ACC_OK, put(p, number, size));
        CHECK_EQ(size, peek(p, number).size);
        *mark_of(p, number) = (uint8_t)random_below(&chance, 4);
        if (times % 100 == 0) {
            acc_segment_measure(p->seg);
            CHECK_SEGMENT(p->seg);
        }
    }
    CHECK_EQ(0, p->seg->scratch_busy);
    end_place(p);
}

RUN(60, TEST(new_items_enter_small), TEST(large_items), TEST(spill_into_main),
    TEST(ghost_hit_enters_main), TEST(old_ghosts_count_nothing), TEST(marked_items_move_to_main),
    TEST(mid_hand_takes_marks), TEST(main_hand), TEST(budget_of_one_write), TEST(reap),
    TEST(expired_items_leave_ghosts), TEST(squeeze), TEST(rewriting_one_key),
    TEST(rewriting_in_a_full_segment), TEST(rewriting_with_any_size), TEST(index_is_full_first),
    TEST(buckets_are_full), TEST(many_laps))
