/* Append-only byte rings: offsets, headers of items, walking.
 *
 * A logical offset counts units and never repeats (2^47 of them are written in a ring's life at the
 * earliest after weeks of flat-out writing): low bits the place in the ring, above them the lap. So
 * the place needs no division, and an index word that is unchanged still names the same bytes: it
 * is the lap check.
 *
 * Who may store: only the holder of the shard lock.  What a killed holder leaves: `tail` moves only
 * behind a complete item and `head` only past items whose index words are gone, so between head and
 * tail there are whole items. */
#ifndef ACC_RING_H
#define ACC_RING_H

#include "hash.h"
#include "segment.h"
#include "tags.h"

#define ACC_OFFSET_BITS 47
#define ACC_OFFSET_MASK ((1ull << ACC_OFFSET_BITS) - 1)

#define ACC_RECORD_TAGGED (1u << 31)
_Static_assert(ACC_CODE_LIMIT == 1 << 5, "five bits of code beside it");

#define ACC_ITEM_UNITS_MIN (sizeof(struct acc_item) / ACC_UNIT)
#define ACC_ITEM_UNITS_MAX 0xffffffu /* as many as the header can tell */
_Static_assert((ACC_VALUE_MAX + ACC_KEY_MAX) / ACC_UNIT + 16 < ACC_ITEM_UNITS_MAX,
               "one copy of the largest value fits the header, two of them may not");

static inline uint64_t acc_place_of(const struct acc_segment *seg, uint32_t ring, uint64_t offset) {
    return offset & ((1ull << seg->geometry.ring_bits[ring]) - 1);
}

static inline uint8_t *acc_ring_at(const struct acc_segment *seg, uint32_t shard, uint32_t ring,
                                   uint64_t offset) {
    return acc_ring_base(seg, shard, ring) + acc_place_of(seg, ring, offset) * ACC_UNIT;
}

/* The offset `units` further; the caller has seen to it that they do not cross the ring's end. */
static inline uint64_t acc_offset_add(const struct acc_segment *seg, uint32_t ring, uint64_t offset,
                                      uint64_t units) {
    uint64_t place = acc_place_of(seg, ring, offset) + units;
    if (place < seg->geometry.ring_units[ring]) {
        return offset + units;
    }
    uint32_t bits = seg->geometry.ring_bits[ring];
    return ((offset >> bits) + 1) << bits;
}

/* Units from one offset to a later one. */
static inline uint64_t acc_offset_distance(const struct acc_segment *seg, uint32_t ring,
                                           uint64_t from, uint64_t to) {
    uint32_t bits = seg->geometry.ring_bits[ring];
    uint64_t laps = (to >> bits) - (from >> bits);
    return laps * seg->geometry.ring_units[ring] + acc_place_of(seg, ring, to) -
           acc_place_of(seg, ring, from);
}

static inline uint32_t acc_units_of(uint64_t bytes) {
    return (uint32_t)((bytes + ACC_UNIT - 1) / ACC_UNIT);
}

static inline uint32_t acc_common_units(const struct acc_common *common) {
    return common->units_flags >> 8;
}

static inline uint8_t acc_common_flags(const struct acc_common *common) {
    return (uint8_t)common->units_flags;
}

static inline uint32_t acc_record_size(const struct acc_record *record) {
    return record->size_code & 0x3ffffffu;
}

static inline uint8_t acc_record_code(const struct acc_record *record) {
    return (uint8_t)(record->size_code >> 26 & (ACC_CODE_LIMIT - 1));
}

static inline bool acc_record_tagged(const struct acc_record *record) {
    return (record->size_code & ACC_RECORD_TAGGED) != 0;
}

/* The fixed fields of a header as four words and the sum, in the order they lie in memory.  Loaded
 * once, and then only used from here: what was verified is what is believed.  (Words and not the
 * structs, because fields stored one by one and loaded together again stall a processor for longer
 * than the whole check takes.) */
struct acc_raw {
    uint64_t common;
    uint64_t size_expire;
    uint64_t stale_loaded;
    uint64_t counts;
    uint32_t sum;
    uint32_t check;
};

