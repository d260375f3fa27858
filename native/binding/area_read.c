/* The hit path.  A hit runs no Python frame: first the objects this process has decoded, each
 * proven current by the words in shared memory; then the segment itself; everything else falls
 * through to a Python method. */
#include "objects.h"

#include "lock.h"

/* One value in 64 has its checksum verified even when no object of it is kept. */
#define SAMPLE_MASK 63u
#define STACK_COPY 1024

/* Has no delete overtaken the item since its word was read?  The read itself compared a generation
 * that it had loaded before the word, and may have lost time between the two: a write that was
 * overtaken (a fill, a touch, a move) can have put a word there behind a delete that has long
 * returned.  That item is dead, and one read of it is as if done before the delete; but the word
 * will not change.  From here on it does: who deletes now finds it. */
static bool still_live(const AreaObject *self, const struct acc_found *found, uint64_t hash) {
    const struct acc_segment *seg = self->area.seg;
    const uint64_t *group = acc_generation_word(seg, acc_generation_index(seg, hash));
    return acc_generation_valid(acc_load_acquire(group), found->view.record.key_count, hash);
}

/* A kept object is no longer believed when its refresh is due: then the item is read, and Python is
 * told. */
static uint32_t kept_until(const AreaObject *self, const struct acc_record *record) {
    if (record->expire_at == 0 || self->refresh_window == 0) {
        return record->expire_at;
    }
    uint32_t until = record->expire_at - self->refresh_window;
    return until == 0 ? 1 : until;
}

static uint64_t tag_epoch_of(const AreaObject *self) {
    return acc_load_acquire(&acc_area_slot(self->area.seg, self->area.base)->tag_epoch);
}

/* Are the tags of an item in force?  Whoever believes it has to see that the item is still the one. */
static __attribute__((noinline)) bool tags_hold(const AreaObject *self,
                                                const struct acc_view *view) {
    const struct acc_segment *seg = self->area.seg;
    struct acc_tags tags;
    return acc_view_tags(seg, view, &tags) &&
           acc_tags_judge(seg, self->area.base, &tags) == ACC_TAGS_HOLD;
}

/* The area's epoch has changed since the tags of this object's item were looked at: once more, where
 * they lie.  The epoch first: an operation that adds to it behind that is seen the next time. */
static bool tags_still_hold(const AreaObject *self, const struct object_entry *entry,
                            struct object_extra *extra) {
    uint64_t epoch = tag_epoch_of(self);
    struct acc_view view;
    if (epoch == extra->tag_epoch) {
        return true;
    }
    if (!acc_view_load(self->area.seg, object_shard(self->area.seg, entry),
                       acc_word_ring(entry->word), acc_word_offset(entry->word), &view) ||
        (extra->twice && view.sequence != entry->life) || !acc_record_tagged(&view.record) ||
        !tags_hold(self, &view)) {
        return false;
    }
    acc_fence_acquire();
    if (!acc_view_current(&view) ||
        acc_load_relaxed(object_slot(self->area.seg, entry)) != entry->word) {
        return false;
    }
    extra->tag_epoch = epoch;
    return true;
}

__attribute__((noinline)) PyObject *object_hit_closer(AreaObject *self,
                                                      const struct object_entry *entry,
                                                      struct acc_look look) {
    const struct acc_segment *seg = self->area.seg;
    struct object_extra *extra = &self->objects->extras[entry - self->objects->entries];
    uint64_t word = acc_load_acquire(object_slot(seg, entry));
    if (word != entry->word || (extra->tagged && !tags_still_hold(self, entry, extra))) {
        return NULL;
    }
    bool current = extra->twice ? twice_current(seg, entry, word, self->refresh_window, look)
                                : !acc_clock_passed(entry->life, acc_look_now(seg, &look));
    return current ? object_taken(self, entry) : NULL;
}

/* What was read is to be remembered as an object: what is needed of it later.  False: it may not be.
 * (Python code may have run since its tags were judged.) */
