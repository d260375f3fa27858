/* What is done now and then: by a thread of each process, and on demand. */
#ifndef ACC_MAINTENANCE_H
#define ACC_MAINTENANCE_H

#include "lock.h"
#include "read.h"

#define ACC_TICK_MS 100u

/* One round of what the thread does; tests call it. */
void acc_maintenance_tick(struct acc_segment *seg);

struct acc_totals {
    uint64_t entries;
    uint64_t live_bytes; /* of items, headers included */
    uint64_t data_bytes; /* of all rings */
    uint64_t used_bytes; /* between head and tail */
};

/* Walk the index without any lock: totals, and per area if the arrays (one number an area) are
 * given. */
void acc_maintenance_measure(struct acc_segment *seg, struct acc_totals *totals,
                             uint64_t *area_entries, uint64_t *area_bytes);

/* Violated invariants of the stored structure, each reported; their number.  Takes the shard locks.
 */
uint32_t acc_maintenance_check(struct acc_segment *seg, acc_report *report, void *context);

#endif