static inline struct acc_raw acc_raw_load(const uint8_t *common, const uint8_t *record) {
    return (struct acc_raw){
        .common = acc_get64(common),
        .check = (uint32_t)acc_get32(record),
        .size_expire = acc_get64(record + offsetof(struct acc_record, size_code)),
        .stale_loaded = acc_get64(record + offsetof(struct acc_record, stale_until)),
        .counts = acc_get64(record + offsetof(struct acc_record, key_count)),
        .sum = (uint32_t)acc_get32(record + offsetof(struct acc_record, value_sum)),
    };
}

static inline struct acc_raw acc_raw_of(const struct acc_common *common,
                                        const struct acc_record *record) {
    return (struct acc_raw){
        .common =
            common->units_flags | (uint64_t)common->key_size << 32 | (uint64_t)common->area << 48,
        .size_expire = record->size_code | (uint64_t)record->expire_at << 32,
        .stale_loaded = record->stale_until | (uint64_t)record->loaded_at << 32,
        .counts = record->key_count | (uint64_t)record->area_count << 32,
        .sum = record->value_sum,
        .check = record->check,
    };
}

static inline struct acc_common acc_raw_common(const struct acc_raw *raw) {
    return (struct acc_common){(uint32_t)raw->common, (uint16_t)(raw->common >> 32),
                               (uint16_t)(raw->common >> 48)};
}

static inline struct acc_record acc_raw_record(const struct acc_raw *raw) {
    return (struct acc_record){
        .check = raw->check,
        .size_code = (uint32_t)raw->size_expire,
        .expire_at = (uint32_t)(raw->size_expire >> 32),
        .stale_until = (uint32_t)raw->stale_loaded,
        .loaded_at = (uint32_t)(raw->stale_loaded >> 32),
        .key_count = (uint32_t)raw->counts,
        .area_count = (uint32_t)(raw->counts >> 32),
        .value_sum = raw->sum,
    };
}

/* The record among them to where it lies. */
static inline void acc_raw_store(uint8_t *record, const struct acc_raw *raw) {
    memcpy(record, &raw->check, sizeof raw->check);
    memcpy(record + offsetof(struct acc_record, size_code), &raw->size_expire, 8);
    memcpy(record + offsetof(struct acc_record, stale_until), &raw->stale_loaded, 8);
    memcpy(record + offsetof(struct acc_record, key_count), &raw->counts, 8);
    memcpy(record + offsetof(struct acc_record, value_sum), &raw->sum, sizeof raw->sum);
}

static inline uint32_t acc_raw_size(const struct acc_raw *raw) {
    return (uint32_t)raw->size_expire & 0x3ffffffu;
}

/* Check of a header: three multiply-folds over its fields, salted with the offset so that bytes of
 * another lap or place never verify. */
static inline uint32_t acc_raw_check(const struct acc_raw *raw, uint64_t offset, uint32_t copy) {
    /* The low byte of units_flags holds the flags: we build for little-endian machines only. */
    uint64_t common = raw->common & ~(uint64_t)ACC_ITEM_DEAD;
    uint64_t salt = (offset & ACC_OFFSET_MASK) << 1 | copy;
    uint64_t x =
        acc_fold(common ^ 0xa0761d6478bd642full, raw->size_expire ^ salt ^ 0xe7037ed1a0b428dbull);
    uint64_t y =
        acc_fold(raw->stale_loaded ^ 0x8ebc6af09c88c6e3ull, raw->counts ^ 0x589965cc75374cc3ull);
    uint64_t z = acc_fold(x ^ raw->sum, y ^ 0x1d8e4e27c47d124full);
    return (uint32_t)(z ^ z >> 32);
}

static inline uint32_t acc_item_check(uint64_t offset, const struct acc_common *common,
                                      const struct acc_record *record, uint32_t copy) {
    struct acc_raw raw = acc_raw_of(common, record);
    return acc_raw_check(&raw, offset, copy);
}

