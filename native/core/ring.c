/* Owns the bytes of the rings and the positions head and tail.  Every function that stores is
 * called with the shard lock held. */
#include "ring.h"

uint64_t acc_ring_used(const struct acc_segment *seg, uint32_t shard, uint32_t ring) {
    const struct acc_ring *r = &acc_shard(seg, shard)->ring[ring];
    return acc_offset_distance(seg, ring, acc_load_relaxed(&r->head), acc_load_relaxed(&r->tail));
}

/* 0 for a position that is garbage: what asks for room there goes on at the start of the next lap.
 */
static uint64_t left_to_end(const struct acc_segment *seg, uint32_t ring, uint64_t offset) {
    uint64_t place = acc_place_of(seg, ring, offset), units = seg->geometry.ring_units[ring];
    return place < units ? units - place : 0;
}

bool acc_ring_sound(const struct acc_segment *seg, uint32_t shard, uint32_t ring) {
    const struct acc_ring *r = &acc_shard(seg, shard)->ring[ring];
    uint64_t head = acc_load_relaxed(&r->head), tail = acc_load_relaxed(&r->tail);
    return head <= tail && left_to_end(seg, ring, head) != 0 && left_to_end(seg, ring, tail) != 0 &&
           acc_offset_distance(seg, ring, head, tail) <= seg->geometry.ring_units[ring];
}

uint64_t acc_ring_need(const struct acc_segment *seg, uint32_t shard, uint32_t ring,
                       uint64_t units) {
    uint64_t left = left_to_end(seg, ring, acc_shard(seg, shard)->ring[ring].tail);
    return units <= left ? units : left + units;
}

bool acc_ring_fits(const struct acc_segment *seg, uint32_t shard, uint32_t ring, uint64_t units,
                   uint64_t spare) {
    return acc_ring_used(seg, shard, ring) + acc_ring_need(seg, shard, ring, units) + spare <=
           seg->geometry.ring_units[ring];
}

enum acc_status acc_ring_step(const struct acc_segment *seg, uint32_t shard, uint32_t ring,
                              uint64_t offset, struct acc_view *view, uint64_t *units) {
    struct acc_common common;
    if (left_to_end(seg, ring, offset) == 0) {
        return ACC_CORRUPT;
    }
    memcpy(&common, acc_ring_at(seg, shard, ring, offset), sizeof common);
    if (acc_common_flags(&common) == ACC_ITEM_PAD) {
        *units = acc_common_units(&common);
        return *units == left_to_end(seg, ring, offset) ? ACC_NOT_FOUND : ACC_CORRUPT;
    }
    if (!acc_view_load(seg, shard, ring, offset, view)) {
        return ACC_CORRUPT;
    }
    *units = acc_common_units(&view->common);
    return ACC_OK;
}

bool acc_view_tags(const struct acc_segment *seg, const struct acc_view *view,
                   struct acc_tags *out) {
    uint64_t size = acc_record_size(&view->record);
    uint64_t total = (uint64_t)acc_common_units(&view->common) * ACC_UNIT;
    uint64_t room = acc_view_twice(view) ? acc_view_room(view)
                                         : total - sizeof(struct acc_item) - view->common.key_size;
    return acc_tags_get(seg, view->value + size, room - size, view->record.check, out);
}

uint32_t acc_parts_units(const struct acc_parts *parts) {
    uint64_t value = acc_record_size(&parts->record) + acc_tags_bytes(parts->tags);
    if (parts->twice) {
        return acc_units_of(sizeof(struct acc_item_twice)) + acc_units_of(parts->key_size) +
               2 * acc_units_of(value);
    }
    return acc_units_of(sizeof(struct acc_item) + (uint64_t)parts->key_size + value);
}

/* Fill up from the tail to the ring's end.  Raised tail: killed right after it, the walk finds the
 * padding and goes on. The new tail, at the start of the next lap whatever the old one was. */
static uint64_t pad_to_end(struct acc_segment *seg, uint32_t shard, uint32_t ring, uint64_t tail) {
    uint64_t left = left_to_end(seg, ring, tail);
    if (left != 0) {
        struct acc_common pad = {.units_flags = (uint32_t)left << 8 | ACC_ITEM_PAD};
        memcpy(acc_ring_at(seg, shard, ring, tail), &pad, sizeof pad);
    }
    uint32_t bits = seg->geometry.ring_bits[ring];
    tail = ((tail >> bits) + 1) << bits;
    acc_store_release(&acc_shard(seg, shard)->ring[ring].tail, tail);
    return tail;
}

/* (memcpy of nothing still wants pointers, and an empty value may come without one.) */
static void put_value(uint8_t *at, const uint8_t *value, uint32_t size, const struct acc_tags *tags,
                      uint32_t check) {
    if (size != 0) {
        memcpy(at, value, size);
    }
    if (acc_unlikely(tags != NULL)) {
        acc_tags_put(at + size, tags, check);
    }
}

