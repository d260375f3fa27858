/* Checksum of values: against memory errors and stray writes, not against an attacker (who has the
 * segment anyway). Four lanes of multiply-fold, 64 bytes a step, because it is paid on every write.
 */
#include "hash.h"

#define P0 0xa0761d6478bd642full
#define P1 0xe7037ed1a0b428dbull
#define P2 0x8ebc6af09c88c6e3ull
#define P3 0x589965cc75374cc3ull

uint32_t acc_value_sum(const uint8_t *data, size_t size) {
    uint64_t a = P0 ^ size, b = P1, c = P2, d = P3;
    size_t left = size;
    for (; left >= 64; left -= 64, data += 64) {
        a = acc_fold(acc_get64(data) ^ P1, acc_get64(data + 8) ^ a);
        b = acc_fold(acc_get64(data + 16) ^ P2, acc_get64(data + 24) ^ b);
        c = acc_fold(acc_get64(data + 32) ^ P3, acc_get64(data + 40) ^ c);
        d = acc_fold(acc_get64(data + 48) ^ P0, acc_get64(data + 56) ^ d);
    }
    for (; left >= 16; left -= 16, data += 16) {
        a = acc_fold(acc_get64(data) ^ P1, acc_get64(data + 8) ^ a);
    }
    if (left >= 8) {
        b = acc_fold(acc_get64(data) ^ P2, b);
        left -= 8;
        data += 8;
    }
    c = acc_fold(acc_get_tail(data, left) ^ P3, c ^ left);
    uint64_t sum = acc_fold(a ^ c, b ^ d ^ P0);
    return (uint32_t)(sum ^ sum >> 32);
}
