/* What the binding's files share.  The only place, with them, that sees Python.h. */
#ifndef ACC_BINDING_STATE_H
#define ACC_BINDING_STATE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <structmember.h>

#include "accelerator.h"
#include "freshness.h"
#include "hotkeys.h"

#if defined(Py_GIL_DISABLED) && !defined(ACC_NO_GIL)
#error "the core must know that threads do not take turns: -DACC_NO_GIL, as native/meson.build says"
#endif

/* Per interpreter: heap types and what is looked up once. */
struct binding {
    PyTypeObject *segment_type;
    PyTypeObject *area_type;
    PyTypeObject *unset_type;
    PyTypeObject *flight_type;
    PyTypeObject *bell_type;
    PyTypeObject *call_type;
    PyObject *unset;
    PyObject *uuid_type;    /* uuid.UUID */
    PyObject *encode_other; /* accelerator.keys.encode: for types this file does not know */
    PyObject *str_attach;   /* names of the Python methods that the hit path falls through to */
    PyObject *str_miss;
    PyObject *str_mmiss;
    PyObject *str_contains_miss;
    PyObject *str_set;
    PyObject *str_decode;
    PyObject *str_bytes;
    PyObject *str_near_end;
    struct wrapperbase contains; /* of `in`, with a docstring of its own */
};

struct binding *binding_of_type(PyTypeObject *type);

/* --- keys.c ----------------------------------------------------------------------------------- */

#define KEY_BUFFER (ACC_KEY_MAX + 1)
#define KEY_TAG_STR 's'

/* Tag and payload of a key; `buffer` holds what is not simply the object's own memory.  The hash is
 * not set. False with TypeError or ValueError, which name the type and never the key. */
bool key_encode(struct binding *binding, PyObject *object, uint8_t buffer[KEY_BUFFER],
                struct acc_key *out);
/* Tag and payload as one bytes object; NULL with an exception. */
PyObject *key_bytes(struct binding *binding, PyObject *object);

/* --- args.c ----------------------------------------------------------------------------------- */

/* Keyword arguments of get and mget: default and options apart from the read options, of which a
 * dict is made if there are any.  False with an exception. */
bool split_keywords(PyObject *const *values, PyObject *kwnames, const char *method,
                    PyObject **fallback, PyObject **options, PyObject **more);

/* --- object_cache.c --------------------------------------------------------------------------- */

/* A decoded object and what proves it current.  Two of them are one cache line: a hit among many
 * keys is as fast as the lines it touches are few. */
struct object_entry {
    uintptr_t
        tagged; /* the key (exact str, bytes or int) and 16 bits of its hash above it; 0: empty */
    uintptr_t held; /* the object; or an enum object_other in the low bits */
    uint64_t word;  /* the index word when the value was read: unchanged, it names the same bytes */
    uint32_t slot;  /* where that word is: units from the segment's start; OBJECT_CLOSER */
    uint32_t
        life; /* expire_at of those bytes; of an item with two copies the sequence that was read */
};

/* What is needed of an entry less often. */
struct object_extra {
    uint64_t tag_epoch; /* of the area, behind which its tags were last found in force */
    uint32_t size;      /* payload bytes, of an object */
    bool twice;         /* of an object: its item has two copies, */
    bool tagged;        /* ... or tags: then the entry is OBJECT_CLOSER */
};

_Static_assert(sizeof(struct object_entry) == 32, "a set of two is one line");

/* Its word alone proves nothing: of an object, see object_extra; of a place, the item has two
 * copies. */
#define OBJECT_CLOSER (1u << 31)

/* Addresses of objects have 48 bits; what differs in the hash is told apart without looking at the
 * key. */
#define OBJECT_KEY_BITS 48

static inline uintptr_t object_tag(PyObject *key, Py_hash_t hash) {
    return (uintptr_t)key | (uintptr_t)hash << OBJECT_KEY_BITS;
}

static inline PyObject *object_key(const struct object_entry *entry) {
    return (PyObject *)(entry->tagged & (((uintptr_t)1 << OBJECT_KEY_BITS) - 1));
}

