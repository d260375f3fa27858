/* Tags: what makes many values go at once, without a list of who carries which.
 *
 * A tag owns two slots of a table, as in a Bloom filter.  A slot says when a tag of it was last
 * deleted and last expired, in counts of `tag_clock`, which every operation by tag advances by one; the
 * last deletion of a tag is the lesser of what its two slots say: never less than the truth, and
 * more only if neighbours have raised both.  An item with tags carries, behind its value, the slots
 * of its tags and `since`, the clock when its load began.  It is dead if one of its tags was deleted
 * at a later count, and no longer fresh if one was expired at a later one.
 *
 * Order of an operation: (1) take a count; (2) raise both slots of each tag to it, marked PENDING;
 * (3) add one to the area's `tag_epoch`; (4) take the marks away.
 *
 * Invariants:
 *  - What began to load, or to be stored, after (1) has since >= count: not concerned.  What began
 *    before has a lesser one, and is dead for whoever looks behind (2).
 *  - Whoever has seen an epoch, and behind that found the tags of an item in force, may believe them
 *    for as long as the epoch is the same: an operation that returns has added to it behind its
 *    stores.  (Added, and not raised to the count: of two operations at once the later count may be
 *    there first, and the other would change nothing.)
 *  - Whoever says "gone" or "stale" because of a slot with the mark has added to the epoch first, so
 *    that those who go by the epoch say it from then on, too; and whoever says "gone" has replaced the
 *    item's index word, by which they go as well.
 *
 * Killed behind (1): a count that nobody uses.  In (2), between the two slots of a tag: it is not
 * deleted, and the call has not returned; its neighbours are concerned no more than by the other
 * slot.  Behind (2): deleted for those who read the item; the first of them has the others look
 * again.  Behind (3): deleted, for all; who finds the mark adds to the epoch once more than needed.
 * (Marks that are left behind cost just that, until the slot is raised again.)
 *
 * Garbage: a count of a slot that the clock has not reached is set back to the clock by whoever meets
 * it (values that began before are gone, later ones are not concerned).  An item from beyond the
 * clock, or whose block does not verify, is corrupt.  A clock that can only be garbage cannot be
 * counted on: the operation clears the area, and the measurement begins it anew. */
#ifndef ACC_TAGS_H
#define ACC_TAGS_H

#include "area.h"

/* Bytes of a block behind a value; 0 without tags. */
static inline uint32_t acc_tags_bytes(const struct acc_tags *tags) {
    return tags == NULL ? 0 : (uint32_t)sizeof(struct acc_tag_block) + 8 * tags->count;
}

/* Write a block; `salt` is the check of the record beside it, so that no other record's verifies. */
void acc_tags_put(uint8_t *at, const struct acc_tags *tags, uint32_t salt);
/* Read one that lies in at most `room` bytes.  False: it does not verify. */
bool acc_tags_get(const struct acc_segment *seg, const uint8_t *at, uint64_t room, uint32_t salt,
                  struct acc_tags *out);

enum acc_tags_state { ACC_TAGS_HOLD, ACC_TAGS_EXPIRED, ACC_TAGS_DELETED };

/* What has become of a value with these tags, in this area: a plain one, as tags are of all its
 * versions. */
enum acc_tags_state acc_tags_judge(const struct acc_segment *seg, uint32_t area,
                                   const struct acc_tags *tags);

/* Set back what the clock has not reached; by the measurement. */
void acc_tags_sweep(struct acc_segment *seg);
uint32_t acc_tags_check(const struct acc_segment *seg, acc_report *report, void *context);

#endif
