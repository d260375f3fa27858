/* Checksum of values: against memory errors and stray writes, not against an attacker (who has the
 * segment anyway).  Multiply-fold in two lanes, 32 bytes a step; the last step overlaps the one
 * before it, so that no tail is left.  Paid on every write. */
#include "hash.h"

#define P0 0xa0761d6478bd642full
#define P1 0xe7037ed1a0b428dbull
#define P2 0x8ebc6af09c88c6e3ull
#define P3 0x589965cc75374cc3ull

struct lanes {
    uint64_t a, b;
};

static inline struct lanes step(struct lanes lanes, const uint8_t *p) {
    return (struct lanes){
        .a = acc_fold(acc_get64(p) ^ P1, acc_get64(p + 8) ^ lanes.a),
        .b = acc_fold(acc_get64(p + 16) ^ P2, acc_get64(p + 24) ^ lanes.b),
    };
}

/* Fewer than 32 bytes: one or two overlapping pieces of what there is. */
static inline struct lanes short_value(struct lanes lanes, const uint8_t *p, size_t size) {
    if (size >= 8) {
        lanes.a = acc_fold(acc_get64(p) ^ P1, acc_get64(p + size - 8) ^ lanes.a);
        if (size > 16) {
            lanes.b = acc_fold(acc_get64(p + 8) ^ P2, acc_get64(p + size - 16) ^ lanes.b);
        }
    } else {
        lanes.a = acc_fold(acc_get_tail(p, size) ^ P1, lanes.a);
    }
    return lanes;
}

uint32_t acc_value_sum(const uint8_t *data, size_t size) {
    struct lanes lanes = {P0 ^ size, P3};
    if (size < 32) {
        lanes = short_value(lanes, data, size);
    } else {
        const uint8_t *last = data + size - 32;
        for (; data < last; data += 32) {
            lanes = step(lanes, data);
        }
        lanes = step(lanes, last);
    }
    uint64_t sum = acc_fold(lanes.a ^ P2, lanes.b ^ P0);
    return (uint32_t)(sum ^ sum >> 32);
}
