/* A mapped segment as this process knows it. */
#ifndef ACC_SEGMENT_H
#define ACC_SEGMENT_H

#include "accelerator.h"
#include "atomic.h"
#include "clock.h"
#include "layout.h"

#include <pthread.h>

#define ACC_SMALL 0
#define ACC_MAIN 1
#define ACC_SHARDS_MAX 256u
#define ACC_OUTBOX_MIN 256u
#define ACC_OUTBOX_MAX 65536u
#define ACC_HOT_MIN 8u
#define ACC_HOT_MAX 256u
#define ACC_TAG_SLOTS_MIN 256u
#define ACC_TAG_SLOTS_MAX (1u << 20)
#define ACC_EVENTS_MIN 128u
#define ACC_EVENTS_MAX 8192u

/* Where everything is.  Computed from the size and max_value_size alone, by every process for
 * itself. */
struct acc_geometry {
    uint64_t size;
    uint32_t max_value_size;
    uint32_t shards;      /* power of two */
    uint32_t buckets;     /* per shard */
    uint32_t ghost_lines; /* per shard */
    uint32_t generations; /* power of two */
    uint32_t generation_shift;
    uint32_t tags; /* power of two */
    uint32_t processes;
    uint32_t areas;
    uint32_t stats;
    uint32_t hot;           /* buckets of hot keys */
    uint32_t flight_groups; /* per shard */
    uint32_t turns;
    uint32_t outbox; /* slots, a power of two */
    uint32_t outbox_bits;
    uint32_t events; /* slots, a power of two */
    uint32_t
        entries_max; /* per shard: the load at which two buckets of seven still take almost all */
    uint32_t ring_units[2]; /* per shard */
    uint32_t ring_bits[2];  /* bits of a logical offset that are the place; above them, the lap */
    uint64_t process_at, area_at, stats_at, facts_at, hot_at, flight_at, turn_at, link_at,
        outbox_at, generation_at, tag_at, override_at, limit_at, event_at, shard_at, index_at,
        ghost_at, ring_at;
    uint64_t shard_ring_bytes; /* both rings of one shard */
};

enum acc_status acc_geometry_of(uint64_t size, uint32_t max_value_size, struct acc_geometry *out);

/* Items that a hand will come to next, looked at some steps before so that the lines it needs are
 * near by then.  Private; one per shard and hand, used under the shard's lock.  Offsets never
 * repeat, so what is stale matches nothing. */
#define ACC_AHEAD 8

enum acc_hand { ACC_HAND_SMALL, ACC_HAND_MAIN, ACC_HAND_MID, ACC_HANDS };

struct acc_ahead_item {
    uint64_t offset;
    uint64_t hash;
    uint32_t units;
    bool nothing; /* padding, or retired already */
};

struct acc_ahead {
    uint32_t n, at; /* items looked at, and how many of them the hand has passed */
    struct acc_ahead_item item[ACC_AHEAD];
};

/* What this process last heard about another that is being killed (acc_process_ending()); each a
 * word: incarnation 32 | ends 1 | when it was asked after 31 (ms). */
#define ACC_ASKED 8u

/* Kept in a page that the kernel empties in a forked child (MADV_WIPEONFORK), so that a child, even
 * one made by raw clone(), can never act under its parent's identity. */
struct acc_self {
    uint64_t stamp; /* print of the overrides that it acts on 32 | incarnation 32; 0: this process
                       has not registered.  One word, so that what compares it (acc_area_entered())
                       learns of both at the price of one */
    uint32_t
        entering; /* a thread is registering: a word, not a mutex, so that a child finds it free */
    uint32_t pid; /* getpid(), asked once for all events: a system call each would cost as much
                            as the event; 0: not yet */
    uint32_t has_left;   /* it was registered before: what a private memory holds is its own */
    uint32_t has_thread; /* seg->thread was started by this process and is to be joined */
    uint32_t bells_busy; /* somebody is at seg->bells: a word, for the same reason */
    uint32_t has_ringer; /* seg->ringer was started by this process: runs, or is being joined */
    uint64_t asked[ACC_ASKED];
};

/* The doorbells of this process's event loops (doorbell.c). */
#define ACC_BELLS_MAX 64u

struct acc_bell {
    int fd; /* eventfd + 1; 0: no bell */
    uint32_t armed;
};

struct acc_segment {
    uint8_t *base;
    struct acc_self *self;
    int32_t clock_shift; /* units; tests move the clock */
    bool readonly;
    bool is_private; /* anonymous memory, no other process */
    int fd;
    uint64_t device, inode;
    char path[256];  /* of the file, to find it again when something has closed our descriptor */
    uint32_t fenced; /* this process must not act here any more: attach anew */
    uint64_t hash_key[2];
    struct acc_geometry geometry;