static bool extra_of(const AreaObject *self, const struct acc_found *found,
                     struct object_extra *out) {
    *out = (struct object_extra){.size = acc_record_size(&found->view.record),
                                 .twice = acc_view_twice(&found->view),
                                 .tagged = acc_record_tagged(&found->view.record)};
    if (acc_likely(!out->tagged)) {
        return true;
    }
    out->tag_epoch = tag_epoch_of(self);
    return tags_hold(self, &found->view) && acc_read_valid(found);
}

/* Remember, for the next read of this key, its object or where its item lies. */
static void object_keep(AreaObject *self, PyObject *key_object, uint64_t key_hash,
                        const struct acc_found *found, PyObject *value) {
    const struct acc_view *view = &found->view;
    struct object_extra extra = {0};
    bool twice = acc_view_twice(view);
    uint64_t slot =
        (uint64_t)((uint8_t *)acc_slot_word(found->slot) - self->area.seg->base) / ACC_UNIT;
    struct acc_look look;
    if (!objects_usable(self, &look) || view->record.area_count != self->objects->area_count ||
        !still_live(self, found, key_hash) || (value != NULL && !extra_of(self, found, &extra))) {
        return;
    }
    Py_hash_t hash = object_key_hash(key_object);
    if ((uintptr_t)key_object >> OBJECT_KEY_BITS != 0) {
        return;
    }
    struct object_entry entry = {
        .tagged = object_tag(key_object, hash),
        .held = value != NULL ? (uintptr_t)value : (uintptr_t)view->item | OBJECT_PLACE,
        .word = found->word,
        .slot = (uint32_t)slot | (twice || extra.tagged ? OBJECT_CLOSER : 0),
        .life = twice ? view->sequence : kept_until(self, &view->record),
    };
    /* Whose place it takes has a finaliser, perhaps, which may bind the area anew. */
    SegmentObject *segment = (SegmentObject *)Py_NewRef(self->segment);
    object_cache_put(self->objects, hash, &entry, &extra);
    Py_DECREF(segment);
}

/* --- reading the segment ---------------------------------------------------------------------- */

/* What became of one attempt to take a value out. */
enum taken { TAKEN, AGAIN, GONE, FAILED };

static bool verify_wanted(AreaObject *self, bool keep) {
    return keep || (self->flags & AREA_VERIFY_FULL) != 0 || (self->sample++ & SAMPLE_MASK) == 0;
}

/* The bytes are a private copy now, and whole: found is valid.  A wrong sum is memory damage: drop
 * the item. */
static enum taken check_sum(AreaObject *self, const struct acc_found *found, const void *copy) {
    const struct acc_record *record = &found->view.record;
    if (acc_likely(acc_value_sum(copy, acc_record_size(record)) == record->value_sum)) {
        return TAKEN;
    }
    return acc_read_drop_corrupt(&self->area, found->slot, found->word) ? GONE : AGAIN;
}

static enum taken take_bytes(AreaObject *self, const struct acc_found *found, bool verify,
                             PyObject **out) {
    Py_ssize_t size = acc_record_size(&found->view.record);
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, size);
    if (bytes == NULL) {
        return FAILED;
    }
    memcpy(PyBytes_AS_STRING(bytes), found->view.value, (size_t)size);
    enum taken taken = AGAIN;
    if (acc_likely(acc_read_valid(found))) {
        taken = verify ? check_sum(self, found, PyBytes_AS_STRING(bytes)) : TAKEN;
    }
    if (acc_unlikely(taken != TAKEN)) {
        Py_DECREF(bytes);
        return taken;
    }
    *out = bytes;
    return TAKEN;
}

