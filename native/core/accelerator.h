/* The one public header of the core: a cache in one shared segment, for many processes.
 *
 * The core knows no Python.  It returns a status: it does not print, exit, raise or keep a global.
 * Times given to it are in units of ACC_UNIT_NS (see clock.h), durations of waiting in nanoseconds.
 */
#ifndef ACCELERATOR_H
#define ACCELERATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum acc_status {
    ACC_OK = 0,
    ACC_NOT_STORED =
        1, /* nothing changed: present (add), absent (touch), or overtaken by a delete (fill) */
    ACC_TOO_LARGE = 2, /* does not fit this segment; a set has dropped the key's older copy */
    ACC_BUSY = 3,      /* lock not to be had within the budget; a set has dropped the older copy */
    ACC_NOT_FOUND = 4,
    ACC_BAD_TYPE = 5,   /* incr on something that is no 64-bit integer */
    ACC_OVERFLOW = 6,   /* incr past 64 bits */
    ACC_CORRUPT = 7,    /* a stored header that does not verify: dropped and counted */
    ACC_RACE = 8,       /* the item changed while it was read: look again */
    ACC_FULL = 9,       /* a table of the segment (processes, areas) has no free slot */
    ACC_EMISMATCH = 10, /* not a segment, or not of this layout, size or machine state */
    ACC_ESYS = 11,      /* a system call failed: errno tells */
    ACC_READONLY = 12,
    ACC_PRESENT = 13, /* a fresh value is there, so there is nothing to load: read again */
    ACC_LED = 14,     /* somebody else leads the load */
};

const char *acc_status_text(enum acc_status status);

/* What a value is.  Kept beside every value so that the hot types need no codec. */
enum acc_code {
    ACC_CODE_BYTES = 1,
    ACC_CODE_STR = 2,
    ACC_CODE_INT = 3,   /* 8 bytes, little-endian two's complement */
    ACC_CODE_FLOAT = 4, /* 8 bytes, little-endian IEEE 754 */
    ACC_CODE_TRUE = 5,
    ACC_CODE_FALSE = 6,
    ACC_CODE_NULL = 7, /* known to be absent: the negative marker */
    ACC_CODE_MSGPACK = 8,
    ACC_CODE_RAW = 9,
    ACC_CODE_PICKLE = 10,
    ACC_CODE_NOTE = 11,  /* no value of the user's: a note of ours, see acc_load_pause() */
    ACC_CODE_LIMIT = 32, /* the highest of the six bits says that the value has tags */
};

enum acc_store_mode { ACC_SET = 0, ACC_ADD = 1, ACC_FILL = 2 };

/* Counters of one area; names in stats.c in the same order.  The first sixteen are the product's
 * public ones. */
enum acc_counter {
    ACC_LOCAL_HIT,
    ACC_LOCAL_MISS,
    ACC_REMOTE_HIT,
    ACC_REMOTE_MISS,
    ACC_LOAD,
    ACC_LOAD_SUCCESS,
    ACC_LOAD_TIMEOUT,
    ACC_LOAD_ERROR,
    ACC_STALE_FALLBACK,
    ACC_REFRESH_ATTEMPTS,
    ACC_REFRESH_SUCCESS,
    ACC_REFRESH_FAILURES,
    ACC_INVALIDATION_PUBLISH,
    ACC_INVALIDATION_PUBLISH_FAILURES,
    ACC_INVALIDATION_RECEIVE,
    ACC_INVALIDATION_RECEIVE_FAILURES,
    ACC_NEGATIVE_HIT,
    ACC_OBJECT_HIT,
    ACC_SET_TOTAL,
    ACC_DELETE_TOTAL,
    ACC_EVICTIONS,
    ACC_EXPIRED,
    ACC_STORE_REJECTED_SIZE,
    ACC_STORE_REJECTED_ENCODE,
    ACC_STORE_REJECTED_RACE,
    ACC_LOCK_GIVEUP,
    ACC_DEAD_OWNER_TAKEOVER,
    ACC_CORRUPT_ITEM,
    ACC_READ_RACE,
    ACC_LOAD_LED,
    ACC_LOAD_JOINED,
    ACC_LOAD_TAKEN_OVER,
    ACC_LOAD_LEASE_LOST,
    ACC_LOAD_ALONE,
    ACC_LOAD_CROWDED,
    ACC_LOAD_WAIT_TIMEOUT,
    ACC_LOAD_REFUSED,
    ACC_LOAD_PAUSED,
    ACC_L2_ERROR_GET,
    ACC_L2_ERROR_FILL,
    ACC_L2_ERROR_SET,
    ACC_L2_ERROR_DEL,
    ACC_L2_ERROR_ATOMIC,
    ACC_L2_TIMEOUT_GET,
    ACC_L2_TIMEOUT_FILL,
    ACC_L2_TIMEOUT_SET,
    ACC_L2_TIMEOUT_DEL,
    ACC_L2_TIMEOUT_ATOMIC,
    ACC_L2_UNDECODABLE,
    ACC_L2_FILL_REFUSED,
    ACC_L2_SKIPPED,
    ACC_GAP,
    ACC_REPLAYED,
    ACC_FLUSH,
    ACC_INVALIDATION_QUEUED,
    ACC_OWN_SKIPPED,
    ACC_RECEIVE_ERROR_SUBSCRIBE,
    ACC_RECEIVE_ERROR_DECODE,
    ACC_RECEIVE_ERROR_APPLY,
    ACC_DESYNC_READ,
    ACC_TAG_DELETE,
    ACC_STALE_ALLOWED,
    ACC_CONSISTENCY_VIOLATION,
    ACC_COUNTERS,
};