    /* What this process is about to hold or holds; index: shard, then one for the area lock.  A
     * lock word with my id and no intent here was not set by me.  Highest bit: closed for a moment,
     * see maintenance.c. */
    uint32_t intent[ACC_SHARDS_MAX + 1];
    uint32_t intent_in_turn; /* the same of the thread that holds the GIL: lock + 1, or 0; lock.h */

    struct acc_ahead *ahead; /* [shard][hand] */

    uint8_t *scratch; /* for moving an item within a ring that is full; one user at a time */
    uint32_t scratch_busy;

    uint32_t self_slot; /* index of our acc_process slot + 1 */
    uint32_t overrides; /* print of those that this process acted on when it last was registered */
    uint32_t thread_of; /* incarnation whose maintenance thread runs; see maintenance.c */
    pthread_t thread;

    uint64_t leader_seen;  /* leader whose first beat is still awaited, */
    uint64_t leader_since; /* and since when (ms): see leader.c */
    uint32_t *owed_seen;   /* [area] what acc_outbox_owed() last told: that much a clear pays for */

    struct acc_bell bells[ACC_BELLS_MAX];
    uint32_t ringer_of;   /* incarnation whose doorbell the thread listens to; 0: it is to end */
    uint32_t ringer_seen; /* the doorbell's word when it was started */
    pthread_t ringer;

    struct acc_stats lost_stats; /* counts into nowhere when no block is free */
    struct acc_stats **stats_of; /* this process's block of each area, claimed when first needed */
};

/* How a check tells what it found. */
typedef void acc_report(void *context, const char *text);

/* Forget what the hands have looked ahead at. */
void acc_segment_forget_ahead(struct acc_segment *seg);
/* A new name among the hosts: of a new segment, and of a private one's copy in a forked child. */
bool acc_segment_new_origin(struct acc_header *header);
void acc_segment_unmap(struct acc_segment *seg);
/* Is the descriptor still that of our file?  (The application may have closed it, and opened
 * something else.) */
bool acc_segment_owns_descriptor(const struct acc_segment *seg);

#define ACC_SCRATCH_BYTES (256u << 10)

static inline struct acc_header *acc_header(const struct acc_segment *seg) {
    return (struct acc_header *)seg->base;
}

static inline struct acc_process *acc_process_slot(const struct acc_segment *seg, uint32_t i) {
    return (struct acc_process *)(seg->base + seg->geometry.process_at) + i;
}

static inline struct acc_area_slot *acc_area_slot(const struct acc_segment *seg, uint32_t i) {
    return (struct acc_area_slot *)(seg->base + seg->geometry.area_at) + i;
}

/* Of a version the plain area of its name, whose generation, counters and hashes of keys are the
 * version's too; else the area itself.  (What an item says of its area may be garbage.) */
static inline uint32_t acc_area_base(const struct acc_segment *seg, uint32_t area) {
    uint32_t areas = seg->geometry.areas;
    uint32_t base = area < areas ? acc_load_relaxed(&acc_area_slot(seg, area)->base) : 0;
    return base - 1 < areas ? base - 1 : area;
}

static inline struct acc_stats *acc_stats_block(const struct acc_segment *seg, uint32_t i) {
    return (struct acc_stats *)(seg->base + seg->geometry.stats_at) + i;
}

static inline struct acc_facts *acc_facts_row(const struct acc_segment *seg, uint32_t area) {
    return (struct acc_facts *)(seg->base + seg->geometry.facts_at) + area;
}

static inline struct acc_hot_head *acc_hot_head(const struct acc_segment *seg) {
    return (struct acc_hot_head *)(seg->base + seg->geometry.hot_at);
}

/* Behind the head. */
static inline struct acc_hot_bucket *acc_hot_bucket(const struct acc_segment *seg, uint32_t i) {
    return (struct acc_hot_bucket *)(acc_hot_head(seg) + 1) + i;
}

static inline struct acc_flight *acc_flight_record(const struct acc_segment *seg, uint32_t i) {
    return (struct acc_flight *)(seg->base + seg->geometry.flight_at) + i;
}

static inline struct acc_turn *acc_turn(const struct acc_segment *seg, uint32_t i) {
    return (struct acc_turn *)(seg->base + seg->geometry.turn_at) + i;
}

static inline struct acc_link *acc_link(const struct acc_segment *seg) {
    return (struct acc_link *)(seg->base + seg->geometry.link_at);
}