/* Text is checked while it is decoded, so it is copied out whole first. */
static enum taken take_text(AreaObject *self, const struct acc_found *found, bool verify,
                            PyObject **out) {
    size_t size = acc_record_size(&found->view.record);
    char small[STACK_COPY];
    char *copy = size <= sizeof small ? small : PyMem_Malloc(size);
    if (copy == NULL) {
        PyErr_NoMemory();
        return FAILED;
    }
    memcpy(copy, found->view.value, size);
    enum taken taken = AGAIN;
    if (acc_likely(acc_read_valid(found))) {
        taken = verify ? check_sum(self, found, copy) : TAKEN;
    }
    if (acc_likely(taken == TAKEN)) {
        *out = PyUnicode_DecodeUTF8(copy, (Py_ssize_t)size, "strict");
        if (*out == NULL) {
            PyErr_Clear();
            taken = acc_read_drop_corrupt(&self->area, found->slot, found->word) ? GONE : AGAIN;
        }
    }
    if (copy != small) {
        PyMem_Free(copy);
    }
    return taken;
}

static enum taken take_number(AreaObject *self, const struct acc_found *found, bool is_int,
                              PyObject **out) {
    uint8_t copy[8];
    if (acc_record_size(&found->view.record) != sizeof copy) {
        return acc_read_drop_corrupt(&self->area, found->slot, found->word) ? GONE : AGAIN;
    }
    memcpy(copy, found->view.value, sizeof copy);
    if (!acc_read_valid(found)) {
        return AGAIN;
    }
    enum taken taken = check_sum(self, found, copy);
    if (taken != TAKEN) {
        return taken;
    }
    uint64_t bits = 0;
    for (int i = 0; i < 8; i++) {
        bits |= (uint64_t)copy[i] << (8 * i);
    }
    double number;
    memcpy(&number, &bits, 8);
    *out = is_int ? PyLong_FromLongLong((long long)bits) : PyFloat_FromDouble(number);
    return *out == NULL ? FAILED : TAKEN;
}

/* A copy of the value: the object itself for the raw types, else the payload, to be decoded when no
 * lock is held. */
static enum taken take(AreaObject *self, const struct acc_found *found, bool verify,
                       PyObject **out) {
    switch (acc_record_code(&found->view.record)) {
    case ACC_CODE_STR: return take_text(self, found, verify, out);
    case ACC_CODE_INT: return take_number(self, found, true, out);
    case ACC_CODE_FLOAT: return take_number(self, found, false, out);
    case ACC_CODE_TRUE: *out = Py_True; break;
    case ACC_CODE_FALSE: *out = Py_False; break;
    case ACC_CODE_NULL: *out = Py_None; break;
    default: return take_bytes(self, found, verify, out);
    }
    if (!acc_read_valid(found)) {
        return AGAIN;
    }
    Py_INCREF(*out);
    return TAKEN;
}

static bool is_raw(const struct acc_record *record) {
    uint8_t code = acc_record_code(record);
    return code >= ACC_CODE_BYTES && code <= ACC_CODE_NULL;
}

/* What one look asks for. */
struct wanted {
    PyObject *key_object;
    const struct acc_key *key;
    struct acc_home home;
    struct request request;
    bool keep;
};

/* One attempt: look, find, judge, copy.  Runs no Python code. */
static enum taken attempt(AreaObject *self, const struct wanted *wanted, struct acc_found *found,
                          bool *fresh, PyObject **out) {
    struct acc_look look = acc_likely(wanted->request.within == ACC_ANY_AGE)
                               ? acc_look(&self->area)
                               : acc_look_within(&self->area, wanted->request.within);
    enum acc_status status = acc_read_find(&self->area, &wanted->home, wanted->key, found);
    if (status != ACC_OK) {
        return status == ACC_RACE ? AGAIN : GONE;
    }
    bool live = acc_found_live(&self->area, found, wanted->key->hash);
    enum acc_age age = acc_look_age(self->area.seg, &look, &found->view.record);
    *fresh = age == ACC_FRESH;
    if (acc_unlikely(!live) || age == ACC_GONE || (age == ACC_STALE && !wanted->request.stale)) {
        return acc_read_valid(found) ? GONE : AGAIN;
    }
    return take(self, found, verify_wanted(self, wanted->keep), out);
}

