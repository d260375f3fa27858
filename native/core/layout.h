/* Every byte that lives in the segment.
 *
 *   0        prefix       256 bytes that no version ever changes: any tool can recognise any
 * segment 256      header       hash key, counters of ids, geometry as created
 *   ...      processes    one slot per attached process
 *   ...      areas        name, generation and gauges of each area
 *   ...      statistics   counter blocks, one per process and area
 *   ...      facts        how each area is configured
 *   ...      hot keys     which keys are read most
 *   ...      flights      one record per miss load that runs, in groups per shard
 *   ...      turns        who may load without being coordinated
 *   ...      link         what this host knows of the second level, and who listens to it
 *   ...      outbox       what is not known to have reached the second level
 *   ...      generations  one word per group of keys: the delete, the lease token, the fence
 *   ...      tags         when the tags of each slot were last deleted and expired
 *   ...      overrides    what an operator has put in the place of the configuration
 *   ...      limits       when which kind of log line was last written
 *   ...      events       ring of what was done, or is being done
 *   ...      shards       lock word and ring positions
 *   ...      index        buckets of seven words and their marks
 *   ...      ghosts       fingerprints of what was evicted
 *   ...      rings        per shard a small and a main ring of items
 *
 * The header repeats the geometry only to be compared: each process computes its own from the size
 * it mapped and trusts no offset or length that it reads here.  Offsets only, no pointers, no
 * pthread object. */
#ifndef ACC_LAYOUT_H
#define ACC_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#define ACC_MAGIC 0x0a72747263636101ull /* "\1accrtr\n": last byte flips with byte order */
/* Raise by hand when a field changes its meaning but not its place. */
#define ACC_LAYOUT_VERSION 6u

#define ACC_LINE 64u
#define ACC_UNIT 8u /* ring offsets count units of eight bytes */

/* Liveness: the process with incarnation n holds a write lock on byte ACC_LIVENESS_BASE + n of the
 * file. */
#define ACC_LIVENESS_BASE (1ull << 40)
#define ACC_INIT_BYTE (ACC_LIVENESS_BASE - 1)

enum acc_state { ACC_STATE_NEW = 0, ACC_STATE_READY = 1 };

struct acc_prefix {
    uint64_t magic;
    uint32_t prefix_size;
    uint32_t layout;
    uint64_t size;
    uint64_t created; /* Unix seconds */
    uint8_t boot_id[16];
    uint64_t time_ns; /* inode of the creator's time namespace */
    uint32_t uid;
    uint32_t state;            /* READY is stored last, with release */
    uint64_t supervisor_pid;   /* Gunicorn master whose workers may find their values again */
    uint64_t supervisor_start; /* its start time, so that a reused pid is no match */
    char library[32];
    char name[64];
    uint8_t reserved[80];
};
_Static_assert(sizeof(struct acc_prefix) == 256, "the prefix never changes");
_Static_assert(offsetof(struct acc_prefix, layout) == 12, "the prefix never changes");
_Static_assert(offsetof(struct acc_prefix, state) == 60, "the prefix never changes");
_Static_assert(offsetof(struct acc_prefix, name) == 112, "the prefix never changes");

struct acc_header {
    struct acc_prefix prefix;
    uint64_t hash_key[2]; /* random: an attacker cannot choose keys that collide */
    uint32_t max_value_size;
    uint32_t shards;
    uint64_t ring_units[2];
    uint8_t origin[16]; /* random: names this segment among the hosts that share a second level */
    uint64_t reserved0;
    uint32_t next_incarnation; /* fetch_add per process start, never reused */
    uint32_t area_lock;        /* lock word over the claim of area slots */
    uint64_t reserved1[7];
    uint64_t measured_at; /* ms of the last measurement; CAS elects who measures */
    uint64_t stats_lost;  /* processes that found no counter block */
    uint64_t reserved2[6];
    uint64_t
        tag_clock; /* +1 per operation by tag; own line, because reads of tagged items load it */
    uint64_t reserved3[7];
};
_Static_assert(sizeof(struct acc_header) == 256 + 4 * 64, "header is whole cache lines");