static inline bool object_same_hash(const struct object_entry *entry, Py_hash_t hash) {
    return entry->tagged != 0 && (uint16_t)(entry->tagged >> OBJECT_KEY_BITS) == (uint16_t)hash;
}

/* What else can be remembered of a key. */
enum object_other {
    OBJECT_PLACE = 1,  /* where the item lies whose value is copied out at each read (the address
                          above these bits) */
    OBJECT_ABSENT = 2, /* that it was absent: `slot` is its bucket, `word` its tag; to be looked for
                          there again */
    OBJECT_OTHER = 3,
};

static inline bool object_is_object(const struct object_entry *entry) {
    return (entry->held & OBJECT_OTHER) == 0;
}

static inline PyObject *object_value(const struct object_entry *entry) {
    return object_is_object(entry) ? (PyObject *)entry->held : NULL;
}

/* The objects of one area, shared by all LevelCache objects of it that treat objects alike. */
struct object_cache {
    struct object_entry *entries; /* sets of two */
    uint32_t shift;               /* 64 - log2 of the number of sets */
    uint32_t area_count;          /* generation of the area that all entries are of */
    struct object_extra *extras;  /* of each entry */
    void *memory;
    uint32_t sets;
    uint32_t hand;
    uint32_t used;
    uint64_t bytes;
    uint64_t bytes_max;
    bool spare; /* nobody's: the view that had it is gone */
};

struct object_cache *object_cache_new(uint64_t bytes_max);
void object_cache_clear(struct object_cache *cache);
void object_cache_free(struct object_cache *cache);
int object_cache_traverse(struct object_cache *cache, visitproc visit, void *arg);
void object_cache_put(struct object_cache *cache, Py_hash_t hash, const struct object_entry *entry,
                      const struct object_extra *extra);
/* The same for an absent key, which takes nobody's place. */
void object_cache_put_absent(struct object_cache *cache, Py_hash_t hash,
                             const struct object_entry *entry);

/* Fibonacci hashing: the hash of an int is the int, and must be spread. */
static inline struct object_entry *object_cache_set(const struct object_cache *cache,
                                                    Py_hash_t hash) {
    return &cache->entries[((uint64_t)hash * 0x9e3779b97f4a7c15ull >> cache->shift) * 2];
}

bool object_key_equal(PyObject *seen, PyObject *key);

/* --- segment_type.c --------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD struct acc_segment *seg;
    struct object_cache **objects; /* [area][enum object_kind] */
    size_t objects_count;
    struct object_cache **own; /* each for one view */
    size_t own_count;
} SegmentObject;

/* What objects are kept for reads of an area: immutable ones, all, none (only where the items lie).
 */
enum object_kind { OBJECTS_AUTO, OBJECTS_SHARED, OBJECTS_COPY, OBJECT_KINDS };

/* The object cache of an area, made when first asked for.  NULL with an exception. */
struct object_cache *segment_objects(SegmentObject *self, uint32_t area, enum object_kind kind,
                                     uint64_t bytes_max);

/* An object cache for one view alone, which gives it back when it goes.  NULL with an exception. */
struct object_cache *segment_own_objects(SegmentObject *self, uint64_t bytes_max);

extern PyType_Spec segment_spec;
/* Set the exception for a status; always NULL. */
PyObject *raise_status(enum acc_status status, const char *doing);
PyObject *binding_format_segment(PyObject *module, PyObject *args, PyObject *kwargs);
PyObject *binding_peek_header(PyObject *module, PyObject *data);

/* --- area_type.c, area_read.c, area_write.c --------------------------------------------------- */

enum area_flag {
    AREA_PLAIN_MISS = 1,
    AREA_PLAIN_SET = 2,
    AREA_OBJECTS_SHARED = 4,
    AREA_OBJECTS_COPY = 8,
    AREA_VERIFY_FULL = 16,
    AREA_CACHE_NULL = 32,
    AREA_OFF = 64,
    AREA_LOADS = 128, /* it has a loader: what is missing is Python's */
    AREA_OWN_OBJECTS = 256,
    AREA_BY_ANSWER = 512, /* objects are kept by what the converter answers, not by the key given */
};