/* Decode a payload through Python's _decode, which answers (object, immutable), or None for what
 * cannot be decoded.  `same` tells whether the area still is the one that the item was found in: a
 * codec is Python code, and other threads run meanwhile. */
static enum taken decode(AreaObject *self, const struct acc_found *found, PyObject **object,
                         bool *immutable, bool *same) {
    PyObject *payload = *object;
    struct held held = hold(self);
    PyObject *code = PyLong_FromLong(acc_record_code(&found->view.record));
    PyObject *pair = NULL;
    if (code != NULL) {
        pair = PyObject_CallMethodObjArgs((PyObject *)self, self->binding->str_decode, code,
                                          payload, NULL);
        Py_DECREF(code);
    }
    Py_DECREF(payload);
    enum taken taken = FAILED;
    if (pair == Py_None) {
        acc_read_drop_corrupt(&held.area, found->slot, found->word);
        taken = GONE;
    } else if (pair != NULL && PyTuple_CheckExact(pair) && PyTuple_GET_SIZE(pair) == 2) {
        *object = Py_NewRef(PyTuple_GET_ITEM(pair, 0));
        *immutable = PyTuple_GET_ITEM(pair, 1) == Py_True;
        taken = TAKEN;
    } else if (pair != NULL) {
        PyErr_SetString(PyExc_TypeError, "_decode must answer (object, immutable) or None");
    }
    Py_XDECREF(pair);
    *same = self->segment == held.segment;
    Py_DECREF(held.segment);
    return taken;
}

/* Rewritten faster than it can be read: once more while nobody may write; then it counts as a miss.
 */
static enum taken attempt_locked(AreaObject *self, const struct wanted *wanted,
                                 struct acc_found *found, bool *fresh, PyObject **out) {
    struct acc_segment *seg = self->area.seg;
    acc_count(self->area.stats, ACC_READ_RACE);
    if (!acc_lock_take(seg, wanted->home.shard, 0)) {
        return GONE;
    }
    enum taken taken = attempt(self, wanted, found, fresh, out);
    acc_lock_give(seg, wanted->home.shard);
    return taken;
}

int area_read_object(AreaObject *self, PyObject *key_object, const struct acc_key *key,
                     struct request request, struct reading *out) {
    if (acc_unlikely((self->flags & AREA_OFF) != 0)) {
        return 0;
    }
    bool keep = OBJECTS && self->objects != NULL && object_key_type(key_object);
    struct wanted wanted = {key_object, key, acc_home_of(self->area.seg, key->hash), request, keep};
    bool fresh = true;
    struct acc_found found;
    PyObject *object = NULL;
    enum taken taken = AGAIN;
    for (int tries = 0; taken == AGAIN && tries < ACC_READ_TRIES; tries++) {
        taken = attempt(self, &wanted, &found, &fresh, &object);
    }
    if (acc_unlikely(taken == AGAIN)) {
        taken = attempt_locked(self, &wanted, &found, &fresh, &object);
    }
    bool immutable = true, same = true;
    if (taken == TAKEN && !is_raw(&found.view.record)) {
        taken = decode(self, &found, &object, &immutable, &same);
    }
    if (acc_unlikely(taken != TAKEN)) {
        return taken == FAILED ? -1 : 0;
    }
    if (request.mark && same) {
        acc_mark_raise(acc_slot_mark(found.slot));
    }
    if (keep && fresh && same) {
        bool whole = (self->flags & AREA_OBJECTS_COPY) == 0 &&
                     (immutable || (self->flags & AREA_OBJECTS_SHARED) != 0);
        object_keep(self, key_object, key->hash, &found, whole ? object : NULL);
    }
    *out = (struct reading){object, found.view.record, found.word, found.view.sequence, fresh};
    return 1;
}

/* --- what is remembered ----------------------------------------------------------------------- */

/* The header of an item with two copies that lies at a remembered place: whichever copy is selected
 * now, if it is of this area as it is now, and fresh.  False: look it up. */