static uint8_t *put_key(uint8_t *at, const struct acc_parts *parts) {
    *at = parts->tag;
    memcpy(at + 1, parts->key, parts->key_size - 1);
    return at + parts->key_size;
}

static void put_once(uint8_t *at, const struct acc_parts *parts, const struct acc_common *common,
                     const struct acc_record *record) {
    memcpy(at, common, sizeof *common);
    memcpy(at + sizeof *common, record, sizeof *record);
    put_value(put_key(at + sizeof(struct acc_item), parts), parts->value, acc_record_size(record),
              parts->tags, record->check);
}

static void put_twice(uint8_t *at, const struct acc_parts *parts, const struct acc_common *common,
                      const struct acc_record *record) {
    struct acc_item_twice *twice = (struct acc_item_twice *)at;
    memcpy(&twice->common, common, sizeof *common);
    memcpy(&twice->record[0], record, sizeof *record);
    memset(&twice->record[1], 0, sizeof *record);
    twice->sequence = 0;
    twice->reserved = 0;
    put_key(at + sizeof *twice, parts);
    put_value(at + sizeof *twice + acc_units_of(parts->key_size) * (size_t)ACC_UNIT, parts->value,
              acc_record_size(record), parts->tags, record->check);
}

uint64_t acc_ring_append(struct acc_segment *seg, uint32_t shard, uint32_t ring,
                         const struct acc_parts *parts) {
    struct acc_ring *r = &acc_shard(seg, shard)->ring[ring];
    uint32_t units = acc_parts_units(parts);
    /* The victims' index words were replaced before head rose past them.  This fence pairs with the
     * reader's acquire fence: a reader that saw one of the bytes below also sees that its word has
     * changed. */
    acc_fence_release();
    /* Loaded once: whatever is scribbled over it from here on, what is written lies within the
     * ring. */
    uint64_t offset = acc_load_relaxed(&r->tail);
    if (units > left_to_end(seg, ring, offset)) {
        offset = pad_to_end(seg, shard, ring, offset);
    }
    struct acc_common common = {
        .units_flags = units << 8 | (parts->twice ? ACC_ITEM_TWICE : 0),
        .key_size = (uint16_t)parts->key_size,
        .area = parts->area,
    };
    struct acc_record record = parts->record;
    record.check = acc_item_check(offset, &common, &record, 0);
    uint8_t *at = acc_ring_at(seg, shard, ring, offset);
    /* Killed in here: the bytes lie behind tail and are no part of the ring. */
    if (parts->twice) {
        put_twice(at, parts, &common, &record);
    } else {
        put_once(at, parts, &common, &record);
    }
    /* Killed after this store: a complete item that no index word names, dead when the hand comes
     * by. */
    acc_store_release(&r->tail, acc_offset_add(seg, ring, offset, units));
    return offset;
}

void acc_ring_rewrite(const struct acc_view *view, struct acc_raw fresh, const uint8_t *value,
                      const struct acc_tags *tags) {
    struct acc_item_twice *twice = (struct acc_item_twice *)view->item;
    uint32_t next = view->sequence + 1, copy = next & 1;
    fresh.common = acc_get64((const uint8_t *)&view->common);
    fresh.check = acc_raw_check(&fresh, view->offset, copy);
    /* A slow reader may still be copying this copy (selected two sequences ago): behind this fence
     * it is sure to see a newer sequence, and looks again. */
    acc_fence_release();
    acc_raw_store((uint8_t *)&twice->record[copy], &fresh);
    uint8_t *rooms = (uint8_t *)view->item + sizeof *twice +
                     acc_units_of(view->common.key_size) * (size_t)ACC_UNIT;
    put_value(rooms + (size_t)copy * acc_view_room(view), value, acc_raw_size(&fresh), tags,
              fresh.check);
    /* Killed before this store: the other copy is still the one that readers select. */
    acc_store_release(&twice->sequence, next);
}

bool acc_ring_skip_lap(struct acc_segment *seg, uint32_t shard, uint32_t ring, uint64_t units) {
    struct acc_ring *r = &acc_shard(seg, shard)->ring[ring];
    if (units > seg->geometry.ring_units[ring]) {
        return false;
    }
    /* Killed between the two: one piece of padding, which is a ring that can be walked. */
    uint64_t tail = pad_to_end(seg, shard, ring, acc_load_relaxed(&r->tail));
    acc_store_release(&r->head, tail);
    return true;
}

void acc_ring_reset(struct acc_segment *seg, uint32_t shard, uint32_t ring) {
    struct acc_ring *r = &acc_shard(seg, shard)->ring[ring];
    /* To the start of a new lap, which no index word names. */
    uint32_t bits = seg->geometry.ring_bits[ring];
    uint64_t fresh = ((r->tail >> bits) + 2) << bits;
    acc_store_release(&r->head, fresh);
    acc_store_release(&r->tail, fresh);
    r->mid = fresh;
}