static inline struct acc_outbox_slot *acc_outbox_slot(const struct acc_segment *seg, uint32_t i) {
    return (struct acc_outbox_slot *)(seg->base + seg->geometry.outbox_at) + i;
}

static inline uint64_t *acc_generation_word(const struct acc_segment *seg, uint32_t i) {
    return (uint64_t *)(seg->base + seg->geometry.generation_at) + i;
}

static inline struct acc_tag_slot *acc_tag_slot(const struct acc_segment *seg, uint32_t i) {
    return (struct acc_tag_slot *)(seg->base + seg->geometry.tag_at) + i;
}

/* Of an area, or of the host. */
static inline struct acc_overrides *acc_override_row(const struct acc_segment *seg, uint32_t i) {
    return (struct acc_overrides *)(seg->base + seg->geometry.override_at) + i;
}

static inline uint32_t acc_override_host(const struct acc_segment *seg) {
    return seg->geometry.areas;
}

static inline struct acc_limits *acc_limit_set(const struct acc_segment *seg, uint32_t i) {
    return (struct acc_limits *)(seg->base + seg->geometry.limit_at) + i;
}

static inline struct acc_event_head *acc_event_head(const struct acc_segment *seg) {
    return (struct acc_event_head *)(seg->base + seg->geometry.event_at);
}

static inline struct acc_event_slot *acc_event_slot(const struct acc_segment *seg, uint32_t i) {
    return (struct acc_event_slot *)(seg->base + seg->geometry.event_at +
                                     sizeof(struct acc_event_head)) +
           i;
}

static inline struct acc_shard *acc_shard(const struct acc_segment *seg, uint32_t i) {
    return (struct acc_shard *)(seg->base + seg->geometry.shard_at) + i;
}

static inline struct acc_bucket *acc_bucket(const struct acc_segment *seg, uint32_t shard,
                                            uint32_t i) {
    return (struct acc_bucket *)(seg->base + seg->geometry.index_at) +
           ((uint64_t)shard * seg->geometry.buckets + i);
}

static inline struct acc_ghosts *acc_ghost_line(const struct acc_segment *seg, uint32_t shard,
                                                uint32_t i) {
    return (struct acc_ghosts *)(seg->base + seg->geometry.ghost_at) +
           ((uint64_t)shard * seg->geometry.ghost_lines + i);
}

static inline uint8_t *acc_ring_base(const struct acc_segment *seg, uint32_t shard, uint32_t ring) {
    return seg->base + seg->geometry.ring_at + shard * seg->geometry.shard_ring_bytes +
           (ring == ACC_MAIN ? (uint64_t)seg->geometry.ring_units[ACC_SMALL] * ACC_UNIT : 0);
}

static inline uint32_t acc_now(const struct acc_segment *seg) {
    return acc_clock_units() + (uint32_t)seg->clock_shift;
}

/* The same without the wrap. */
static inline uint64_t acc_now_long(const struct acc_segment *seg) {
    return acc_clock_units_long() + (uint64_t)(int64_t)seg->clock_shift;
}

/* The exact clock, moved likewise. */
static inline uint64_t acc_now_ns(const struct acc_segment *seg) {
    return acc_clock_ns() + (uint64_t)((int64_t)seg->clock_shift * (int64_t)ACC_UNIT_NS);
}

/* An area as a process uses it. */
#define ACC_NEVER_ENTERED UINT64_MAX

struct acc_area {
    struct acc_segment *seg;
    uint64_t *stamp_now; /* = &seg->self->stamp */
    uint64_t stamp; /* under which `stats` was claimed; differs: enter again (fork, fence, and where
                       overrides matter: bind again) */
    uint32_t id;
    uint32_t overrides; /* print of those that it was bound under */
    uint64_t *generation;
    struct acc_stats *stats;

    /* How stale its reads may be (freshness.h). */
    uint64_t *fresh_until;
    uint32_t bound;  /* clock units, rounded up; 0: there is no second level to be in step with */
    uint32_t margin; /* past fresh_until less this, readers are capped */
    int64_t limit;   /* greatest age, then, of a load that they may join */
    int64_t capped_age; /* and of what they are given; both as the lagging clock shows them */
    bool judged;        /* it can come to that */

    /* Versions (version.h): keys, generation, counters, locks and turns are those of `base`; items,
     * flights and pauses are those of `id`. */
    uint32_t base;            /* id, unless this is a version */
    uint32_t sole;            /* what `versions` says while there is no other version */
    const uint32_t *versions; /* of the base's slot */
};

#endif