static bool view_twice(const AreaObject *self, const uint8_t *item, uint64_t word,
                       struct acc_look look, struct acc_view *view) {
    const struct acc_segment *seg = self->area.seg;
    uint32_t ring = acc_word_ring(word);
    view->item = item;
    view->ring = ring;
    view->offset = acc_word_offset(word);
    memcpy(&view->common, item, sizeof view->common);
    uint64_t left = seg->geometry.ring_units[ring] - acc_place_of(seg, ring, view->offset);
    return acc_view_load_twice(view, left) &&
           view->record.area_count == self->objects->area_count &&
           (view->record.expire_at == 0 ||
            !acc_clock_passed(view->record.expire_at,
                              acc_look_now(seg, &look) + self->refresh_window));
}

/* Copy out the value of an item whose place is known: no hash, no search, no key to compare,
 * because the word that named this item for this key still does.  1 hit, 0 look it up, -1
 * exception. */
static inline int read_place(AreaObject *self, const struct object_entry *entry,
                             struct acc_look look, PyObject **out) {
    const struct acc_segment *seg = self->area.seg;
    struct acc_found found;
    uint64_t *slot = object_slot(seg, entry);
    struct acc_bucket *bucket = acc_slot_bucket(slot);
    found.slot = (struct acc_slot){bucket, (uint32_t)(slot - bucket->word)};
    found.word = entry->word;
    const uint8_t *item = (const uint8_t *)(entry->held & ~(uintptr_t)OBJECT_OTHER);
    bool sound = acc_unlikely((entry->slot & OBJECT_CLOSER) != 0)
                     ? view_twice(self, item, entry->word, look, &found.view)
                     : acc_view_load_at(item, acc_word_offset(entry->word), &found.view);
    if (acc_unlikely(!sound) ||
        (acc_unlikely(acc_record_tagged(&found.view.record)) && !tags_hold(self, &found.view))) {
        return 0;
    }
    bool bytes = acc_record_code(&found.view.record) == ACC_CODE_BYTES;
    bool verify = (++self->sample & SAMPLE_MASK) == 0;
    enum taken taken =
        bytes && !verify ? take_bytes(self, &found, false, out) : take(self, &found, verify, out);
    if (acc_likely(taken == TAKEN)) {
        raise_mark_of(slot); /* before the codec: then the slot may be another segment's */
        if (hot_due(self)) {
            hot_count_entry(self, entry);
        }
    }
    bool immutable, same;
    if (!bytes && taken == TAKEN && !is_raw(&found.view.record)) {
        taken = decode(self, &found, out, &immutable, &same);
    }
    return acc_likely(taken == TAKEN) ? 1 : taken == FAILED ? -1 : 0;
}

enum remembered { MUST_LOOK, HIT, MISSING, RAISED };

/* Is it certain that no word is the key's?  None in its bucket has its tag, and nothing that
 * belongs there lies elsewhere. */
static inline bool bucket_lacks(const struct acc_bucket *bucket, uint16_t tag) {
    return acc_bucket_match(bucket, tag) == 0 && !acc_bucket_overflowed(bucket);
}

/* Is a miss counted here, and this one drawn for the table of hot keys?  It needs the key's hash, so it
 * is looked up, and drawn there. */
static inline bool miss_due_next(AreaObject *self) {
    if ((self->flags & AREA_PLAIN_MISS) == 0) {
        return false;
    }
    bool due = hot_due(self);
    if (due) {
        self->hot.left = 1; /* there */
    }
    return due;
}

