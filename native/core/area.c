/* Owns the area slots.  A slot is filled, then shown by its state: killed before that, it is free.
 */
#include "area.h"
#include "lock.h"

#include <string.h>

static bool slot_is(const struct acc_area_slot *slot, const char *name, size_t size) {
    return slot->name_size == size && memcmp(slot->name, name, size) == 0;
}

/* The slot of a name, and the first free one met on the way (slots are never given back). */
static bool find_slot(const struct acc_segment *seg, const char *name, size_t size, uint32_t *out) {
    uint32_t areas = seg->geometry.areas;
    uint32_t start = acc_range(acc_value_sum((const uint8_t *)name, size), areas);
    for (uint32_t n = 0; n < areas; n++) {
        uint32_t i = (start + n) % areas;
        const struct acc_area_slot *slot = acc_area_slot(seg, i);
        bool claimed = acc_load_acquire(&slot->state) == 1;
        if (!claimed || slot_is(slot, name, size)) {
            *out = i;
            return claimed;
        }
    }
    *out = areas;
    return false;
}

static enum acc_status claim_slot(struct acc_segment *seg, const char *name, size_t size,
                                  uint32_t *out) {
    if (!acc_lock_take(seg, ACC_LOCK_AREAS, 10 * ACC_LOCK_BUDGET_NS)) {
        return ACC_BUSY;
    }
    enum acc_status status = ACC_OK;
    if (!find_slot(seg, name, size, out)) {
        if (*out == seg->geometry.areas) {
            status = ACC_FULL;
        } else {
            struct acc_area_slot *slot = acc_area_slot(seg, *out);
            memcpy(slot->name, name, size);
            slot->name_size = (uint32_t)size;
            acc_store_release(&slot->state, 1u);
        }
    }
    acc_lock_give(seg, ACC_LOCK_AREAS);
    return status;
}

enum acc_status acc_area_open(struct acc_segment *seg, const char *name, size_t size,
                              struct acc_area *out) {
    if (size == 0 || size > ACC_AREA_NAME_MAX) {
        return ACC_TOO_LARGE;
    }
    uint32_t id;
    if (!find_slot(seg, name, size, &id)) {
        enum acc_status status = acc_process_enter(seg, NULL);
        if (status == ACC_OK) {
            status = claim_slot(seg, name, size, &id);
        }
        if (status != ACC_OK) {
            return status;
        }
    }
    memset(out, 0, sizeof *out);
    out->seg = seg;
    out->incarnation_now = &seg->self->incarnation;
    out->id = id;
    out->generation = &acc_area_slot(seg, id)->generation;
    out->fresh_until = &acc_area_slot(seg, id)->fresh_until;
    out->stats = &seg->lost_stats;
    out->incarnation = ACC_NEVER_ENTERED;
    return ACC_OK;
}

void acc_area_watch(const struct acc_area *area) {
    if (!area->seg->readonly) {
        acc_store_release(&acc_area_slot(area->seg, area->id)->watched, 1u);
    }
}

struct acc_area_slot *acc_area_find(const struct acc_segment *seg, const char *name, size_t size) {
    uint32_t id;
    return size <= ACC_AREA_NAME_MAX && find_slot(seg, name, size, &id) ? acc_area_slot(seg, id)
                                                                        : NULL;
}

bool acc_area_enter(struct acc_area *area) {
    if (acc_segment_register(area->seg) != ACC_OK) {
        return false;
    }
    area->stats = acc_stats_of(area->seg, area->id);
    acc_store_release(&area->incarnation, acc_incarnation(area->seg));
    return true;
}

void acc_area_clear(struct acc_area *area) {
    acc_add_release(area->generation, (uint64_t)1);
}

uint64_t acc_key_hash(const struct acc_area *area, const struct acc_key *key) {
    return acc_hash_in_area(area->seg, area->id, key->tag, key->data, key->size);
}