/* Written by its process, after the liveness byte is held; `incarnation` last. */
struct acc_process {
    uint32_t incarnation; /* 0: free */
    uint32_t pid;         /* as seen in pid_ns */
    uint64_t start_time;  /* clock ticks since boot: tells a reused pid */
    uint64_t pid_ns;      /* inode of the PID namespace; another one: pid means nothing here */
    uint64_t attached;    /* ms, CLOCK_MONOTONIC */
    uint32_t doorbell;    /* futex word: +1 by whoever ends a flight that this process waits for */
    uint32_t overrides;   /* print of the overrides that it acts on (override.c) */
    uint64_t reserved1[3];
};
_Static_assert(sizeof(struct acc_process) == ACC_LINE, "one line");

#define ACC_AREA_NAME_MAX 104u

struct acc_area_slot {
    uint64_t generation; /* +1 per clear(); on a line that nobody else writes, because every read
                            loads it */
    uint64_t tag_epoch;  /* +1 per operation by tag, behind what it stores; see tags.h */
    uint64_t
        fresh_until; /* what a second level has told until then less the bound is in here: clock
                             units that never wrap, raised only; 0: never in step (freshness.h) */
    uint32_t
        versions;   /* of a plain area: 2 per version that was ever opened, and 1 if it was opened
                          without one; raised under the lock over areas, before what it counts is
                          shown (version.h) */
    uint32_t base;  /* of a version: id of its plain area + 1; 0: this is a plain area */
    uint32_t print; /* of a version: its fingerprint; 0: none */
    uint32_t reserved0;
    uint64_t reserved3[3];
    uint32_t state; /* 1: claimed; stored last */
    uint32_t name_size;
    uint64_t entries; /* gauges, as last measured */
    uint64_t bytes;
    char name[ACC_AREA_NAME_MAX];
    uint64_t
        replication;  /* of the server whose invalidations have been applied; 0: of none (link.c) */
    uint64_t applied; /* print of `replication` 16 | sequence of the last one applied 48 */
    uint32_t watched; /* 1: somebody bound it with a bound, so that it is to be listened to */
    uint32_t owed;    /* +1 when an invalidation of this area was lost before it was sent */
    uint32_t paid;    /* of those, how many a clear of the area has made good */
    uint32_t reserved1;
    uint64_t reserved2[4];
};
_Static_assert(sizeof(struct acc_area_slot) == 4 * ACC_LINE, "whole lines");
_Static_assert(offsetof(struct acc_area_slot, replication) == 3 * ACC_LINE,
               "what the listener stores shares no line with what every read loads");

#define ACC_STATS_SLOTS 63u
#define ACC_LATENCY_SLOTS 16u /* buckets, and behind them the sum in microseconds */

/* Cumulative; one process adds, anybody sums.  A block whose owner died is continued by the next
 * process. */
struct acc_stats {
    uint32_t owner; /* incarnation */
    uint32_t area;  /* area id + 1; 0: free */
    uint64_t counter[ACC_STATS_SLOTS];
    uint64_t load_latency[ACC_LATENCY_SLOTS];
    uint64_t l2_latency[ACC_LATENCY_SLOTS];
};
_Static_assert(sizeof(struct acc_stats) == 12 * ACC_LINE,
               "whole lines, so that no two processes share one");

#define ACC_FACTS 30u

/* How an area is configured, as last written by a process that has bound it (facts.c). */
struct acc_facts {
    uint32_t fact[ACC_FACTS];
    uint32_t check;   /* mix of them and of the area; stored last */
    uint32_t changed; /* +1 when something else was written than what was there */
};
_Static_assert(sizeof(struct acc_facts) == 2 * ACC_LINE, "whole lines");

#define ACC_HOT_WAYS 5u

/* Where a key's reads are counted; changed as hotkeys.c says. */
struct acc_hot_entry {
    uint64_t count; /* check 12 | window 12 | before 20 | now 20; 0: free */
    uint64_t hash;  /* of the key in its area */
    uint64_t area;  /* check 32 | area 32 */
};

struct acc_hot_bucket {
    struct acc_hot_entry entry[ACC_HOT_WAYS];
    uint64_t reserved;
};
_Static_assert(sizeof(struct acc_hot_bucket) == 2 * ACC_LINE, "whole lines");