/* The caller has asked objects_usable().  A hit is counted. */
static inline enum remembered read_remembered(AreaObject *self, PyObject *key, struct acc_look look,
                                              PyObject **out) {
    const struct acc_segment *seg = self->area.seg;
    const struct object_entry *entry = object_find(self->objects, key, object_key_hash(key));
    if (entry == NULL) {
        return MUST_LOOK;
    }
    if (acc_unlikely(entry->held == OBJECT_ABSENT)) {
        const struct acc_bucket *bucket = (const struct acc_bucket *)object_slot(seg, entry);
        return bucket_lacks(bucket, (uint16_t)entry->word) && !miss_due_next(self) ? MISSING
                                                                                   : MUST_LOOK;
    }
    if (acc_likely(object_is_object(entry))) {
        *out = object_hit(self, entry, look);
        return acc_likely(*out != NULL) ? HIT : MUST_LOOK;
    }
    if (acc_unlikely(!place_current(self, entry, look))) {
        return MUST_LOOK;
    }
    int found = read_place(self, entry, look, out);
    if (acc_unlikely(found != 1)) {
        return found < 0 ? RAISED : MUST_LOOK;
    }
    acc_count_own(&self->area.stats->counter[ACC_LOCAL_HIT], 1);
    return HIT;
}

/* Where to look for an absent key next time, so that its hash need not be computed again. */
static void remember_absent(AreaObject *self, PyObject *key_object, const struct acc_home *home,
                            const struct acc_bucket *bucket) {
    uint64_t slot = (uint64_t)((const uint8_t *)bucket - self->area.seg->base) / ACC_UNIT;
    if (!object_key_type(key_object) || (uintptr_t)key_object >> OBJECT_KEY_BITS != 0) {
        return;
    }
    Py_hash_t hash = object_key_hash(key_object);
    struct object_entry entry = {
        .tagged = object_tag(key_object, hash),
        .held = OBJECT_ABSENT,
        .word = home->tag,
        .slot = (uint32_t)slot,
    };
    if (object_find(self->objects, key_object, hash) == NULL) {
        object_cache_put_absent(self->objects, hash, &entry);
    }
}

/* --- get -------------------------------------------------------------------------------------- */

static PyObject *miss(AreaObject *self, PyObject *key, PyObject *fallback, PyObject *options,
                      PyObject *more) {
    if ((self->flags & AREA_PLAIN_MISS) != 0 && options == Py_None && more == NULL) {
        acc_count_own(&self->area.stats->counter[ACC_LOCAL_MISS], 1);
        return Py_NewRef(fallback);
    }
    PyObject *given = more == NULL ? PyDict_New() : Py_NewRef(more);
    if (given == NULL) {
        return NULL;
    }
    PyObject *answer = PyObject_CallMethodObjArgs((PyObject *)self, self->binding->str_miss, key,
                                                  fallback, options, given, NULL);
    Py_DECREF(given);
    return answer;
}

/* A miss of an area whose misses are not Python's. */
static inline void draw_miss(AreaObject *self, uint64_t hash) {
    if ((self->flags & AREA_PLAIN_MISS) != 0 && hot_due(self)) {
        hot_count(self, hash);
    }
}

/* Look a key up in the segment; what is found is remembered as `kept_as`.  1 hit, 2 hit whose
 * refresh is due, 0 miss, -1 exception; only a 1 is counted. */
static inline int look_up(AreaObject *self, PyObject *key_object, PyObject *kept_as, bool usable,
                          PyObject **out) {
    uint8_t buffer[KEY_BUFFER];
    struct acc_key key;
    if (!area_key_plain(self, key_object, buffer, &key)) {
        return -1;
    }
    struct acc_home home = acc_home_of(self->area.seg, key.hash);
    const struct acc_bucket *bucket = acc_home_first(self->area.seg, &home);
    if (bucket_lacks(bucket, home.tag)) {
        if (usable && self->objects != NULL) { /* a key's own code may have run */
            remember_absent(self, kept_as, &home, bucket);
        }
        draw_miss(self, key.hash);
        return 0;
    }
    struct reading reading;
    static const struct request plain = {.mark = true, .within = ACC_ANY_AGE};
    int found = area_read_object(self, kept_as, &key, plain, &reading);
    if (found == 0) {
        draw_miss(self, key.hash);
    } else if (found == 1) {
        *out = reading.object;
        if (hot_due(self)) {
            hot_count(self, key.hash);
        }
        if (acc_unlikely(self->refresh_window != 0) && reading.record.expire_at != 0 &&
            acc_clock_passed(kept_until(self, &reading.record), acc_now(self->area.seg))) {
            return 2;
        }
        acc_count_own(&self->area.stats->counter[ACC_LOCAL_HIT], 1);
    }
    return found;
}

