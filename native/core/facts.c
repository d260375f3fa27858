/* Owns the table of facts: a row for each area slot, used of plain areas.
 *
 * No lock.  Any process writes, whole rows; two at once, or a kill in between, leave a row whose
 * check does not verify.  Such a row tells nothing, and whoever writes next writes all of it.  So
 * that two that wrote at once do not leave it so, each looks at its row once more behind its last
 * store and writes again: whoever stored last finds it whole, or makes it so.
 *
 * `changed` is a count for people: it is raised, on its own, by whoever finds other numbers than he
 * has.  A kill between the two loses one. */
#include "facts.h"
#include "hash.h"

#include <string.h>

#define TRIES 4

/* A row of zeros was never written: its check would not be 0. */
static uint32_t check_of(uint32_t area, const uint32_t facts[ACC_FACTS]) {
    uint32_t sum = acc_value_sum((const uint8_t *)facts, ACC_FACTS * sizeof *facts);
    uint32_t check = (uint32_t)acc_remix(sum, 2ull * area + 1);
    return check == 0 ? 1 : check;
}

static uint32_t load(const struct acc_facts *row, uint32_t facts[ACC_FACTS]) {
    uint32_t check = acc_load_acquire(&row->check);
    for (uint32_t i = 0; i < ACC_FACTS; i++) {
        facts[i] = acc_load_relaxed(&row->fact[i]);
    }
    return check;
}

bool acc_facts_read(const struct acc_segment *seg, uint32_t area, uint32_t facts[ACC_FACTS],
                    uint32_t *changed) {
    const struct acc_facts *row = acc_facts_row(seg, area);
    uint32_t check = load(row, facts);
    *changed = acc_load_relaxed(&row->changed);
    return check == check_of(area, facts);
}

static void store(struct acc_facts *row, const uint32_t facts[ACC_FACTS], uint32_t check) {
    for (uint32_t i = 0; i < ACC_FACTS; i++) {
        acc_store_relaxed(&row->fact[i], facts[i]);
    }
    acc_store_release(&row->check, check);
}

bool acc_facts_write(struct acc_segment *seg, uint32_t area, const uint32_t *facts,
                     uint32_t count) {
    struct acc_facts *row = acc_facts_row(seg, area);
    uint32_t wanted[ACC_FACTS] = {0}, seen[ACC_FACTS], changed;
    for (uint32_t i = 0; i < count && i < ACC_FACTS; i++) {
        wanted[i] = facts[i];
    }
    uint32_t check = check_of(area, wanted);
    bool known = acc_facts_read(seg, area, seen, &changed);
    if (known && memcmp(seen, wanted, sizeof seen) == 0) {
        return false;
    }
    for (int tries = 0; tries < TRIES; tries++) {
        store(row, wanted, check);
        if (acc_facts_read(seg, area, seen, &changed)) {
            break; /* ours, or whole and another's, who came behind us */
        }
    }
    if (known) {
        acc_add_relaxed(&row->changed, 1u);
    }
    return known;
}
