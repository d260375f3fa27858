/* The writes, against a model: a table of what each key must hold, or may have lost to eviction.
 *
 * One process, random operations, a clock that only the test moves.  Before each operation the key
 * is read: a miss is allowed (evicted), anything else must be exactly what the model says.  What
 * was just stored must be there. */
#include "evict.h"
#include "harness.h"

/* In place of the C library's: the clock of the segment stands still unless the shift is changed.
 * Else a life may end between the look at a key and the operation whose answer follows from it. */
int clock_gettime(clockid_t clock, struct timespec *now) {
    if (clock == CLOCK_MONOTONIC_COARSE) {
        *now = (struct timespec){.tv_sec = 1000};
        return 0;
    }
    return (int)syscall(SYS_clock_gettime, clock, now);
}

enum { KEYS = 600, TOKENS = 64, BUFFER = 1 << 20 };

struct expected {
    bool present;
    uint32_t size;
    uint8_t code;
    uint64_t version; /* of the bytes; the number itself for ACC_CODE_INT */
    uint32_t expire_at, stale_until, loaded_at;
    uint32_t deletes; /* of this key, ever */
};

struct token {
    uint32_t key, key_count, area_count;
    uint32_t deletes, group_deletes, clears;
};

struct world {
    struct acc_segment *seg;
    struct acc_area area;
    struct chance chance;
    struct expected model[KEYS];
    struct test_key keys[KEYS];
    uint32_t group_of[KEYS]; /* smallest key number with the same generation word */
    uint32_t group_deletes[KEYS];
    uint32_t clears;
    struct token tokens[TOKENS];
    uint64_t version;
    uint32_t largest; /* value that can be stored for sure */
    uint32_t limit;   /* value that can never be stored */
    uint64_t hits, misses, steps;
    uint8_t *value, *buffer;
};

static void make_world(struct world *w, struct acc_segment *seg, uint64_t seed) {
    memset(w, 0, sizeof *w);
    w->seg = seg;
    w->area = open_area(seg, "model");
    w->chance.state = seed;
    w->value = malloc(BUFFER);
    w->buffer = malloc(BUFFER);
    /* Key sizes from none to the longest. */
    for (uint32_t k = 0; k < KEYS; k++) {
        uint8_t bytes[ACC_KEY_MAX];
        uint32_t size = k == 0 ? 0 : k % 50 == 0 ? ACC_KEY_MAX : 2 + k % 40;
        fill_value(bytes, size, k, 1);
        if (size >= 2) {
            memcpy(bytes, &(uint16_t){(uint16_t)k}, 2);
        }
        make_key(&w->area, &w->keys[k], bytes, size);
        w->group_of[k] = k;
        for (uint32_t other = 0; other < k; other++) {
            if (acc_generation_index(seg, w->keys[other].key.hash) ==
                acc_generation_index(seg, w->keys[k].key.hash)) {
                w->group_of[k] = other;
                break;
            }
        }
    }
    uint64_t bytes = acc_evict_units_max(seg) * ACC_UNIT;
    w->largest = (uint32_t)(bytes - 40 - ACC_KEY_MAX - 1);
    w->limit = (uint32_t)bytes;
}

static void free_world(struct world *w) {
    free(w->value);
    free(w->buffer);
    acc_segment_close(w->seg);
}

/* --- the model -------------------------------------------------------------------------------- */

static enum acc_age age_of(const struct world *w, const struct expected *e) {
    const struct acc_record record = {.expire_at = e->expire_at, .stale_until = e->stale_until};
    return acc_record_age(&record, acc_now(w->seg));
}

static void value_of(const struct expected *e, uint32_t key, uint8_t *out) {
    if (e->code == ACC_CODE_INT) {
        memcpy(out, &e->version, 8);
    } else {
        fill_value(out, e->size, key, e->version);
    }
}

/* Read a key and compare; a miss empties the model's entry.  True: it is there, fresh or stale. */
static bool look(struct world *w, uint32_t key, bool mark, enum acc_age *age) {
    struct expected *e = &w->model[key];
    struct got got = read_key(&w->area, &w->keys[key].key, w->buffer, BUFFER, mark);
    if (got.status == ACC_NOT_FOUND) {
        e->present = false;
        return false;
    }
    CHECK_STATUS(ACC_OK, got.status);
    CHECK(e->present);
    CHECK_EQ(e->size, got.size);
    CHECK_EQ(e->code, acc_record_code(&got.record));
    CHECK_EQ(e->expire_at, got.record.expire_at);
    CHECK_EQ(e->stale_until, got.record.stale_until);
    CHECK_EQ(e->loaded_at, got.record.loaded_at);
    value_of(e, key, w->value);
    CHECK_EQ(0, memcmp(w->value, w->buffer, got.size));
    CHECK_EQ(acc_value_sum(w->value, got.size), got.record.value_sum);
    *age = got.age;
    return true;
}