/* What is remembered of an object that is a key, or by what a converter has made of one. */
static inline enum remembered remembered_as(AreaObject *self, PyObject *key, bool *usable,
                                            PyObject **out) {
    struct acc_look look;
    *usable = objects_usable(self, &look);
    return *usable && object_key_type(key) ? read_remembered(self, key, look, out) : MUST_LOOK;
}

static int found_of(enum remembered remembered) {
    return remembered == HIT ? 1 : remembered == MISSING ? 0 : -1;
}

/* Not remembered by the caller's key, which has to be converted; what is found is remembered by
 * `kept_as` (NULL: by the converter's answer).  What could be used before may be another segment's
 * after that: it is asked again. */
static __attribute__((noinline, cold)) int read_converted(AreaObject *self, PyObject *key_object,
                                                          PyObject *kept_as, PyObject **out) {
    PyObject *answer = area_convert(self, key_object);
    if (answer == NULL) {
        return -1;
    }
    kept_as = kept_as == NULL ? answer : kept_as;
    bool usable;
    enum remembered remembered = remembered_as(self, kept_as, &usable, out);
    int found = remembered == MUST_LOOK ? look_up(self, answer, kept_as, usable, out)
                                        : found_of(remembered);
    Py_DECREF(answer);
    return found;
}

/* As look_up(), by what is remembered if that can be. */
static inline int read_one(AreaObject *self, PyObject *key_object, PyObject **out) {
    bool usable;
    enum remembered remembered = remembered_as(self, key_object, &usable, out);
    if (acc_likely(remembered != MUST_LOOK)) {
        return found_of(remembered);
    }
    if (acc_unlikely(self->converter != NULL)) {
        bool by_answer = (self->flags & AREA_BY_ANSWER) != 0;
        return read_converted(self, key_object, by_answer ? NULL : key_object, out);
    }
    return look_up(self, key_object, key_object, usable, out);
}

int area_read_one(AreaObject *self, PyObject *key_object, PyObject **out) {
    int found = read_one(self, key_object, out);
    if (acc_unlikely(found == 2)) {
        acc_count_own(&self->area.stats->counter[ACC_LOCAL_HIT], 1);
        return 1;
    }
    return found;
}

/* What area_hit() answers, of what read_one() does. */
static inline int plain_hit(AreaObject *self, int found, PyObject **out) {
    if (acc_likely(found == 1)) {
        count_negative(self, *out);
        return 1;
    }
    if (found == 2) { /* whoever is asked next finds it again, and has it refreshed */
        Py_DECREF(*out);
        self->hot.left++; /* and draws it again */
        return 0;
    }
    return found;
}

int area_hit(AreaObject *self, PyObject *key, PyObject **out) {
    if (acc_unlikely(!area_ready(self))) {
        return -1;
    }
    return plain_hit(self, read_one(self, key, out), out);
}

int area_hit_remembered(AreaObject *self, PyObject *kept_as, PyObject **out) {
    if (acc_unlikely(!area_ready(self))) {
        return -1;
    }
    bool usable;
    enum remembered remembered = remembered_as(self, kept_as, &usable, out);
    return remembered == MUST_LOOK ? 0 : plain_hit(self, found_of(remembered), out);
}

int area_hit_converted(AreaObject *self, PyObject *given, PyObject *kept_as, PyObject **out) {
    if (self->converter == NULL) {
        return 0;
    }
    return plain_hit(self, read_converted(self, given, kept_as, out), out);
}