extern const char *const acc_counter_names[ACC_COUNTERS];

/* What an operator can override, of an area or of the whole host; names in override.c. */
enum acc_option {
    ACC_OPTION_MODE,
    ACC_OPTION_LOADER_TIMEOUT,
    ACC_OPTION_MAX_LOADS,
    ACC_OPTION_TTL,
    ACC_OPTION_ALLOW_STALE,
    ACC_OPTION_PENETRATION_PROTECT,
    ACC_OPTION_ON_DESYNC,
    ACC_OPTION_BREAKER, /* of the host only */
    ACC_OPTIONS,
};

/* Values of the mode. */
enum acc_mode { ACC_MODE_LOCAL, ACC_MODE_REMOTE, ACC_MODE_BOTH, ACC_MODE_OFF };

extern const char *const acc_option_names[ACC_OPTIONS];
/* The greatest value of each. */
extern const uint32_t acc_option_most[ACC_OPTIONS];

/* Upper bounds of the buckets of a latency histogram in microseconds; the last bucket has none. */
#define ACC_LATENCY_BOUNDS 14u
extern const uint32_t acc_latency_bounds_us[ACC_LATENCY_BOUNDS];

struct acc_segment;
struct acc_area;
struct acc_ticket;

/* A key as it is hashed and compared: a type tag and the payload behind it. */
struct acc_key {
    const uint8_t *data;
    uint32_t size;
    uint8_t tag;
    uint64_t hash; /* acc_key_hash() */
};

/* Most tags of a value, and the longest of them. */
#define ACC_TAGS_MAX 8u
#define ACC_TAG_SIZE_MAX 255u

/* The tags of a value, as the table of tags knows them; begin with {.since = acc_tag_clock()}. */
struct acc_tags {
    uint64_t since; /* acc_tag_clock() before the load of the value began */
    uint32_t count;
    uint32_t slot[2 * ACC_TAGS_MAX]; /* two a tag */
};

/* What a write puts in.  Absolute times in clock units, 0: never. */
struct acc_write {
    const uint8_t *data;
    uint32_t size;
    uint8_t code;
    uint8_t mode; /* enum acc_store_mode */
    bool has_token;
    bool same_value; /* only the life changes: loads of the key are as good as before */
    const struct acc_ticket *ticket; /* the fill of a flight; NULL: no flight */
    uint32_t token_key;              /* with has_token: generations seen before the load */
    uint32_t token_area;
    uint32_t expire_at;
    uint32_t stale_until;
    uint32_t loaded_at;          /* when the load of the value began: its age counts from there */
    const struct acc_tags *tags; /* NULL: none */
    uint64_t note; /* number of the outbox entry that is to know the stored item; 0: none */
};

/* Longest key payload (the tag is one byte more) and largest value the layout can hold. */
#define ACC_KEY_MAX 511u
#define ACC_VALUE_MAX (64u << 20)
#define ACC_LOCK_BUDGET_NS 20000000ull

/* --- segments --------------------------------------------------------------------------------- */

uint32_t acc_layout(void);
uint64_t acc_min_size(void);
uint64_t acc_max_size(void);