/* `wanted` has just been stored. */
static void must_be(struct world *w, uint32_t key, const struct expected *wanted) {
    enum acc_age age;
    uint32_t deletes = w->model[key].deletes;
    w->model[key] = *wanted;
    w->model[key].present = true;
    w->model[key].deletes = deletes;
    if (age_of(w, wanted) != ACC_GONE) {
        CHECK(look(w, key, false, &age));
    }
}

static void must_be_gone(struct world *w, uint32_t key) {
    enum acc_age age;
    CHECK(!look(w, key, false, &age));
    w->model[key].present = false;
}

static void note_delete(struct world *w, uint32_t key) {
    w->model[key].deletes++;
    w->group_deletes[w->group_of[key]]++;
}

/* --- operations ------------------------------------------------------------------------------- */

static uint32_t random_size(struct world *w) {
    switch (random_below(&w->chance, 20)) {
    case 0: return 0;
    case 1: return random_below(&w->chance, w->largest / 4) + 1;
    case 2: return random_below(&w->chance, w->largest) + 1;
    case 3: return w->largest - random_below(&w->chance, 64);
    case 4: return w->limit + random_below(&w->chance, 1000);
    default: return random_below(&w->chance, 400);
    }
}

static uint32_t random_end(struct world *w, uint32_t after) {
    return random_below(&w->chance, 4) == 0 ? 0 : after + 1 + random_below(&w->chance, 3000);
}

static struct acc_write random_write(struct world *w, uint32_t key, struct expected *wanted) {
    uint32_t now = acc_now(w->seg);
    *wanted = (struct expected){
        .size = random_size(w),
        .code = ACC_CODE_BYTES,
        .version = ++w->version,
        .loaded_at = now,
    };
    if (random_below(&w->chance, 5) == 0) {
        wanted->code = ACC_CODE_INT;
        wanted->size = 8;
        wanted->version = random_bits(&w->chance) >> random_below(&w->chance, 64);
    } else if (wanted->size == 0) {
        wanted->code = ACC_CODE_NULL;
    }
    wanted->expire_at = random_end(w, now);
    if (wanted->expire_at != 0 && random_below(&w->chance, 2) == 0) {
        wanted->stale_until = wanted->expire_at + random_below(&w->chance, 3000);
    }
    value_of(wanted, key, w->value);
    return (struct acc_write){
        .data = wanted->size == 0 ? NULL : w->value,
        .size = wanted->size,
        .code = wanted->code,
        .expire_at = wanted->expire_at,
        .stale_until = wanted->stale_until,
        .loaded_at = wanted->loaded_at,
    };
}

/* A write that was allowed: its status, and what is there now.  What is too large leaves the key as
 * it was, except that a set has dropped it. */
static void check_written(struct world *w, uint32_t key, enum acc_status status,
                          const struct expected *wanted, bool is_set) {
    enum acc_age age;
    if (wanted->size <= w->largest) {
        CHECK_STATUS(ACC_OK, status);
    }
    if (wanted->size < w->limit && status == ACC_OK) {
        must_be(w, key, wanted);
        return;
    }
    CHECK_STATUS(ACC_TOO_LARGE, status);
    if (is_set) {
        note_delete(w, key);
        must_be_gone(w, key);
    } else {
        bool was_there = w->model[key].present && age_of(w, &w->model[key]) != ACC_GONE;
        CHECK_EQ(was_there, look(w, key, false, &age));
    }
}

static void do_set(struct world *w, uint32_t key) {
    struct expected wanted;
    struct acc_write write = random_write(w, key, &wanted);
    enum acc_status status = acc_store(&w->area, &w->keys[key].key, &write, ACC_LOCK_BUDGET_NS);
    check_written(w, key, status, &wanted, true);
}

