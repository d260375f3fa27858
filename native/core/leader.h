/* Who listens to the second level for this host: a lease, kept by a beat, with a term.
 *
 * Two who lead at once harm nobody (what they apply is idempotent); a host that nobody listens for
 * is capped.  So the lease passes on fast, and is never fenced. */
#ifndef ACC_LEADER_H
#define ACC_LEADER_H

#include "process.h"

#define ACC_LEADER_LATE_MS 500u

/* Become the leader, or wait at most wait_ns (and no longer than 50 ms) for a reason to try again.
 * The term, more than 0; 0: somebody else leads, or this process is not registered (any more). */
uint32_t acc_leader_claim(struct acc_segment *seg, uint64_t wait_ns);
/* Still the leader?  Then the lease begins anew. */
bool acc_leader_beat(struct acc_segment *seg, uint32_t term);
/* Let another lead, at once.  Nothing if `term` has ended already. */
void acc_leader_resign(struct acc_segment *seg, uint32_t term);

struct acc_leader_info {
    uint32_t term;
    uint32_t incarnation; /* 0: nobody leads */
    bool has_beat;
    uint64_t beat_age_ms;
};

struct acc_leader_info acc_leader_look(const struct acc_segment *seg);

/* What nobody of ours can have stored, each reported; their number. */
uint32_t acc_leader_check(const struct acc_segment *seg, acc_report *report, void *context);

#endif
