/* Hashes and sums: known answers, and that every byte and every length counts. */
#include "harness.h"

/* SipHash-1-3 under the zero key, as CPython computes hash(bytes) with PYTHONHASHSEED=0. */
static void siphash_known_answers(void) {
    static const struct {
        const char *text;
        uint64_t hash;
    } known[] = {
        {"a", 0x407448d2b89b1813ull},          {"abc", 0xc03bc3a0042630f2ull},
        {"abcd", 0xe3d1d5fdd52aae89ull},       {"abcdefg", 0x6db12aae9070f506ull},
        {"abcdefgh", 0x3f7b849c0b8e35eaull},   {"abcdefghi", 0xf89b34a3d11eb6e5ull},
        {"user:12345", 0xe9597e28bb7b6d79ull},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const uint8_t *data = (const uint8_t *)known[i].text;
        CHECK_EQ(known[i].hash, acc_siphash(0, 0, data, strlen(known[i].text)));
    }
    uint8_t counting[64];
    for (size_t i = 0; i < sizeof counting; i++) {
        counting[i] = (uint8_t)i;
    }
    CHECK_EQ(0x385d3e39e5f37359ull, acc_siphash(0, 0, counting, 63));
    CHECK_EQ(0x75e05fd5bbc870c6ull, acc_siphash(0, 0, counting, 64));
}

/* No two of all one-bit changes, lengths and keys agree. */
static void siphash_tells_apart(void) {
    uint8_t data[40] = {0};
    uint64_t seen[40 * 8 + 43];
    size_t n = 0;
    for (size_t bit = 0; bit < sizeof data * 8; bit++) {
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        seen[n++] = acc_siphash(1, 2, data, sizeof data);
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t size = 0; size <= sizeof data; size++) {
        seen[n++] = acc_siphash(1, 2, data, size);
    }
    seen[n++] = acc_siphash(2, 1, data, sizeof data);
    seen[n++] = acc_siphash(1, 3, data, sizeof data);
    for (size_t i = 0; i < n; i++) {
        for (size_t other = 0; other < i; other++) {
            CHECK(seen[i] != seen[other]);
        }
    }
}

/* Areas and type tags have hashes of their own. */
static void hash_of_areas_and_tags(void) {
    struct acc_segment *seg;
    CHECK_STATUS(ACC_OK, acc_segment_private(2 * MIB, 64 << 10, &seg));
    const uint8_t data[] = "key";
    uint64_t hash = acc_hash_in_area(seg, 0, 's', data, 3);
    CHECK(hash != acc_hash_in_area(seg, 1, 's', data, 3));
    CHECK(hash != acc_hash_in_area(seg, 0, 'b', data, 3));
    CHECK_EQ(hash, acc_hash_in_area(seg, 0, 's', data, 3));
    acc_segment_close(seg);
}

static void tail_of_any_size(void) {
    const uint8_t data[8] = {0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88};
    for (size_t n = 0; n < 8; n++) {
        uint64_t expected = 0;
        for (size_t i = 0; i < n; i++) {
            expected |= (uint64_t)data[i] << (8 * i);
        }
        CHECK_EQ(expected, acc_get_tail(data, n));
    }
}

/* Each byte of values of each length up to 300, and the length itself, changes the sum. */
static void value_sum_covers_all(void) {
    uint8_t data[300];
    struct chance chance = {3};
    for (size_t i = 0; i < sizeof data; i++) {
        data[i] = (uint8_t)random_bits(&chance);
    }
    for (size_t size = 0; size <= sizeof data; size++) {
        /* A copy of just that size: reading past it is an error of its own. */
        uint8_t *exact = malloc(size + 1);
        memcpy(exact, data, size);
        exact = realloc(exact, size == 0 ? 1 : size);
        uint32_t sum = acc_value_sum(exact, size);
        CHECK_EQ(sum, acc_value_sum(data, size));
        for (size_t i = 0; i < size; i++) {
            exact[i] ^= 0x10;
            CHECK(sum != acc_value_sum(exact, size));
            exact[i] ^= 0x10;
        }
        if (size > 0) {
            CHECK(sum != acc_value_sum(exact, size - 1));
        }
        free(exact);
    }
    memset(data, 0, sizeof data);
    for (size_t size = 1; size <= sizeof data; size++) {
        CHECK(acc_value_sum(data, size) != acc_value_sum(data, size - 1));
    }
}

static void range_covers_all(void) {
    CHECK_EQ(0, acc_range(0, 7));
    CHECK_EQ(6, acc_range(UINT32_MAX, 7));
    CHECK_EQ(0, acc_range(UINT32_MAX, 1));
    uint32_t hits[7] = {0};
    for (uint64_t x = 0; x <= UINT32_MAX; x += 65537) {
        hits[acc_range((uint32_t)x, 7)]++;
    }
    for (int i = 0; i < 7; i++) {
        CHECK(hits[i] > 9000);
    }
}

RUN(30, TEST(siphash_known_answers), TEST(siphash_tells_apart), TEST(hash_of_areas_and_tags),
    TEST(tail_of_any_size), TEST(value_sum_covers_all), TEST(range_covers_all))
