/* Owns the table of tags and tag_clock; adds to the areas' tag_epoch.  Takes no lock. */
#include "tags.h"

#include <stdio.h>

#define PENDING 1u
/* What no clock reaches in a segment's life. */
#define CLOCK_MAX (1ull << 62)

enum field { DELETED, EXPIRED };

static uint64_t count_in(uint64_t word) {
    return word >> 1;
}

static uint64_t *word_of(const struct acc_segment *seg, uint32_t slot, enum field field) {
    struct acc_tag_slot *at = acc_tag_slot(seg, slot);
    return field == DELETED ? &at->deleted : &at->expired;
}

uint64_t acc_tag_clock(const struct acc_segment *seg) {
    return acc_load_acquire(&acc_header(seg)->tag_clock);
}

uint64_t acc_tag_hash(const struct acc_area *area, const uint8_t *tag, uint32_t size) {
    return acc_hash_in_area(area->seg, area->base, ACC_TAG_TAG, tag, size);
}

static void slots_of(const struct acc_segment *seg, uint64_t hash, uint32_t slot[2]) {
    uint32_t mask = seg->geometry.tags - 1;
    slot[0] = (uint32_t)hash & mask;
    slot[1] = (uint32_t)(hash >> 32) & mask;
    if (slot[1] == slot[0]) { /* two that are one protect nobody */
        slot[1] = (slot[1] + 1) & mask;
    }
}

void acc_tags_add(const struct acc_segment *seg, struct acc_tags *tags, uint64_t hash) {
    slots_of(seg, hash, &tags->slot[2 * tags->count]);
    tags->count++;
}

/* --- blocks ----------------------------------------------------------------------------------- */

static uint32_t check_of(const struct acc_tags *tags, uint32_t salt) {
    uint64_t x = acc_fold(tags->since ^ 0xa0761d6478bd642full,
                          (salt | (uint64_t)tags->count << 32) ^ 0xe7037ed1a0b428dbull);
    for (uint32_t i = 0; i < tags->count; i++) {
        uint64_t pair = tags->slot[2 * i] | (uint64_t)tags->slot[2 * i + 1] << 32;
        x = acc_fold(x ^ pair, 0x8ebc6af09c88c6e3ull);
    }
    return (uint32_t)(x ^ x >> 32);
}

void acc_tags_put(uint8_t *at, const struct acc_tags *tags, uint32_t salt) {
    const struct acc_tag_block block = {
        .check = check_of(tags, salt), .count = tags->count, .since = tags->since};
    memcpy(at, &block, sizeof block);
    memcpy(at + sizeof block, tags->slot, 8 * (size_t)tags->count);
}

bool acc_tags_get(const struct acc_segment *seg, const uint8_t *at, uint64_t room, uint32_t salt,
                  struct acc_tags *out) {
    struct acc_tag_block block;
    if (room < sizeof block) {
        return false;
    }
    memcpy(&block, at, sizeof block);
    out->since = block.since;
    out->count = block.count;
    uint64_t bytes = 8 * (uint64_t)block.count; /* two slots a tag */
    if (block.count == 0 || block.count > ACC_TAGS_MAX || sizeof block + bytes > room) {
        return false;
    }
    memcpy(out->slot, at + sizeof block, bytes);
    for (uint32_t i = 0; i < 2 * block.count; i++) {
        if (out->slot[i] >= seg->geometry.tags) {
            return false;
        }
    }
    /* The clock behind the block: whoever stored it had read the clock before. */
    return block.check == check_of(out, salt) && block.since <= acc_tag_clock(seg);
}

/* --- judging ---------------------------------------------------------------------------------- */

/* The word of a slot; one that the clock has not reached is set back.  (The clock is loaded behind
 * the word: whoever raised it had advanced the clock before.) */
static uint64_t sound_word(const struct acc_segment *seg, uint64_t *word) {
    uint64_t seen = acc_load_acquire(word), clock = acc_tag_clock(seg);
    if (acc_likely(count_in(seen) <= clock)) {
        return seen;
    }
    if (!seg->readonly) {
        acc_cas64(word, seen, clock << 1);
    }
    return clock << 1;
}

static uint64_t last(const struct acc_segment *seg, const struct acc_tags *tags, uint32_t i,
                     enum field field) {
    uint64_t first = sound_word(seg, word_of(seg, tags->slot[2 * i], field));
    uint64_t second = sound_word(seg, word_of(seg, tags->slot[2 * i + 1], field));
    return count_in(first) < count_in(second) ? count_in(first) : count_in(second);
}