struct acc_hot_head {
    uint64_t since; /* ms, CLOCK_MONOTONIC, when the first read was counted; 0: none was */
    uint64_t total; /* window 12 | before 26 | now 26: of all keys */
    uint64_t reserved[6];
};
_Static_assert(sizeof(struct acc_hot_head) == ACC_LINE, "one line");

/* One miss load.  Claimed, taken over and marked as overtaken with the lock of its key's shard held;
 * ended by its owner with a CAS, from whatever thread.
 *
 * The fields are written before `control` (release); whoever reads them loads `control` before and
 * after, and believes them only if it has not changed.  Killed between: a record whose control word
 * still tells what it told before; as its owner is dead, the next who needs it takes it. */
struct acc_flight {
    uint32_t control; /* token 28, +1 per claim | overtaken 1 | state 3; futex word */
    uint32_t owner;   /* incarnation of the process that leads */
    uint64_t crowd;   /* token 32 | how many wait 32; a killed one counts until the flight ends */
    uint64_t hash;    /* of the key */
    uint64_t ringers; /* whose doorbells to ring: bit (process slot % 64) */
    uint32_t area;
    uint32_t key_count; /* generations when it began */
    uint32_t area_count;
    uint32_t deadline; /* clock units: end of the lease */
    uint32_t started;  /* clock units */
    uint32_t result;   /* token 28 | enum acc_flight_result 4; stored before the state */
    uint64_t handed;   /* where a value that was handed over lies: ring 1 | logical offset 63 */
};
_Static_assert(sizeof(struct acc_flight) == ACC_LINE, "one line");

#define ACC_FLIGHT_GROUP 16u  /* records that a key may use */
#define ACC_FLIGHT_GROUPS 64u /* most groups of a shard: each has a bit in acc_shard.flights */

/* One load that nobody coordinates, so that no more than the area's `max_loads` of them run.  (A
 * count that goes up and down would drift with every kill.) */
struct acc_turn {
    uint64_t
        who; /* incarnation 32 | serial 32: +1 per claim, so that only the claimer gives back */
    uint32_t area;
    uint32_t deadline; /* clock units: then it is anybody's */
};
_Static_assert(sizeof(struct acc_turn) == 16, "four a line");

/* What the processes of this host know together of the second level.  No lock: each word is changed
 * by CAS, and means what it says whatever the others say (leader.c, link.c, outbox.c).  Times are
 * nanoseconds of CLOCK_MONOTONIC unless they say otherwise; 0: never. */
struct acc_link {
    /* Who listens for the host. */
    uint64_t leader; /* term 32, +1 per claim | incarnation 32, 0: nobody, the last one resigned */
    uint64_t beat;   /* term 20 | ms 44 when the leader of that term last drained its socket */
    uint32_t bell;   /* futex word: +1 when a leader resigns */
    uint32_t reserved0;
    uint64_t reserved1[5];

    /* What each use of the second level asks. */
    uint64_t confirmed;    /* it executed a write of ours that was sent then; raised only */
    uint64_t heard;        /* the answer came then; raised only */
    uint64_t settled_from; /* behind an interruption it may not be read before; raised only */
    uint64_t refused;      /* since then it answers with errors; 0: it does not */
    uint64_t breaker;      /* level 4 | probing 1 | failures 8 | ms 51, see link.c */
    uint64_t lost;         /* the listener's connection broke then; raised only */
    uint64_t reserved2[2];

    /* For people. */
    uint64_t connected;  /* since then; 0: not */
    uint64_t connects;   /* how often */
    uint64_t message;    /* the last one came then */
    uint64_t next_retry; /* the next try to connect is due then */
    uint64_t reserved3[4];

    /* Positions in the outbox. */
    uint64_t next;    /* slots given out so far, by fetch_add */
    uint64_t behind;  /* every entry before this one is known to be sent or gone */
    uint64_t dropped; /* entries overwritten unsent, or found damaged */
    uint64_t reserved4[5];
};
_Static_assert(sizeof(struct acc_link) == 4 * ACC_LINE, "whole lines");
_Static_assert(offsetof(struct acc_link, confirmed) == ACC_LINE, "one line a question");
_Static_assert(offsetof(struct acc_link, next) == 3 * ACC_LINE, "writers take numbers: own line");

