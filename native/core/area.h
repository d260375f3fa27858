/* Areas: names, generations, gauges. */
#ifndef ACC_AREA_H
#define ACC_AREA_H

#include "hash.h"
#include "stats.h"

/* The keyed hash of a key of one plain area: the segment's random key, the area and the type tag are
 * mixed into the key of the hash, so that no two areas and no two types share a sequence of hashes.
 */
static inline uint64_t acc_hash_in_area(const struct acc_segment *seg, uint32_t area, uint8_t tag,
                                        const uint8_t *data, size_t size) {
    return acc_siphash(seg->hash_key[0] ^ (uint64_t)(area + 1) * 0x9e3779b97f4a7c15ull,
                       seg->hash_key[1] ^ (uint64_t)tag << 32, data, size);
}

/* The same of a key that lies in an item. */
static inline uint64_t acc_hash_of_item(const struct acc_segment *seg, uint32_t area,
                                        const uint8_t *key, size_t size) {
    return acc_hash_in_area(seg, acc_area_base(seg, area), key[0], key + 1, size - 1);
}

/* May a key of this area have values in other versions than this one? */
static inline bool acc_area_shared(const struct acc_area *area) {
    return acc_unlikely(acc_load_acquire(area->versions) > area->sole);
}

/* The area of a claimed slot, that of a version too; not entered. */
void acc_area_at(struct acc_segment *seg, uint32_t id, struct acc_area *out);

/* After a fork or a fence: this process's identity and counter block.  False: it cannot register.
 * It is entered from here on if the overrides that it was bound under are still those that this
 * process acts on. */
bool acc_area_enter(struct acc_area *area);

/* True if this process may act (write, count) under the identity that the area last saw, and under
 * the overrides that it was bound under.  One comparison, because it stands before every hit: false
 * in a fork child (the page reads 0), after a fence, before the first entry, and once the process
 * has noticed that other overrides are in force. */
static inline bool acc_area_entered(const struct acc_area *area) {
    return acc_likely(area->stamp == acc_load_relaxed(area->stamp_now));
}

/* It is held to a bound, so somebody has to listen for it; never taken back. */
void acc_area_watch(const struct acc_area *area);
/* The slot of a name's plain area, NULL if no area of that name was ever opened. */
struct acc_area_slot *acc_area_find(const struct acc_segment *seg, const char *name, size_t size);

#endif
