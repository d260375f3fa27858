/* Flights: the miss loads that run on this host, who leads each of them, and who waits.
 *
 * A key's flight lies in one group of 16 records of its shard.  It is a lease and no mutex: any
 * thread of its process may end it, a dead leader's is taken over at once, a living one's when the
 * lease has passed; what its former leader does with it afterwards has no effect, because the token
 * has moved on.  A named lock is such a lease on a name, without a load.  At most one record of a key
 * can be joined: one that began before the last delete, or that a store has overtaken, runs on and
 * is joined by nobody. */
#ifndef ACC_FLIGHT_H
#define ACC_FLIGHT_H

#include "generation.h"
#include "lock.h"

enum acc_flight_state {
    ACC_FLIGHT_FREE = 0,
    ACC_FLIGHT_LOADING = 1,
    ACC_FLIGHT_ALONE = 2,
    ACC_FLIGHT_LOCKED = 3, /* loads nothing: a named lock, which no generation and no store ends */
};

#define ACC_FLIGHT_STATE 7u
#define ACC_FLIGHT_OVERTAKEN 8u
#define ACC_FLIGHT_TOKEN_SHIFT 4u

static inline uint32_t acc_flight_token(uint32_t control) {
    return control >> ACC_FLIGHT_TOKEN_SHIFT;
}

/* Led by somebody, be it together with followers or alone, or locked?  (Garbage is not.) */
static inline bool acc_flight_live(uint32_t control) {
    uint32_t state = control & ACC_FLIGHT_STATE;
    return state - ACC_FLIGHT_LOADING <= ACC_FLIGHT_LOCKED - ACC_FLIGHT_LOADING;
}

/* The load of one key, or the lock of a name, as the functions below look for it. */
struct acc_load {
    uint64_t hash;
    uint32_t shard;
    uint32_t area;
    uint64_t generation; /* the key group's word, and the area's count, as they are now; of a lock,
                          * 0, because deletes and clears are no business of its */
    uint32_t area_count;
    enum acc_flight_state joinable; /* LOADING, or LOCKED */
};

/* --- with the shard lock held ----------------------------------------------------------------- */

/* The record that a read may join, ACC_NO_RECORD if there is none. */
uint32_t acc_flight_find_locked(const struct acc_segment *seg, const struct acc_load *load);
/* Is its leader dead, or his lease over?  (One that has just begun is not asked.) */
bool acc_flight_gone_locked(const struct acc_segment *seg, uint32_t record);
/* Nobody joins this one any more, and what it loads is not stored. */
void acc_flight_outdate_locked(struct acc_segment *seg, uint32_t record);
/* Begin a flight.  False: the group has no room. */
bool acc_flight_claim_locked(struct acc_segment *seg, const struct acc_load *load,
                             enum acc_flight_state state, uint32_t lease,
                             struct acc_ticket *ticket);
/* Begin one in the record of a leader that is gone. */
void acc_flight_take_over_locked(struct acc_segment *seg, uint32_t record,
                                 const struct acc_load *load, uint32_t lease,
                                 struct acc_ticket *ticket);
void acc_flight_join_locked(struct acc_segment *seg, uint32_t record, struct acc_ticket *ticket);
/* Say where a value lies for those who joined; acc_flight_end() with HANDED follows. */
void acc_flight_hand_locked(struct acc_segment *seg, const struct acc_ticket *ticket,
                            uint64_t handed);
void acc_flight_overtake_slow(struct acc_segment *seg, uint32_t shard, uint32_t area, uint64_t hash,
                              uint32_t except);

/* Something newer is about to be stored: no live flight of the key but `except` may be stored any
 * more.  Before the store, because killed between the two, a lost fill harms nobody. */
static inline void acc_flight_overtake_locked(struct acc_segment *seg, uint32_t shard,
                                              uint32_t area, uint64_t hash, uint32_t except) {
    if (acc_unlikely(acc_load_relaxed(&acc_shard(seg, shard)->flights) != 0)) {
        acc_flight_overtake_slow(seg, shard, area, hash, except);
    }
}

/* End what dead processes led. */
void acc_flight_sweep_locked(struct acc_segment *seg, uint32_t shard);

/* --- without any lock ------------------------------------------------------------------------- */

enum acc_lease { ACC_LEASE_LOST, ACC_LEASE_HELD, ACC_LEASE_OVERTAKEN };

/* What the holder of a leading ticket still has.  (Final only with the shard lock held.) */
enum acc_lease acc_flight_lease(const struct acc_segment *seg, const struct acc_ticket *ticket);
/* End it, if the ticket still leads it, and wake all who wait.  The ticket leads no more. */
void acc_flight_end(struct acc_segment *seg, struct acc_ticket *ticket,
                    enum acc_flight_result result);

/* Is the flight of this ticket still on its way? */
bool acc_flight_running(const struct acc_segment *seg, const struct acc_ticket *ticket);
/* Is the lease of its leader over?  Is he dead (asks the kernel)? */
bool acc_flight_lapsed(const struct acc_segment *seg, const struct acc_ticket *ticket);
bool acc_flight_leader_dead(const struct acc_segment *seg, const struct acc_ticket *ticket);
static inline bool acc_flight_leaderless(const struct acc_segment *seg,
                                         const struct acc_ticket *ticket) {
    return acc_flight_lapsed(seg, ticket) || acc_flight_leader_dead(seg, ticket);
}
/* Sleep until it may have ended, at most wait_ns. */
void acc_flight_wait(struct acc_segment *seg, const struct acc_ticket *ticket, uint64_t wait_ns);
/* Have this process's doorbell rung when it ends; look whether it is running after that. */
void acc_flight_ring(struct acc_segment *seg, const struct acc_ticket *ticket);
void acc_flight_leave(struct acc_segment *seg, struct acc_ticket *ticket);
enum acc_flight_result acc_flight_result(const struct acc_segment *seg,
                                         const struct acc_ticket *ticket, uint64_t *handed);
/* How many wait. */
uint32_t acc_flight_waiting(const struct acc_segment *seg, const struct acc_ticket *ticket);

/* A turn to load without being coordinated.  ACC_FULL: `most` of them are taken in this area;
 * ACC_BUSY: the table's lock was not to be had. */
enum acc_status acc_flight_take_turn(struct acc_segment *seg, uint32_t area, uint32_t most,
                                     uint32_t lease, struct acc_ticket *ticket);
void acc_flight_give_turn(struct acc_segment *seg, struct acc_ticket *ticket);

/* --- looking at them -------------------------------------------------------------------------- */

static inline uint32_t acc_flight_records(const struct acc_segment *seg) {
    return seg->geometry.shards * seg->geometry.flight_groups * ACC_FLIGHT_GROUP;
}

struct acc_flight_info {
    uint64_t hash;
    uint32_t area, owner, waiting, token;
    uint32_t started, deadline; /* clock units */
    bool alone, locked, overtaken;
};

/* False: nothing runs in this record (or it changed while it was read). */
bool acc_flight_look(const struct acc_segment *seg, uint32_t record, struct acc_flight_info *out);

#endif