struct acc_identity {
    const char *name;
    const char *library;
    uint8_t boot_id[16];
    uint64_t time_ns;
    uint32_t uid;
};

/* Write an empty segment over `size` bytes of fd and mark it ready.  The caller holds the init
 * byte. */
enum acc_status acc_segment_format(int fd, uint64_t size, uint32_t max_value_size,
                                   const struct acc_identity *identity);
/* Map a ready segment.  The descriptor becomes the segment's. */
enum acc_status acc_segment_map(int fd, uint64_t size, bool readonly, struct acc_segment **out);
enum acc_status acc_segment_private(uint64_t size, uint32_t max_value_size,
                                    struct acc_segment **out);

/* Enter this process: liveness byte, slot, maintenance thread.  Idempotent; enters anew after a
 * fork. */
enum acc_status acc_segment_register(struct acc_segment *seg);
void acc_segment_unregister(struct acc_segment *seg);
/* Leave, unmap, close the descriptor.  Nothing may use the segment any more. */
void acc_segment_close(struct acc_segment *seg);
void acc_segment_empty(struct acc_segment *seg);
void acc_segment_clear(struct acc_segment *seg);
void acc_segment_measure(struct acc_segment *seg);

/* --- areas ------------------------------------------------------------------------------------ */

enum acc_status acc_area_open(struct acc_segment *seg, const char *name, size_t size,
                              struct acc_area *out);
/* The same of a version, whose values lie apart from those of every other version of this name.
 * print: tells the versions apart; 0: none. */
enum acc_status acc_area_open_version(struct acc_segment *seg, const char *name, size_t size,
                                      uint32_t print, struct acc_area *out);
void acc_area_clear(struct acc_area *area);

uint64_t acc_key_hash(const struct acc_area *area, const struct acc_key *key);

enum acc_status acc_store(struct acc_area *area, const struct acc_key *key,
                          const struct acc_write *write, uint64_t budget_ns);
/* One try, by a thread that holds what makes all threads of this process take turns (the GIL).
 * ACC_BUSY: nothing has changed; now acc_store(), without it. */
enum acc_status acc_store_in_turn(struct acc_area *area, const struct acc_key *key,
                                  const struct acc_write *write);
bool acc_delete(struct acc_area *area, const struct acc_key *key);
enum acc_status acc_expire(struct acc_area *area, const struct acc_key *key, uint64_t budget_ns);
enum acc_status acc_touch(struct acc_area *area, const struct acc_key *key, uint32_t expire_at,
                          uint32_t stale_until, uint64_t budget_ns);
enum acc_status acc_incr(struct acc_area *area, const struct acc_key *key, int64_t delta,
                         const int64_t *initial, uint32_t expire_at, uint32_t stale_until,
                         uint64_t budget_ns, int64_t *out);
/* What acc_tag_clock() said before, with has_token, stands in write.tags->since. */
void acc_token(struct acc_area *area, const struct acc_key *key, uint32_t *key_count,
               uint32_t *area_count);

/* --- tags ------------------------------------------------------------------------------------- */

/* Type tag of a tag, which is no key. */
#define ACC_TAG_TAG 0xfeu

/* How many operations by tag there were: read before a load, as the token of its fill. */
uint64_t acc_tag_clock(const struct acc_segment *seg);
uint64_t acc_tag_hash(const struct acc_area *area, const uint8_t *tag, uint32_t size);
/* One more tag; the caller has no more than ACC_TAGS_MAX. */
void acc_tags_add(const struct acc_segment *seg, struct acc_tags *tags, uint64_t hash);
/* When (in counts of the clock) was one of them last deleted or expired? */
uint64_t acc_tags_changed(const struct acc_segment *seg, const struct acc_tags *tags);
/* Forget every value of the area that carries one of these tags (by their hashes), or end its fresh
 * life.  Takes no lock. */
void acc_tags_mark(struct acc_area *area, const uint64_t *hashes, uint32_t count, bool expire);

/* --- loads ------------------------------------------------------------------------------------ */

/* A part in a flight: to lead it, or to wait for it.  What a ticket says is as it was when it was
 * given; a ticket whose record has gone on to another load is just too late for everything. */
