/* Owns the statistics blocks.  Claimed by CAS of the owner; a block whose owner died is continued
 * by the next process that needs one for the same area, so nothing is ever folded, and nothing lost
 * with a killed worker. */
#include "stats.h"

#include <string.h>

const char *const acc_counter_names[ACC_COUNTERS] = {
    "local_hit",
    "local_miss",
    "remote_hit",
    "remote_miss",
    "load",
    "load_success",
    "load_timeout",
    "load_error",
    "stale_fallback",
    "refresh_attempts",
    "refresh_success",
    "refresh_failures",
    "invalidation_publish",
    "invalidation_publish_failures",
    "invalidation_receive",
    "invalidation_receive_failures",
    "negative_hit",
    "object_hit",
    "set",
    "delete",
    "evictions",
    "expired",
    "store_rejected_size",
    "store_rejected_encode",
    "store_rejected_race",
    "lock_giveup",
    "dead_owner_takeover",
    "corrupt_item",
    "read_race",
    "load_led",
    "load_joined",
    "load_taken_over",
    "load_lease_lost",
    "load_alone",
    "load_crowded",
    "load_wait_timeout",
    "load_refused",
    "load_paused",
    "l2_error_get",
    "l2_error_fill",
    "l2_error_set",
    "l2_error_del",
    "l2_error_atomic",
    "l2_timeout_get",
    "l2_timeout_fill",
    "l2_timeout_set",
    "l2_timeout_del",
    "l2_timeout_atomic",
    "l2_undecodable",
    "l2_fill_refused",
    "l2_skipped",
    "gap",
    "replayed",
    "flush",
    "invalidation_queued",
    "own_skipped",
    "receive_error_subscribe",
    "receive_error_decode",
    "receive_error_apply",
    "desync_read",
    "tag_delete",
    "stale_allowed",
    "consistency_violation",
};

const uint32_t acc_latency_bounds_us[ACC_LATENCY_BOUNDS] = {
    1000,   2500,   5000,    10000,   25000,   50000,    100000,
    250000, 500000, 1000000, 2500000, 5000000, 10000000, 30000000,
};

_Static_assert(ACC_COUNTERS <= ACC_STATS_SLOTS, "a block has a place for each counter");
_Static_assert(ACC_LATENCY_BOUNDS + 2 == ACC_LATENCY_SLOTS, "the last bucket, and the sum");

static struct acc_stats *claim(struct acc_segment *seg, uint32_t area, bool of_the_dead) {
    uint32_t mine = acc_incarnation(seg);
    for (uint32_t i = 0; i < seg->geometry.stats; i++) {
        struct acc_stats *block = acc_stats_block(seg, i);
        uint32_t owner = acc_load_acquire(&block->owner), of = acc_load_acquire(&block->area);
        if (of_the_dead ? of != area + 1 || (owner != 0 && !acc_process_dead(seg, owner))
                        : of != 0) {
            continue;
        }
        /* Free block: the area is the claim.  Killed between the two stores: owned by nobody, found
         * above. */
        if (!of_the_dead) {
            if (acc_cas32(&block->area, 0, area + 1) && acc_cas32(&block->owner, 0, mine)) {
                return block;
            }
        } else if (acc_cas32(&block->owner, owner, mine)) {
            return block;
        }
    }
    return NULL;
}

struct acc_stats *acc_stats_of(struct acc_segment *seg, uint32_t area) {
    struct acc_stats *block = acc_load_acquire(&seg->stats_of[area]);
    if (acc_likely(block != NULL)) {
        return block;
    }
    block = claim(seg, area, true);
    if (block == NULL) {
        block = claim(seg, area, false);
    }
    if (block == NULL) {
        acc_add_relaxed(&acc_header(seg)->stats_lost, (uint64_t)1);
        block = &seg->lost_stats;
    }
    /* Two threads may both have claimed one: the second block stays ours, unused, and is summed all
     * the same. */
    acc_store_release(&seg->stats_of[area], block);
    return block;
}

void acc_stats_gap(struct acc_segment *seg, uint32_t area) {
    struct acc_stats *block = acc_incarnation(seg) != 0 ? acc_stats_of(seg, area) : NULL;
    for (uint32_t i = 0; block == NULL && i < seg->geometry.stats; i++) {
        struct acc_stats *other = acc_stats_block(seg, i);
        block = acc_load_acquire(&other->area) == area + 1 ? other : NULL;
    }
    if (block != NULL) { /* else nobody has ever used the area */
        acc_count(block, ACC_GAP);
        acc_count(block, ACC_FLUSH);
    }
}

static void add_to(uint64_t histogram[ACC_LATENCY_SLOTS], uint64_t us) {
    uint32_t bucket = 0;
    while (bucket < ACC_LATENCY_BOUNDS && us > acc_latency_bounds_us[bucket]) {
        bucket++;
    }
    acc_add_relaxed(&histogram[bucket], (uint64_t)1);
    acc_add_relaxed(&histogram[ACC_LATENCY_SLOTS - 1], us);
}

void acc_stats_load(struct acc_stats *stats, uint64_t us) {
    add_to(stats->load_latency, us);
}

void acc_stats_l2(struct acc_stats *stats, uint64_t us) {
    add_to(stats->l2_latency, us);
}

static void sum_histograms(const struct acc_segment *seg, uint32_t area, bool of_l2,
                           uint64_t out[ACC_LATENCY_SLOTS]) {
    memset(out, 0, ACC_LATENCY_SLOTS * sizeof *out);
    for (uint32_t i = 0; i < seg->geometry.stats; i++) {
        const struct acc_stats *block = acc_stats_block(seg, i);
        const uint64_t *histogram = of_l2 ? block->l2_latency : block->load_latency;
        for (uint32_t s = 0; acc_load_acquire(&block->area) == area + 1 && s < ACC_LATENCY_SLOTS;
             s++) {
            out[s] += acc_load_relaxed(&histogram[s]);
        }
    }
}

void acc_stats_sum_loads(const struct acc_segment *seg, uint32_t area,
                         uint64_t out[ACC_LATENCY_SLOTS]) {
    sum_histograms(seg, area, false, out);
}

void acc_stats_sum_l2(const struct acc_segment *seg, uint32_t area,
                      uint64_t out[ACC_LATENCY_SLOTS]) {
    sum_histograms(seg, area, true, out);
}

void acc_stats_sum(const struct acc_segment *seg, uint32_t area, uint64_t out[ACC_COUNTERS]) {
    memset(out, 0, ACC_COUNTERS * sizeof *out);
    for (uint32_t i = 0; i < seg->geometry.stats; i++) {
        const struct acc_stats *block = acc_stats_block(seg, i);
        if (acc_load_acquire(&block->area) != area + 1) {
            continue;
        }
        for (int c = 0; c < ACC_COUNTERS; c++) {
            out[c] += acc_load_relaxed(&block->counter[c]);
        }
    }
    /* A hit on a decoded object counts one thing, to cost one store; it is a local hit too. */
    out[ACC_LOCAL_HIT] += out[ACC_OBJECT_HIT];
}