#define ACC_OUTBOX_KEY_HEAD 64u  /* bytes of a key in the first slot of an entry */
#define ACC_OUTBOX_KEY_MORE 120u /* ... and in each slot behind it */
#define ACC_OUTBOX_SLOTS_MAX 5u  /* most slots of an entry */

/* An entry of the outbox is one slot, or, if its key is long, up to five in a row.  Only whoever has
 * set a slot's control word to WRITING under its own incarnation stores into the slot, and only
 * while the word says so; notes and times of a published entry apart, which verify themselves or are
 * hints (outbox.c). */
struct acc_outbox_slot {
    uint64_t
        control; /* lap 31 | owner's incarnation 30, of a PART the distance to its head | state 3 */
    uint64_t appended;  /* ns */
    uint64_t settled;   /* ns: sent, or found to be on its way back */
    uint64_t hash;      /* of the key in its area */
    uint64_t item_word; /* the note: where the item is that was stored for this entry */
    uint32_t item_sequence;
    uint32_t item_check; /* mix of the entry's number and the note */
    uint32_t check;      /* mix of number, hash, area, kind and key */
    uint16_t area;
    uint16_t key_size; /* with the tag byte; 0: of a clear */
    uint8_t kind;
    uint8_t reserved[7];
    uint8_t key[ACC_OUTBOX_KEY_HEAD]; /* in the slots behind: everything behind `control` */
};
_Static_assert(sizeof(struct acc_outbox_slot) == 2 * ACC_LINE, "two lines");
_Static_assert(ACC_OUTBOX_KEY_HEAD + (ACC_OUTBOX_SLOTS_MAX - 1) * ACC_OUTBOX_KEY_MORE >= 512,
               "the longest key fits");

/* Counts of tag_clock, shifted up by one; below them 1: the area's tag_epoch does not tell yet. */
struct acc_tag_slot {
    uint64_t deleted;
    uint64_t expired;
};
_Static_assert(sizeof(struct acc_tag_slot) == 16, "four a line");

#define ACC_OVERRIDE_SLOTS 8u

/* A row for each area slot (those of versions are not in use), and behind them one for the host. */
struct acc_overrides {
    uint64_t word[ACC_OVERRIDE_SLOTS]; /* each: deadline 32, seconds, 0: none | value + 1 32; 0: no
                                          override; see override.c */
};
_Static_assert(sizeof(struct acc_overrides) == ACC_LINE, "one line");

#define ACC_LIMIT_SETS 64u
#define ACC_LIMIT_WAYS 8u

struct acc_limits {
    uint64_t word[ACC_LIMIT_WAYS]; /* print 24 | time 24 | left out 16; 0: free; see limit.c */
};
_Static_assert(sizeof(struct acc_limits) == ACC_LINE, "one line");

/* In front of the ring of events. */
struct acc_event_head {
    uint64_t next; /* numbers given out so far, by fetch_add */
    uint64_t reserved[7];
};
_Static_assert(sizeof(struct acc_event_head) == ACC_LINE, "one line");

#define ACC_EVENT_OP_SIZE 12u
#define ACC_EVENT_RESULT_SIZE 12u
#define ACC_EVENT_KIND_SIZE 16u

/* One operation.  Its two lines are written at its two ends, and each verifies itself: events.c. */
struct acc_event_slot {
    uint64_t control; /* number 61 | enum state of events.c 3 */
    uint64_t time_ns; /* since the Unix epoch */
    uint64_t hash;    /* of the key; 0: of none */
    uint32_t pid;
    uint32_t incarnation; /* 0: of a process that was not registered */
    uint32_t area;        /* id + 1; 0: of none */
    uint32_t count;
    char op[ACC_EVENT_OP_SIZE]; /* filled up with 0 */
    uint32_t check;             /* mix of the number and the above */
    uint64_t reserved0;

    uint64_t took_ns;
    char result[ACC_EVENT_RESULT_SIZE];
    uint32_t end_check; /* mix of the number and the rest of this line */
    char error_kind[ACC_EVENT_KIND_SIZE];
    uint64_t reserved1[3];
};
_Static_assert(sizeof(struct acc_event_slot) == 2 * ACC_LINE, "two lines");
_Static_assert(offsetof(struct acc_event_slot, took_ns) == ACC_LINE, "a line for each end");