/* A verified local copy of an item's header, and where its parts are. */
struct acc_view {
    const uint8_t *item;
    const uint8_t *key; /* tag byte first */
    const uint8_t *value;
    uint64_t offset;
    uint32_t ring;
    uint32_t sequence; /* of an item with two copies */
    struct acc_common common;
    struct acc_record record;
};

static inline bool acc_view_twice(const struct acc_view *view) {
    return acc_common_flags(&view->common) & ACC_ITEM_TWICE;
}

static inline bool acc_view_dead(const struct acc_view *view) {
    return acc_common_flags(&view->common) & ACC_ITEM_DEAD;
}

/* Note in the item that no word names it any more, so that the hands need not look.  Shard lock
 * held. */
static inline void acc_view_retire(const struct acc_view *view) {
    uint32_t *units_flags = (uint32_t *)(uintptr_t)view->item;
    acc_store_relaxed(units_flags, view->common.units_flags | ACC_ITEM_DEAD);
}

/* Bytes of room for the value in each copy. */
static inline uint32_t acc_view_room(const struct acc_view *view) {
    uint64_t total = (uint64_t)acc_common_units(&view->common) * ACC_UNIT;
    uint64_t key = acc_units_of(view->common.key_size) * (uint64_t)ACC_UNIT;
    return (uint32_t)((total - sizeof(struct acc_item_twice) - key) / 2 / ACC_UNIT * ACC_UNIT);
}

/* The tags behind the value of a verified item that has some.  False: they do not verify, because the
 * item was written over, or is corrupt. */
bool acc_view_tags(const struct acc_segment *seg, const struct acc_view *view,
                   struct acc_tags *out);

/* The same for an item with two copies; view's item, offset, ring and common are filled in.  (Inline
 * by force: with one caller more the compiler would make a call of it, a twentieth of a set.) */
static inline __attribute__((always_inline)) bool acc_view_load_twice(struct acc_view *view,
                                                                      uint64_t left) {
    uint64_t units = acc_common_units(&view->common);
    uint64_t fixed =
        sizeof(struct acc_item_twice) + acc_units_of(view->common.key_size) * (uint64_t)ACC_UNIT;
    if (acc_unlikely((acc_common_flags(&view->common) & ~ACC_ITEM_DEAD) != ACC_ITEM_TWICE ||
                     units > left || fixed > units * ACC_UNIT || view->common.key_size == 0)) {
        view->common.units_flags =
            0; /* its sequence may lie outside the ring: nobody may look at it again */
        return false;
    }
    const struct acc_item_twice *twice = (const struct acc_item_twice *)view->item;
    view->sequence = acc_load_acquire(&twice->sequence);
    uint32_t copy = view->sequence & 1, room = acc_view_room(view);
    struct acc_raw raw =
        acc_raw_load((const uint8_t *)&view->common, (const uint8_t *)&twice->record[copy]);
    view->record = acc_raw_record(&raw);
    view->key = view->item + sizeof *twice;
    view->value = view->item + fixed + (uint64_t)copy * room;
    return acc_record_size(&view->record) <= room &&
           raw.check == acc_raw_check(&raw, view->offset, copy);
}

/* Verify the header of an item with one copy that lies at `item`, of which the caller knows that it
 * lies in a ring. */
static inline __attribute__((always_inline)) bool acc_view_load_at(const uint8_t *item,
                                                                   uint64_t offset,
                                                                   struct acc_view *view) {
    struct acc_raw raw = acc_raw_load(item, item + sizeof view->common);
    view->item = item;
    view->offset = offset;
    view->sequence = 0;
    view->common = acc_raw_common(&raw);
    view->record = acc_raw_record(&raw);
    view->key = item + sizeof(struct acc_item);
    view->value = view->key + view->common.key_size;
    uint64_t bytes =
        sizeof(struct acc_item) + (uint64_t)view->common.key_size + acc_record_size(&view->record);
    return acc_likely(raw.check == acc_raw_check(&raw, offset, 0)) &&
           (acc_common_flags(&view->common) & ~ACC_ITEM_DEAD) == 0 && view->common.key_size != 0 &&
           bytes <= (uint64_t)acc_common_units(&view->common) * ACC_UNIT;
}