struct acc_ticket {
    uint32_t record; /* index of the record; ACC_NO_RECORD: none, so nothing will be stored */
    uint32_t token;
    uint32_t incarnation; /* of this process when it got the ticket: a forked child has no part */
    uint32_t key_count, area_count;
    uint32_t started; /* clock units, of who leads: what it loads is that old */
    uint64_t
        tag_clock; /* of who leads: what it loads is of then; of who waits: so is the question */
    uint32_t turn; /* index of the acc_turn + 1; 0: none */
    uint32_t turn_serial;
    bool leading;
    bool joined; /* counted in the crowd: acc_flight_leave() takes it out, once */
    bool alone;
    bool taken_over;
};

#define ACC_NO_RECORD UINT32_MAX

enum acc_load_mode { ACC_LOAD_JOIN = 0, ACC_LOAD_LEAD = 1 };

#define ACC_WINDOW_ALL UINT32_MAX

/* Tag of a lock's name, which is no key: nothing is ever stored for it, and no key has this tag.  To
 * enter it (JOIN, ACC_WINDOW_ALL) is to take the lock, or to join those who wait for it; whatever
 * ends it hands over no value.  Deletes, clears and stores leave it alone. */
#define ACC_TAG_LOCK 0xffu

enum acc_flight_result {
    ACC_RESULT_UNKNOWN = 0,
    ACC_RESULT_STORED = 1,
    ACC_RESULT_HANDED = 2, /* not stored; acc_load_take() has it */
    ACC_RESULT_DECLINED = 3,
    ACC_RESULT_FAILED = 4,
};

/* Lead the load of a key on this host, or join who leads it.
 * window: a value that is fresh for longer than this need not be loaded (0: no fresh value need;
 *         ACC_WINDOW_ALL: every one must); `lease` is how long a living leader may take.  Both in
 *         clock units.
 * ACC_OK        see out->leading; every path of a leader ends with one of the calls below, every
 *               path of a follower with acc_flight_leave();
 * ACC_PRESENT   there is nothing to load: read again;
 * ACC_LED       (LEAD) another leads already;
 * ACC_FULL      the group of records has no room;
 * ACC_BUSY      no lock within the budget. */
enum acc_status acc_load_enter(struct acc_area *area, const struct acc_key *key,
                               enum acc_load_mode mode, uint32_t window, uint32_t lease,
                               uint64_t budget_ns, struct acc_ticket *out);
/* A load that nobody joins.  ACC_FULL: `most` of them run in this area on this host (0: no limit);
 * ACC_BUSY: whether they do was not to be found out within ACC_LOCK_BUDGET_NS. */
enum acc_status acc_load_alone(struct acc_area *area, const struct acc_key *key, uint32_t most,
                               uint32_t lease, uint64_t budget_ns, struct acc_ticket *out);
/* Store what was loaded, end the flight, wake who waits.  ACC_NOT_STORED: overtaken, or the lease is
 * lost; then who joined is handed the value.  With budget_ns 0 and ACC_BUSY nothing has ended yet. */
enum acc_status acc_load_finish(struct acc_area *area, const struct acc_key *key,
                                struct acc_ticket *ticket, const struct acc_write *write,
                                uint64_t budget_ns);
/* The same without storing. */
enum acc_status acc_load_hand(struct acc_area *area, const struct acc_key *key,
                              struct acc_ticket *ticket, const struct acc_write *write,
                              uint64_t budget_ns);
/* End a flight that has nothing to give: `result` is DECLINED or FAILED.  Takes no lock. */
void acc_load_end(struct acc_area *area, struct acc_ticket *ticket, enum acc_flight_result result);
/* Has a delete, a clear or a store come since it began, or somebody else taken the lease?  (Of a
 * lock: only the last.) */
bool acc_load_overtaken(const struct acc_area *area, const struct acc_key *key,
                        const struct acc_ticket *ticket);
/* What was handed over to the holder of this ticket.  ACC_OK: *value was allocated (free it), and is
 * not NULL even if *size is 0; ACC_NOT_FOUND: gone; ACC_ESYS: no memory. */
enum acc_status acc_load_take(struct acc_area *area, const struct acc_key *key,
                              const struct acc_ticket *ticket, uint8_t **value, uint32_t *size,
                              uint8_t *code);
/* Note for so many clock units that loads of this key fail (0: forget that), and read the note. */
void acc_load_pause(struct acc_area *area, const struct acc_key *key, uint32_t units,
                    uint64_t budget_ns);
bool acc_load_pausing(struct acc_area *area, const struct acc_key *key);

#endif