static void do_add(struct world *w, uint32_t key) {
    enum acc_age age = ACC_GONE;
    bool fresh = look(w, key, false, &age) && age == ACC_FRESH;
    struct expected wanted;
    struct acc_write write = random_write(w, key, &wanted);
    write.mode = ACC_ADD;
    enum acc_status status = acc_store(&w->area, &w->keys[key].key, &write, ACC_LOCK_BUDGET_NS);
    if (fresh) {
        CHECK_STATUS(ACC_NOT_STORED, status);
        CHECK(look(w, key, false, &age));
    } else {
        check_written(w, key, status, &wanted, false);
    }
}

static void take_token(struct world *w, uint32_t key) {
    struct token *token = &w->tokens[random_below(&w->chance, TOKENS)];
    token->key = key;
    token->deletes = w->model[key].deletes;
    token->group_deletes = w->group_deletes[w->group_of[key]];
    token->clears = w->clears;
    acc_token(&w->area, &w->keys[key].key, &token->key_count, &token->area_count);
}

static void do_fill(struct world *w) {
    const struct token *token = &w->tokens[random_below(&w->chance, TOKENS)];
    uint32_t key = token->key;
    enum acc_age age = ACC_GONE;
    bool fresh = look(w, key, false, &age) && age == ACC_FRESH;
    struct expected wanted;
    struct acc_write write = random_write(w, key, &wanted);
    write.mode = ACC_FILL;
    write.has_token = true;
    write.token_key = token->key_count;
    write.token_area = token->area_count;
    enum acc_status status = acc_store(&w->area, &w->keys[key].key, &write, ACC_LOCK_BUDGET_NS);
    if (fresh || token->deletes != w->model[key].deletes || token->clears != w->clears) {
        CHECK_STATUS(ACC_NOT_STORED, status);
        look(w, key, false, &age);
    } else if (token->group_deletes == w->group_deletes[w->group_of[key]]) {
        check_written(w, key, status, &wanted, false);
    } else if (status == ACC_OK) {
        must_be(w, key, &wanted);
    }
}

static void do_delete(struct world *w, uint32_t key) {
    enum acc_age age;
    bool there = look(w, key, false, &age);
    CHECK_EQ(there, acc_delete(&w->area, &w->keys[key].key));
    note_delete(w, key);
    must_be_gone(w, key);
}

static void do_touch(struct world *w, uint32_t key) {
    enum acc_age age = ACC_GONE;
    bool fresh = look(w, key, false, &age) && age == ACC_FRESH;
    struct expected wanted = w->model[key];
    wanted.expire_at = random_end(w, acc_now(w->seg));
    wanted.stale_until = wanted.expire_at == 0 ? 0 : random_end(w, wanted.expire_at);
    enum acc_status status = acc_touch(&w->area, &w->keys[key].key, wanted.expire_at,
                                       wanted.stale_until, ACC_LOCK_BUDGET_NS);
    CHECK_STATUS(fresh ? ACC_OK : ACC_NOT_STORED, status);
    if (fresh) {
        must_be(w, key, &wanted);
    }
}

static void do_expire(struct world *w, uint32_t key) {
    enum acc_age age = ACC_GONE;
    bool there = look(w, key, false, &age), fresh = there && age == ACC_FRESH;
    struct expected wanted = w->model[key];
    uint32_t before = acc_now(w->seg);
    enum acc_status status = acc_expire(&w->area, &w->keys[key].key, ACC_LOCK_BUDGET_NS);
    uint32_t after = acc_now(w->seg);
    note_delete(w, key);
    CHECK_STATUS(fresh ? ACC_OK : ACC_NOT_FOUND, status);
    if (!there || wanted.stale_until == 0) {
        must_be_gone(w, key);
        return;
    }
    struct got got = read_key(&w->area, &w->keys[key].key, w->buffer, BUFFER, false);
    if (acc_clock_passed(wanted.stale_until, after)) {
        w->model[key].present = false;
        return;
    }
    CHECK_STATUS(ACC_OK, got.status);
    CHECK_EQ(ACC_STALE, got.age);
    CHECK(got.record.expire_at >= before && got.record.expire_at <= after);
    wanted.expire_at = got.record.expire_at;
    must_be(w, key, &wanted);
}