typedef struct {
    PyObject_HEAD struct acc_area area; /* area.seg NULL: never bound */
    struct object_cache *objects;       /* belongs to `segment`; NULL: nothing may be remembered */
    PyObject *converter;                /* of the caller's keys; NULL: they are keys as they are */
    uint32_t flags;
    struct binding *binding;
    SegmentObject *segment;
    uint32_t max_value_size;
    uint32_t life, null_life, stale_life; /* clock units; 0: no expiry, no stale life */
    uint32_t jitter;                      /* of 2^16: how much of a configured life may go */
    uint32_t refresh_window; /* a hit with less than this left tells Python; 0: none does */
    uint32_t sample;         /* reads, for the sampled value check */
    struct acc_hot_draw hot; /* ... and for the table of hot keys */
    uint64_t random;
} AreaObject;

extern PyType_Spec area_spec;

/* The area as it is now, for where Python code runs or the GIL is released: another thread may bind
 * it anew meanwhile. */
struct held {
    struct acc_area area;
    SegmentObject *segment;
};

static inline struct held hold(AreaObject *self) {
    return (struct held){self->area, (SegmentObject *)Py_NewRef(self->segment)};
}

/* Bind, enter after a fork: what the hit path needs done first.  False with an exception. */
bool area_ready_slow(AreaObject *self);

static inline bool area_ready(AreaObject *self) {
    return acc_area_entered(&self->area) || area_ready_slow(self);
}

/* What the converter makes of a caller's key.  It is Python code: on return another thread may have
 * bound the area anew.  NULL with an exception. */
PyObject *area_convert(AreaObject *self, PyObject *object);
/* Convert, encode and hash; the key lies in `buffer`, as nobody holds the converter's answer. */
bool area_key_converted(AreaObject *self, PyObject *object, uint8_t buffer[KEY_BUFFER],
                        struct acc_key *key);

/* What a caller's key is called outside: tag and payload, as bytes.  NULL with an exception. */
PyObject *area_key_name(AreaObject *self, PyObject *object);

/* The key of an object that is one as it is. */
static inline bool area_key_plain(AreaObject *self, PyObject *object, uint8_t buffer[KEY_BUFFER],
                                  struct acc_key *key) {
    /* What key_encode() does for almost every key there is, without the call. */
    if (acc_likely(PyUnicode_CheckExact(object)) && PyUnicode_IS_COMPACT_ASCII(object) &&
        acc_likely(PyUnicode_GET_LENGTH(object) <= (Py_ssize_t)ACC_KEY_MAX)) {
        *key = (struct acc_key){.data = PyUnicode_DATA(object),
                                .size = (uint32_t)PyUnicode_GET_LENGTH(object),
                                .tag = KEY_TAG_STR};
    } else if (!key_encode(self->binding, object, buffer, key)) {
        return false;
    }
    key->hash = acc_hash_in_area(self->area.seg, self->area.base, key->tag, key->data, key->size);
    return true;
}

/* Encode and hash what a caller gives for a key.  Python code may run (a converter's, an unusual
 * key's own), so what the caller of this has looked up before may be another segment's by now. */
static inline bool area_key(AreaObject *self, PyObject *object, uint8_t buffer[KEY_BUFFER],
                            struct acc_key *key) {
    if (acc_unlikely(self->converter != NULL)) {
        return area_key_converted(self, object, buffer, key);
    }
    return area_key_plain(self, object, buffer, key);
}

/* What a read found, as an object. */
struct reading {
    PyObject *object;
    struct acc_record record;
    uint64_t word;
    uint32_t sequence;
    bool fresh;
};

/* What a reader asks for. */
struct request {
    bool mark;      /* keep the key from eviction */
    bool stale;     /* what is not fresh will do */
    int64_t within; /* clock units: greatest age of what is fresh; ACC_ANY_AGE */
};