/* Copy and verify the header of the item at `offset`.  Nothing that is read here is believed before
 * the check has passed, and then every part still has to lie within the item and the item within
 * the ring. */
static inline __attribute__((always_inline)) bool acc_view_load(const struct acc_segment *seg,
                                                                uint32_t shard, uint32_t ring,
                                                                uint64_t offset,
                                                                struct acc_view *view) {
    uint64_t place = acc_place_of(seg, ring, offset);
    uint64_t units_max = seg->geometry.ring_units[ring];
    if (acc_unlikely(place + ACC_ITEM_UNITS_MIN > units_max)) {
        view->common.units_flags = 0; /* no item, so no sequence to look at again */
        return false;
    }
    const uint8_t *item = acc_ring_base(seg, shard, ring) + place * ACC_UNIT;
    view->ring = ring;
    struct acc_common common;
    memcpy(&common, item, sizeof common);
    if (acc_unlikely((acc_common_flags(&common) & ~ACC_ITEM_DEAD) != 0)) {
        view->item = item;
        view->offset = offset;
        view->common = common;
        return acc_view_load_twice(view, units_max - place);
    }
    return acc_view_load_at(item, offset, view) &&
           place + acc_common_units(&view->common) <= units_max;
}

/* Has an item with two copies been rewritten since it was loaded?  (Call behind an acquire fence.)
 */
static inline bool acc_view_current(const struct acc_view *view) {
    return !acc_view_twice(view) ||
           acc_load_relaxed(&((const struct acc_item_twice *)view->item)->sequence) ==
               view->sequence;
}

/* What stands at `offset`, which lies in [head, tail): its units in `*units`.
 * ACC_OK an item, in *view; ACC_NOT_FOUND padding; ACC_CORRUPT. */
enum acc_status acc_ring_step(const struct acc_segment *seg, uint32_t shard, uint32_t ring,
                              uint64_t offset, struct acc_view *view, uint64_t *units);

/* Can head and tail be those of this ring at all? */
bool acc_ring_sound(const struct acc_segment *seg, uint32_t shard, uint32_t ring);
uint64_t acc_ring_used(const struct acc_segment *seg, uint32_t shard, uint32_t ring);
/* Units that must be free for an item of `units` to go in at the tail, with the padding before the
 * ring's end. */
uint64_t acc_ring_need(const struct acc_segment *seg, uint32_t shard, uint32_t ring,
                       uint64_t units);
/* Does it go in, and leave `spare` units free?  (They need not be in one piece.) */
bool acc_ring_fits(const struct acc_segment *seg, uint32_t shard, uint32_t ring, uint64_t units,
                   uint64_t spare);

/* Everything an item is made of. */
struct acc_parts {
    const uint8_t *key; /* payload, without the tag */
    const uint8_t *value;
    uint32_t key_size; /* with the tag byte */
    uint8_t tag;
    uint16_t area;
    bool twice;
    const struct acc_tags *tags; /* NULL: none, as the record says, too */
    struct acc_record record;    /* check is filled in */
};

uint32_t acc_parts_units(const struct acc_parts *parts);
/* Write the item behind the tail and raise the tail.  It fits: the caller has made room.  The new
 * offset. */
uint64_t acc_ring_append(struct acc_segment *seg, uint32_t shard, uint32_t ring,
                         const struct acc_parts *parts);
/* Rewrite the copy that is not selected, then select it.  (fresh.common and fresh.check are filled
 * in.) */
void acc_ring_rewrite(const struct acc_view *view, struct acc_raw fresh, const uint8_t *value,
                      const struct acc_tags *tags);
/* An empty ring whose tail stands so near its end that `units` do not fit: go on at the start of
 * the next lap. False: they never fit this ring. */
bool acc_ring_skip_lap(struct acc_segment *seg, uint32_t shard, uint32_t ring, uint64_t units);
/* Forget everything in a ring whose content cannot be walked. */
void acc_ring_reset(struct acc_segment *seg, uint32_t shard, uint32_t ring);

#endif