struct acc_ring {
    uint64_t head; /* oldest item; raised before the bytes behind it are reused */
    uint64_t tail; /* end of the newest item; raised after its bytes are complete */
    uint64_t mid;  /* small ring only: items before it have left the newest quarter */
};

struct acc_shard {
    uint32_t lock; /* own line: contenders spin on it */
    uint32_t reserved0[15];
    struct acc_ring ring[2]; /* stored only by the holder of the lock */
    uint64_t flights;        /* bit i: there may be live records in group i; by the lock's holder */
    uint64_t reserved1;
    uint32_t ghost_clock; /* evictions that left a ghost */
    uint32_t entries;     /* about how many index words are in use; measured anew by the tick */
    uint64_t main_live;   /* units of main that hold live items, as last measured; 0: not yet */
    uint64_t resets;      /* rings dropped because a header in them did not verify */
    uint64_t takeovers;   /* lock taken over from a dead process */
    uint64_t reserved2[4];
};
_Static_assert(sizeof(struct acc_shard) == 3 * ACC_LINE, "whole lines");

#define ACC_BUCKET_SLOTS 7u

/* Index word: tag 16 | ring 1 | logical offset 47.  0: empty.  Only the holder of the shard lock
 * stores a word other than 0; anybody may CAS one to 0. */
struct acc_bucket {
    uint64_t word[ACC_BUCKET_SLOTS];
    uint8_t mark[8]; /* hits since the last look of the eviction hand, 0 to 3; races lose one,
                      * harmlessly. The eighth: something that belongs here was put into its second
                      * bucket */
};
_Static_assert(sizeof(struct acc_bucket) == ACC_LINE, "one lookup, one line");

#define ACC_GHOST_SLOTS 16u

struct acc_ghosts {
    uint32_t slot[ACC_GHOST_SLOTS]; /* fingerprint 16 | coarse time of eviction 16; 0: empty */
};
_Static_assert(sizeof(struct acc_ghosts) == ACC_LINE, "one line");

/* --- items: what lies in a ring --------------------------------------------------------------- */

enum acc_item_flag {
    ACC_ITEM_PAD = 1,   /* nothing: the rest of the ring up to its end */
    ACC_ITEM_TWICE = 2, /* room for two copies, of which `sequence & 1` is valid */
    ACC_ITEM_DEAD =
        4, /* a hint, set after its index word was replaced: nothing names it; not in the check */
};

struct acc_common {
    uint32_t units_flags; /* size in units 24 | flags 8 */
    uint16_t key_size;    /* with the tag byte */
    uint16_t area;
};

struct acc_record {
    uint32_t check; /* mix of everything else in here, of acc_common, and of the logical offset */
    uint32_t
        size_code; /* value size 26 | code 5 | tagged 1: a block of tags lies behind the value */
    uint32_t expire_at;   /* logical end: fresh until then; 0: never */
    uint32_t stale_until; /* physical end: usable as stale until then; 0: as expire_at */
    uint32_t loaded_at;   /* when the load of this value began */
    uint32_t key_count;   /* generation stamps: valid while they match the generation words */
    uint32_t area_count;
    uint32_t value_sum;
};

/* Behind the value of an item with tags, at no particular alignment. */
struct acc_tag_block {
    uint32_t check; /* mix of everything else in here, and of the check of its record */
    uint32_t count; /* of tags */
    uint64_t since; /* tag_clock when the load of the value began */
    /* then: two slots of the table for each tag, 32 bits each */
};
_Static_assert(sizeof(struct acc_tag_block) == 16, "head of a block of tags");

struct acc_item {
    struct acc_common common;
    struct acc_record record;
    /* then, in an item with one copy: key, value, block of tags if it has any, padding to a unit */
};
_Static_assert(sizeof(struct acc_item) == 40, "header of an item");

struct acc_item_twice {
    struct acc_common common;
    struct acc_record record[2];
    uint32_t sequence; /* +1 per rewrite; the copy not selected may be half written */
    uint32_t reserved;
    /* then: key padded to a unit, room of copy 0, room of copy 1 (equal, whole units), each for a
     * value and its tags */
};
_Static_assert(sizeof(struct acc_item_twice) == 80, "header of an item with two copies");
_Static_assert(offsetof(struct acc_item_twice, record) == offsetof(struct acc_item, record),
               "copy 0 lies where the only copy lies");

#endif