PyObject *area_hit_method(PyObject *op, PyObject *key) {
    AreaObject *self = (AreaObject *)op;
    PyObject *object;
    int found = area_hit(self, key, &object);
    return found == 1 ? object : found == 0 ? Py_NewRef(self->binding->unset) : NULL;
}

/* Tell Python that a refresh is due.  The value is in hand: no Exception from there takes it away,
 * but what is none (the end of the worker, for one) goes on. */
static PyObject *near_end(AreaObject *self, PyObject *key, PyObject *object) {
    PyObject *answer =
        PyObject_CallMethodOneArg((PyObject *)self, self->binding->str_near_end, key);
    if (answer == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_Exception)) {
            Py_DECREF(object);
            return NULL;
        }
        PyErr_Clear();
    }
    Py_XDECREF(answer);
    return object;
}

static inline PyObject *get_plain(AreaObject *self, PyObject *key, PyObject *fallback) {
    PyObject *object;
    if (acc_unlikely(!area_ready(self))) {
        return NULL;
    }
    int found = read_one(self, key, &object);
    if (acc_likely(found == 1)) {
        count_negative(self, object);
        return object;
    }
    if (found == 2) {
        acc_count_own(&self->area.stats->counter[ACC_LOCAL_HIT], 1);
        count_negative(self, object);
        return near_end(self, key, object);
    }
    return found < 0 ? NULL : miss(self, key, fallback, Py_None, NULL);
}

static PyObject *get_with_keywords(AreaObject *self, PyObject *const *args, Py_ssize_t nargs,
                                   PyObject *kwnames) {
    PyObject *fallback = nargs > 1 ? args[1] : NULL, *options = Py_None, *more = NULL,
             *answer = NULL;
    if (split_keywords(args + nargs, kwnames, "get", &fallback, &options, &more)) {
        fallback = fallback == NULL ? Py_None : fallback;
        /* Options may forbid what a plain hit returns (max_staleness and the like): Python decides.
         */
        answer = options == Py_None && more == NULL ? get_plain(self, args[0], fallback)
                 : area_ready(self)                 ? miss(self, args[0], fallback, options, more)
                                                    : NULL;
    }
    Py_XDECREF(more);
    return answer;
}

PyObject *area_get(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    AreaObject *self = (AreaObject *)op;
    if (acc_unlikely(nargs < 1 || nargs > 2)) {
        PyErr_Format(PyExc_TypeError,
                     "get() takes a key and a default (%zd positional arguments given)", nargs);
        return NULL;
    }
    if (acc_unlikely(kwnames != NULL)) {
        return get_with_keywords(self, args, nargs, kwnames);
    }
    return get_plain(self, args[0], nargs == 2 ? args[1] : Py_None);
}

/* --- in --------------------------------------------------------------------------------------- */

static bool is_in_segment(AreaObject *self, const struct acc_key *key) {
    struct acc_home home = acc_home_of(self->area.seg, key->hash);
    struct acc_found found;
    struct acc_look look = acc_look(&self->area);
    enum acc_status status = acc_read_find_bounded(&self->area, &home, key, &found);
    return status == ACC_OK && acc_found_live(&self->area, &found, key->hash) &&
           acc_look_age(self->area.seg, &look, &found.view.record) == ACC_FRESH;
}

int area_contains(PyObject *op, PyObject *key_object) {
    AreaObject *self = (AreaObject *)op;
    uint8_t buffer[KEY_BUFFER];
    struct acc_key key;
    if (!area_ready(self) || !area_key(self, key_object, buffer, &key)) {
        return -1;
    }
    if ((self->flags & AREA_OFF) == 0 && is_in_segment(self, &key)) {
        return 1;
    }
    if ((self->flags & AREA_PLAIN_MISS) != 0) {
        return 0;
    }
    PyObject *answer = PyObject_CallMethodOneArg(op, self->binding->str_contains_miss, key_object);
    if (answer == NULL) {
        return -1;
    }
    int truth = PyObject_IsTrue(answer);
    Py_DECREF(answer);
    return truth;
}
