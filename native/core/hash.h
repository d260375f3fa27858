/* Keyed hash of keys, checksum of values, mix for header checks. */
#ifndef ACC_HASH_H
#define ACC_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t acc_rotl(uint64_t x, int b) {
    return (x << b) | (x >> (64 - b));
}

static inline uint64_t acc_get64(const uint8_t *p) {
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}

static inline uint64_t acc_get32(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}

/* The last 0 to 7 bytes as a little-endian number, without a loop. */
static inline uint64_t acc_get_tail(const uint8_t *p, size_t n) {
    if (n >= 4) {
        return acc_get32(p) | acc_get32(p + n - 4) << (8 * (n - 4));
    }
    if (n == 0) {
        return 0;
    }
    return (uint64_t)p[0] | (uint64_t)p[n >> 1] << (8 * (n >> 1)) |
           (uint64_t)p[n - 1] << (8 * (n - 1));
}

#define ACC_SIP_ROUND                                                                              \
    do {                                                                                           \
        v0 += v1;                                                                                  \
        v1 = acc_rotl(v1, 13) ^ v0;                                                                \
        v0 = acc_rotl(v0, 32);                                                                     \
        v2 += v3;                                                                                  \
        v3 = acc_rotl(v3, 16) ^ v2;                                                                \
        v0 += v3;                                                                                  \
        v3 = acc_rotl(v3, 21) ^ v0;                                                                \
        v2 += v1;                                                                                  \
        v1 = acc_rotl(v1, 17) ^ v2;                                                                \
        v2 = acc_rotl(v2, 32);                                                                     \
    } while (0)

/* SipHash-1-3 (Aumasson, Bernstein 2012; one round a word, three to finish, as Rust and CPython use
 * it). Keyed, so that whoever chooses the keys of a web app cannot fill one bucket.  In the header
 * because it is a third of a hit. */
static inline uint64_t acc_siphash(uint64_t k0, uint64_t k1, const uint8_t *data, size_t size) {
    uint64_t v0 = k0 ^ 0x736f6d6570736575ull;
    uint64_t v1 = k1 ^ 0x646f72616e646f6dull;
    uint64_t v2 = k0 ^ 0x6c7967656e657261ull;
    uint64_t v3 = k1 ^ 0x7465646279746573ull;
    const uint8_t *end = data + (size & ~(size_t)7);
    for (; data != end; data += 8) {
        uint64_t m = acc_get64(data);
        v3 ^= m;
        ACC_SIP_ROUND;
        v0 ^= m;
    }
    uint64_t last = acc_get_tail(data, size & 7) | (uint64_t)size << 56;
    v3 ^= last;
    ACC_SIP_ROUND;
    v0 ^= last;
    v2 ^= 0xff;
    ACC_SIP_ROUND;
    ACC_SIP_ROUND;
    ACC_SIP_ROUND;
    return v0 ^ v1 ^ v2 ^ v3;
}

static inline uint64_t acc_fold(uint64_t a, uint64_t b) {
    __extension__ typedef unsigned __int128 wide;
    wide product = (wide)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* A second, unrelated number out of a hash. */
static inline uint64_t acc_remix(uint64_t hash, uint64_t odd) {
    return acc_fold(hash ^ 0x9e3779b97f4a7c15ull, odd);
}

/* Where in 0..n-1 a 32-bit number falls: multiplication in place of a division (Lemire 2019). */
static inline uint32_t acc_range(uint32_t x, uint32_t n) {
    return (uint32_t)(((uint64_t)x * n) >> 32);
}

uint32_t acc_value_sum(const uint8_t *data, size_t size);

#endif
