/* Owns the area slots.  A slot is filled, then shown by its state: killed before that, it is free.
 *
 * A version has a slot of its own, on the way from the place where its name is looked for, behind
 * that of the plain area, which is always there first.  `versions` of the plain area's slot is raised
 * before the slot of a version is shown, and before an area that was opened as a version only is
 * used without one.  Killed between the two: it counts one too many until the next version is
 * opened, who counts anew.  Too many is safe: writes look for copies that there are not.  Killed
 * between plain area and version: an area that holds nothing. */
#include "area.h"
#include "lock.h"
#include "override.h"

#include <string.h>

/* What a slot is looked for by. */
struct title {
    const char *name;
    size_t size;
    uint32_t print; /* 0: the plain area */
};

static bool slot_is(const struct acc_area_slot *slot, const struct title *title) {
    return slot->print == title->print && slot->name_size == title->size &&
           memcmp(slot->name, title->name, title->size) == 0;
}

static uint32_t first_slot(const struct acc_segment *seg, const struct title *title) {
    return acc_range(acc_value_sum((const uint8_t *)title->name, title->size), seg->geometry.areas);
}

/* The slot of a title, and the first free one met on the way (slots are never given back). */
static bool find_slot(const struct acc_segment *seg, const struct title *title, uint32_t *out) {
    uint32_t areas = seg->geometry.areas;
    uint32_t start = first_slot(seg, title);
    for (uint32_t n = 0; n < areas; n++) {
        uint32_t i = (start + n) % areas;
        const struct acc_area_slot *slot = acc_area_slot(seg, i);
        bool claimed = acc_load_acquire(&slot->state) == 1;
        if (!claimed || slot_is(slot, title)) {
            *out = i;
            return claimed;
        }
    }
    *out = areas;
    return false;
}

static enum acc_status claim_locked(struct acc_segment *seg, const struct title *title,
                                    uint32_t base, uint32_t *out) {
    if (find_slot(seg, title, out)) {
        return ACC_OK;
    }
    if (*out == seg->geometry.areas) {
        return ACC_FULL;
    }
    struct acc_area_slot *slot = acc_area_slot(seg, *out);
    memcpy(slot->name, title->name, title->size);
    slot->name_size = (uint32_t)title->size;
    slot->print = title->print;
    slot->base = base;
    acc_store_relaxed(&slot->versions, 0u);
    acc_store_release(&slot->state, 1u);
    return ACC_OK;
}

/* All of a name lie between the first place where it is looked for and a free slot. */
static uint32_t count_versions(const struct acc_segment *seg, const struct title *title) {
    uint32_t areas = seg->geometry.areas, start = first_slot(seg, title), count = 0;
    for (uint32_t n = 0; n < areas; n++) {
        const struct acc_area_slot *slot = acc_area_slot(seg, (start + n) % areas);
        const struct title of = {title->name, title->size, slot->print};
        if (acc_load_acquire(&slot->state) != 1) {
            break;
        }
        count += slot->print != 0 && slot_is(slot, &of);
    }
    return count;
}

/* Who deletes raises the key's generation and then loads this word; whoever goes on from here loads
 * generations behind it.  With a full barrier on both sides, either the one looks for copies in all
 * versions, or the other has seen that generation. */
static void show_versions(struct acc_area_slot *base, uint32_t versions) {
    acc_swap_release(&base->versions, versions);
    acc_fence_behind_cas();
}

static enum acc_status open_locked(struct acc_segment *seg, const struct title *title,
                                   uint32_t *out) {
    const struct title plain = {title->name, title->size, 0};
    uint32_t base;
    enum acc_status status = claim_locked(seg, &plain, 0, &base);
    if (status != ACC_OK) {
        return status;
    }
    struct acc_area_slot *slot = acc_area_slot(seg, base);
    uint32_t without = acc_load_relaxed(&slot->versions) & 1;
    if (title->print == 0) {
        show_versions(slot, acc_load_relaxed(&slot->versions) | 1);
        *out = base;
        return ACC_OK;
    }
    if (!find_slot(seg, title, out) && *out != seg->geometry.areas) {
        show_versions(slot, 2 * (count_versions(seg, title) + 1) + without);
    }
    return claim_locked(seg, title, base + 1, out);
}

/* Found without the lock, because it has been opened so before? */
static bool is_open(const struct acc_segment *seg, const struct title *title, uint32_t *out) {
    return find_slot(seg, title, out) &&
           (title->print != 0 || seg->readonly ||
            (acc_load_acquire(&acc_area_slot(seg, *out)->versions) & 1) != 0);
}

static enum acc_status open_slot(struct acc_segment *seg, const struct title *title,
                                 uint32_t *out) {
    if (is_open(seg, title, out)) {
        return ACC_OK;
    }
    enum acc_status status = acc_process_enter(seg, NULL);
    if (status != ACC_OK) {
        return status;
    }
    if (!acc_lock_take(seg, ACC_LOCK_AREAS, 10 * ACC_LOCK_BUDGET_NS)) {
        return ACC_BUSY;
    }
    status = open_locked(seg, title, out);
    acc_lock_give(seg, ACC_LOCK_AREAS);
    return status;
}

void acc_area_at(struct acc_segment *seg, uint32_t id, struct acc_area *out) {
    uint32_t base = acc_area_base(seg, id);
    struct acc_area_slot *slot = acc_area_slot(seg, base);
    memset(out, 0, sizeof *out);
    out->seg = seg;
    out->stamp_now = &seg->self->stamp;
    out->id = id;
    out->generation = &slot->generation;
    out->fresh_until = &slot->fresh_until;
    out->stats = &seg->lost_stats;
    out->stamp = ACC_NEVER_ENTERED;
    out->overrides = acc_override_acted(seg);
    out->base = base;
    out->sole = id == base ? 1 : 2;
    out->versions = &slot->versions;
}

enum acc_status acc_area_open_version(struct acc_segment *seg, const char *name, size_t size,
                                      uint32_t print, struct acc_area *out) {
    const struct title title = {name, size, print};
    uint32_t id;
    if (size == 0 || size > ACC_AREA_NAME_MAX) {
        return ACC_TOO_LARGE;
    }
    enum acc_status status = open_slot(seg, &title, &id);
    if (status == ACC_OK) {
        acc_area_at(seg, id, out);
    }
    return status;
}

enum acc_status acc_area_open(struct acc_segment *seg, const char *name, size_t size,
                              struct acc_area *out) {
    return acc_area_open_version(seg, name, size, 0, out);
}

void acc_area_watch(const struct acc_area *area) {
    if (!area->seg->readonly) {
        acc_store_release(&acc_area_slot(area->seg, area->base)->watched, 1u);
    }
}

struct acc_area_slot *acc_area_find(const struct acc_segment *seg, const char *name, size_t size) {
    const struct title title = {name, size, 0};
    uint32_t id;
    return size <= ACC_AREA_NAME_MAX && find_slot(seg, &title, &id) ? acc_area_slot(seg, id) : NULL;
}

bool acc_area_enter(struct acc_area *area) {
    if (acc_segment_register(area->seg) != ACC_OK) {
        return false;
    }
    area->stats = acc_stats_of(area->seg, area->base);
    acc_store_release(&area->stamp, acc_stamp_of(acc_incarnation(area->seg), area->overrides));
    return true;
}

void acc_area_clear(struct acc_area *area) {
    acc_add_release(area->generation, (uint64_t)1);
}

uint64_t acc_key_hash(const struct acc_area *area, const struct acc_key *key) {
    return acc_hash_in_area(area->seg, area->base, key->tag, key->data, key->size);
}