/* 1: found, 0: not there, -1: exception. */
int area_read_object(AreaObject *self, PyObject *key_object, const struct acc_key *key,
                     struct request request, struct reading *out);

PyObject *area_get(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *area_mget(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *area_set(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
int area_contains(PyObject *op, PyObject *key);
/* A hit whose refresh is not due: 1, counted; 0 anything else, not counted; -1 exception. */
int area_hit(AreaObject *self, PyObject *key, PyObject **out);
PyObject *area_hit_method(PyObject *op, PyObject *key);
/* The same of what is remembered by another name than its key, and nothing but that. */
int area_hit_remembered(AreaObject *self, PyObject *kept_as, PyObject **out);
/* The same, after that has found nothing: looked up by what the converter makes of `given`, and
 * remembered by the name. */
int area_hit_converted(AreaObject *self, PyObject *given, PyObject *kept_as, PyObject **out);

PyObject *area_store(PyObject *op, PyObject *args, PyObject *kwargs);
PyObject *area_read(PyObject *op, PyObject *args, PyObject *kwargs);
PyObject *area_token(PyObject *op, PyObject *key);
PyObject *area_delete(PyObject *op, PyObject *key);
PyObject *area_expire(PyObject *op, PyObject *key);
PyObject *area_touch(PyObject *op, PyObject *args);
PyObject *area_incr(PyObject *op, PyObject *args);
PyObject *area_clear(PyObject *op, PyObject *unused);
PyObject *area_freshness(PyObject *op, PyObject *unused);

/* How many clock units a value is old already, from seconds (not below 0).  False with an
 * exception. */
bool area_age(double seconds, uint32_t *out);
/* ttl None: no expiry; else more than 0 seconds.  False with an exception. */
bool area_life(PyObject *ttl, double stale_ttl, uint32_t now, uint32_t *expire_at,
               uint32_t *stale_until);

/* --- area_tags.c ------------------------------------------------------------------------------ */

/* Tags of a value as Python gives them (NULL: none); `since` is the caller's to set.  False with an
 * exception. */
bool area_tags(const struct acc_area *area, PyObject *given, struct acc_tags *out);
PyObject *area_delete_tags(PyObject *op, PyObject *tags);
PyObject *area_expire_tags(PyObject *op, PyObject *tags);
PyObject *area_note_tag(PyObject *op, PyObject *args);
PyObject *segment_invalidate_tags(PyObject *op, PyObject *args);

/* --- flight_type.c ---------------------------------------------------------------------------- */

enum load_mode { LOAD_JOIN, LOAD_REFRESH, LOAD_FORCE, LOAD_LOCK };
enum flight_state { FLIGHT_OVER, FLIGHT_LEADING, FLIGHT_JOINED, FLIGHT_CROWDED };
enum flight_wait { WAIT_TIMEOUT, WAIT_ENDED, WAIT_AGAIN };

/* What Segment.link_note tells. */
enum link_event { LINK_CONNECTED, LINK_LOST, LINK_MESSAGE };

extern PyType_Spec flight_spec, bell_spec, call_spec;

/* A Flight for a ticket; NULL with an exception, and then the ticket's part has ended. */
PyObject *flight_new(AreaObject *area, const struct acc_key *key, const struct acc_ticket *ticket,
                     enum flight_state state);

/* --- area_load.c, bell_type.c ----------------------------------------------------------------- */

PyObject *area_enter(PyObject *op, PyObject *args);
PyObject *area_enter_alone(PyObject *op, PyObject *args);
PyObject *area_pause(PyObject *op, PyObject *args);
PyObject *area_pausing(PyObject *op, PyObject *key_object);
PyObject *area_latency(PyObject *op, PyObject *arg);
PyObject *area_latencies(PyObject *op, PyObject *unused);
PyObject *area_l2_latency(PyObject *op, PyObject *arg);
PyObject *area_l2_latencies(PyObject *op, PyObject *unused);
PyObject *segment_bell(PyObject *op, PyObject *unused);
PyObject *segment_flights(PyObject *op, PyObject *unused);
/* Name of an area; "?" if it has none. */
PyObject *segment_area_name(const struct acc_segment *seg, uint32_t id);

/* --- segment_link.c --------------------------------------------------------------------------- */

PyObject *segment_origin(PyObject *op, void *closure);
PyObject *segment_watched(PyObject *op, PyObject *unused);
PyObject *segment_area_state(PyObject *op, PyObject *arg);
PyObject *segment_area_applied(PyObject *op, PyObject *args);
PyObject *segment_area_extend(PyObject *op, PyObject *args);
PyObject *segment_invalidate(PyObject *op, PyObject *args, PyObject *kwargs);
PyObject *segment_clear_area(PyObject *op, PyObject *arg);
PyObject *segment_area_count(PyObject *op, PyObject *args);
PyObject *segment_lead(PyObject *op, PyObject *arg);
PyObject *segment_lead_beat(PyObject *op, PyObject *arg);
PyObject *segment_lead_resign(PyObject *op, PyObject *arg);
PyObject *segment_leader(PyObject *op, PyObject *unused);
PyObject *segment_link_confirm(PyObject *op, PyObject *arg);
PyObject *segment_link_refused(PyObject *op, PyObject *unused);
PyObject *segment_link_note(PyObject *op, PyObject *args);
PyObject *segment_link(PyObject *op, PyObject *unused);
PyObject *segment_remote_ask(PyObject *op, PyObject *args);
PyObject *segment_remote_ok(PyObject *op, PyObject *arg);
PyObject *segment_remote_failed(PyObject *op, PyObject *args);
PyObject *segment_confirmed_age(PyObject *op, PyObject *unused);

/* --- segment_operator.c ----------------------------------------------------------------------- */

PyObject *segment_override(PyObject *op, PyObject *args, PyObject *kwargs);
PyObject *segment_overrides(PyObject *op, PyObject *unused);
PyObject *segment_overrides_taken(PyObject *op, PyObject *unused);
PyObject *segment_overrides_print(PyObject *op, PyObject *unused);
PyObject *segment_overrides_seen(PyObject *op, PyObject *unused);
PyObject *segment_event(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *segment_event_begin(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                              PyObject *kwnames);
PyObject *segment_event_end(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                            PyObject *kwnames);
PyObject *segment_events(PyObject *op, PyObject *args, PyObject *kwargs);
PyObject *segment_log_allowed(PyObject *op, PyObject *args, PyObject *kwargs);

/* --- segment_tables.c ------------------------------------------------------------------------- */

PyObject *segment_areas(PyObject *op, PyObject *unused);
PyObject *segment_blocks(PyObject *op, PyObject *unused);
PyObject *segment_tables(PyObject *op, PyObject *args, PyObject *kwargs);

/* --- segment_shown.c -------------------------------------------------------------------------- */

PyObject *segment_hot_keys(PyObject *op, PyObject *args, PyObject *kwargs);
PyObject *segment_hot_total(PyObject *op, PyObject *unused);
PyObject *segment_area_facts_write(PyObject *op, PyObject *args);
PyObject *segment_area_facts(PyObject *op, PyObject *unused);

/* --- segment_outbox.c ------------------------------------------------------------------------- */

PyObject *segment_outbox_settle(PyObject *op, PyObject *args);
PyObject *segment_outbox_due(PyObject *op, PyObject *args);
PyObject *segment_outbox_recent(PyObject *op, PyObject *arg);
PyObject *segment_outbox_heard(PyObject *op, PyObject *arg);
PyObject *segment_outbox_given_up(PyObject *op, PyObject *arg);
PyObject *segment_outbox_unsent(PyObject *op, PyObject *arg);
PyObject *segment_outbox_owe(PyObject *op, PyObject *arg);
PyObject *segment_outbox_owed(PyObject *op, PyObject *unused);
PyObject *segment_outbox_paid(PyObject *op, PyObject *arg);
PyObject *area_note(PyObject *op, PyObject *args);
PyObject *area_note_clear(PyObject *op, PyObject *unused);

#endif