/* When was one of them last deleted, or expired? */
static uint64_t last_of_all(const struct acc_segment *seg, const struct acc_tags *tags,
                            enum field field) {
    uint64_t latest = 0;
    for (uint32_t i = 0; i < tags->count; i++) {
        uint64_t one = last(seg, tags, i, field);
        latest = one > latest ? one : latest;
    }
    return latest;
}

uint64_t acc_tags_changed(const struct acc_segment *seg, const struct acc_tags *tags) {
    uint64_t deleted = last_of_all(seg, tags, DELETED), expired = last_of_all(seg, tags, EXPIRED);
    return deleted > expired ? deleted : expired;
}

/* Are there marks on the slots?  Then the epoch has to change before anybody is told.  The marks stay,
 * because it may be another area's operation that left them, which owes its epoch as much. */
static void help(const struct acc_segment *seg, uint32_t area, const struct acc_tags *tags,
                 enum field field) {
    bool pending = false;
    for (uint32_t i = 0; i < 2 * tags->count; i++) {
        pending = pending || acc_load_acquire(word_of(seg, tags->slot[i], field)) & PENDING;
    }
    if (pending && !seg->readonly) {
        acc_add_release(&acc_area_slot(seg, area)->tag_epoch, (uint64_t)1);
    }
}

enum acc_tags_state acc_tags_judge(const struct acc_segment *seg, uint32_t area,
                                   const struct acc_tags *tags) {
    if (last_of_all(seg, tags, DELETED) > tags->since) {
        help(seg, area, tags, DELETED);
        return ACC_TAGS_DELETED;
    }
    if (last_of_all(seg, tags, EXPIRED) > tags->since) {
        help(seg, area, tags, EXPIRED);
        return ACC_TAGS_EXPIRED;
    }
    return ACC_TAGS_HOLD;
}

/* --- the operation ---------------------------------------------------------------------------- */

static void raise_to(uint64_t *word, uint64_t count) {
    uint64_t seen = acc_load_relaxed(word);
    while (count_in(seen) < count && !acc_cas64(word, seen, count << 1 | PENDING)) {
        seen = acc_load_relaxed(word);
    }
}

void acc_tags_mark(struct acc_area *area, const uint64_t *hashes, uint32_t count, bool expire) {
    struct acc_segment *seg = area->seg;
    enum field field = expire ? EXPIRED : DELETED;
    uint64_t now = acc_add_release(&acc_header(seg)->tag_clock, (uint64_t)1) + 1;
    if (acc_unlikely(now - 1 >= CLOCK_MAX)) {
        acc_add_release(area->generation, (uint64_t)1);
        return;
    }
    uint32_t slot[2];
    for (uint32_t i = 0; i < count; i++) {
        slots_of(seg, hashes[i], slot);
        raise_to(word_of(seg, slot[0], field), now);
        raise_to(word_of(seg, slot[1], field), now);
    }
    acc_add_release(&acc_area_slot(seg, area->base)->tag_epoch, (uint64_t)1);
    for (uint32_t i = 0; i < count; i++) {
        slots_of(seg, hashes[i], slot);
        acc_cas64(word_of(seg, slot[0], field), now << 1 | PENDING, now << 1);
        acc_cas64(word_of(seg, slot[1], field), now << 1 | PENDING, now << 1);
    }
}

/* --- repair and check ------------------------------------------------------------------------- */

void acc_tags_sweep(struct acc_segment *seg) {
    uint64_t clock = acc_tag_clock(seg);
    if (clock >= CLOCK_MAX) { /* then every item with tags is from beyond it, and is dropped */
        acc_cas64(&acc_header(seg)->tag_clock, clock, 0);
    }
    for (uint32_t i = 0; i < seg->geometry.tags; i++) {
        sound_word(seg, word_of(seg, i, DELETED));
        sound_word(seg, word_of(seg, i, EXPIRED));
    }
}

uint32_t acc_tags_check(const struct acc_segment *seg, acc_report *report, void *context) {
    uint32_t violations = 0;
    for (uint32_t i = 0; i < seg->geometry.tags; i++) {
        const struct acc_tag_slot *slot = acc_tag_slot(seg, i);
        uint64_t deleted = acc_load_acquire(&slot->deleted),
                 expired = acc_load_acquire(&slot->expired), clock = acc_tag_clock(seg);
        if (count_in(deleted) > clock || count_in(expired) > clock) {
            char text[80];
            snprintf(text, sizeof text, "tags: slot %u has a count that was not given out", i);
            report(context, text);
            violations++;
        }
    }
    return violations;
}