static void do_incr(struct world *w, uint32_t key) {
    enum acc_age age = ACC_GONE;
    bool fresh = look(w, key, false, &age) && age == ACC_FRESH;
    int64_t delta = (int64_t)random_bits(&w->chance) >> random_below(&w->chance, 64);
    int64_t initial = (int64_t)random_below(&w->chance, 100), out = 0, sum;
    bool has_initial = random_below(&w->chance, 3) != 0;
    struct expected wanted = w->model[key];
    uint32_t now = acc_now(w->seg);
    if (!fresh) {
        wanted = (struct expected){.size = 8,
                                   .code = ACC_CODE_INT,
                                   .version = (uint64_t)initial,
                                   .expire_at = random_end(w, now)};
    }
    enum acc_status status =
        acc_incr(&w->area, &w->keys[key].key, delta, has_initial ? &initial : NULL,
                 wanted.expire_at, wanted.stale_until, ACC_LOCK_BUDGET_NS, &out);
    if (!fresh && !has_initial) {
        CHECK_STATUS(ACC_NOT_FOUND, status);
    } else if (fresh && wanted.code != ACC_CODE_INT) {
        CHECK_STATUS(ACC_BAD_TYPE, status);
    } else if (__builtin_add_overflow((int64_t)wanted.version, delta, &sum)) {
        CHECK_STATUS(ACC_OVERFLOW, status);
    } else {
        CHECK_STATUS(ACC_OK, status);
        CHECK_EQ(sum, out);
        wanted.version = (uint64_t)sum;
        if (!fresh) {
            struct got got = read_key(&w->area, &w->keys[key].key, w->buffer, BUFFER, false);
            CHECK_STATUS(ACC_OK, got.status);
            wanted.loaded_at = got.record.loaded_at;
        }
        must_be(w, key, &wanted);
        return;
    }
    look(w, key, false, &age);
}

static void do_clear(struct world *w) {
    if (random_below(&w->chance, 2) == 0) {
        acc_area_clear(&w->area);
    } else {
        acc_segment_clear(w->seg);
    }
    w->clears++;
    for (uint32_t k = 0; k < KEYS; k++) {
        must_be_gone(w, k);
    }
}

static void step(struct world *w) {
    uint32_t key = random_below(&w->chance, KEYS);
    if (random_below(&w->chance, 3) != 0) {
        key %= 40; /* some are hot */
    }
    uint32_t what = random_below(&w->chance, 1000);
    enum acc_age age;
    if (what < 350) {
        do_set(w, key);
    } else if (what < 450) {
        do_add(w, key);
    } else if (what < 550) {
        do_fill(w);
    } else if (what < 620) {
        take_token(w, key);
    } else if (what < 670) {
        do_delete(w, key);
    } else if (what < 730) {
        do_touch(w, key);
    } else if (what < 770) {
        do_expire(w, key);
    } else if (what < 830) {
        do_incr(w, key);
    } else if (what < 832) {
        do_clear(w);
    } else if (what < 840) {
        w->seg->clock_shift += (int32_t)random_below(&w->chance, 500);
    } else if (what < 842) {
        acc_segment_measure(w->seg);
    } else if (look(w, key, true, &age)) {
        w->hits++;
    } else {
        w->misses++;
    }
    w->steps++;
}

static void run_model(uint32_t max_value_size, uint32_t shards, uint32_t steps, uint64_t start) {
    struct acc_segment *seg = new_segment(2 * MIB, max_value_size);
    steps /= UNDER_TSAN ? 10 : 1;
    CHECK_EQ(shards, seg->geometry.shards);
    hold_measurement(seg);
    start_rings_at(seg, start);
    struct world *w = malloc(sizeof *w);
    make_world(w, seg, shards + start);
    for (uint32_t n = 0; n < steps; n++) {
        step(w);
        if (n % 500 == 0) {
            CHECK_SEGMENT(seg);
        }
    }
    CHECK_SEGMENT(seg);
    for (uint32_t shard = 0; shard < seg->geometry.shards; shard++) {
        CHECK_EQ(0, acc_shard(seg, shard)->resets);
        /* Exact when nothing runs beside: no operation may let the count drift. */
        CHECK_EQ(count_words(seg, shard), acc_shard(seg, shard)->entries);
    }
    CHECK(w->hits > w->misses / 4);
    free_world(w);
    free(w);
}

static void model_one_shard(void) {
    run_model(256 << 10, 1, 120000, 0);
}

static void model_eight_shards(void) {
    run_model(32 << 10, 8, 120000, 0);
}

static void model_most_shards(void) {
    run_model(1 << 10, 32, 80000, 0);
}

/* The 47 bits of an index word run over while the rings are in use. */
static void model_offsets_run_over(void) {
    run_model(128 << 10, 2, 80000, (1ull << ACC_OFFSET_BITS) - (1u << 18));
}

RUN(60, TEST(model_one_shard), TEST(model_eight_shards), TEST(model_most_shards),
    TEST(model_offsets_run_over))
