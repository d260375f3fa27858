/* Counters: cumulative blocks, one per process and area, so that no two processes write one cache
 * line. */
#ifndef ACC_STATS_H
#define ACC_STATS_H

#include "process.h"

/* This process's block of an area, claimed when first asked for; never NULL. */
struct acc_stats *acc_stats_of(struct acc_segment *seg, uint32_t area);
/* Count a gap that ended with a clear, also from a process that is not registered and has no block:
 * then in one of the area's, whoever owns it, which is safe because these two are never counted but
 * by atomic adds. */
void acc_stats_gap(struct acc_segment *seg, uint32_t area);
/* Sums over all processes that ever were. */
void acc_stats_sum(const struct acc_segment *seg, uint32_t area, uint64_t out[ACC_COUNTERS]);

/* Add what took `us` microseconds, a load or a use of the second level, to its histogram; and those
 * of all processes. */
void acc_stats_load(struct acc_stats *stats, uint64_t us);
void acc_stats_l2(struct acc_stats *stats, uint64_t us);
void acc_stats_sum_loads(const struct acc_segment *seg, uint32_t area,
                         uint64_t out[ACC_LATENCY_SLOTS]);
void acc_stats_sum_l2(const struct acc_segment *seg, uint32_t area,
                      uint64_t out[ACC_LATENCY_SLOTS]);

/* Counting off the hot path, from whatever thread. */
static inline void acc_count(struct acc_stats *stats, enum acc_counter counter) {
    acc_add_relaxed(&stats->counter[counter], (uint64_t)1);
}

#endif
