/* The rare ends of the read: what does not verify, and what changes faster than it can be read. */
#include "read.h"
#include "lock.h"

bool acc_read_drop_corrupt(const struct acc_area *area, struct acc_slot slot, uint64_t word) {
    if (area->seg->readonly) {
        return true;
    }
    struct acc_segment *seg = area->seg;
    uint32_t shard = (uint32_t)(slot.bucket - acc_bucket(seg, 0, 0)) / seg->geometry.buckets;
    if (!acc_index_remove(seg, shard, slot, word)) {
        return false;
    }
    acc_count(area->stats, ACC_CORRUPT_ITEM);
    return true;
}

bool acc_found_tags_live(const struct acc_area *area, struct acc_found *found) {
    struct acc_tags tags;
    if (!acc_view_tags(area->seg, &found->view, &tags)) {
        if (acc_read_valid(found)) {
            acc_read_drop_corrupt(area, found->slot, found->word);
        }
        return false;
    }
    enum acc_tags_state state = acc_tags_judge(area->seg, area->base, &tags);
    if (acc_likely(state == ACC_TAGS_HOLD) ||
        (state == ACC_TAGS_EXPIRED && acc_record_expire(&found->view.record, acc_now(area->seg)))) {
        return true;
    }
    /* An item with two copies may have been rewritten under the same word, and be alive again. */
    if (acc_read_valid(found)) {
        acc_read_help_delete(area, found);
    }
    return false;
}

enum acc_status acc_read_find_bounded(struct acc_area *area, const struct acc_home *home,
                                      const struct acc_key *key, struct acc_found *found) {
    for (int tries = 0; tries < ACC_READ_TRIES; tries++) {
        enum acc_status status = acc_read_find(area, home, key, found);
        if (status != ACC_RACE) {
            return status;
        }
    }
    struct acc_segment *seg = area->seg;
    if (seg->readonly || !acc_area_entered(area) || !acc_lock_take(seg, home->shard, 0)) {
        return ACC_RACE;
    }
    /* Nobody rewrites or moves now; only deletes go on. */
    enum acc_status status = acc_read_find(area, home, key, found);
    acc_lock_give(seg, home->shard);
    return status;
}
