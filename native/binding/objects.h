/* What a process remembers of keys, and the proof that it is still true: used by get and mget.  In
 * a header, because it is the hit path. */
#ifndef ACC_BINDING_OBJECTS_H
#define ACC_BINDING_OBJECTS_H

#include "hot.h"

#ifdef Py_GIL_DISABLED
/* Without a GIL an entry could be replaced while it is read; values are then decoded from the
 * segment each time. */
#define OBJECTS 0
#else
#define OBJECTS 1
#endif

static inline bool object_key_type(PyObject *key) {
    return PyUnicode_CheckExact(key) || PyLong_CheckExact(key) || PyBytes_CheckExact(key);
}

static inline Py_hash_t object_key_hash(PyObject *key) {
    if (acc_likely(PyUnicode_CheckExact(key))) {
        Py_hash_t hash = ((PyASCIIObject *)key)->hash;
        if (acc_likely(hash != -1)) {
            return hash;
        }
    }
    return PyObject_Hash(key); /* of str, int and bytes: cannot fail */
}

static inline struct object_entry *object_find(const struct object_cache *cache, PyObject *key,
                                               Py_hash_t hash) {
    struct object_entry *set = object_cache_set(cache, hash);
    uintptr_t tagged = object_tag(key, hash);
    if (acc_likely(set[0].tagged == tagged)) {
        return &set[0];
    }
    if (set[1].tagged == tagged) {
        return &set[1];
    }
    for (int i = 0; i < 2; i++) {
        if (object_same_hash(&set[i], hash) && object_key_equal(object_key(&set[i]), key)) {
            return &set[i];
        }
    }
    return NULL;
}

static inline uint64_t *object_slot(const struct acc_segment *seg,
                                    const struct object_entry *entry) {
    return (uint64_t *)(seg->base + (uint64_t)(entry->slot & ~OBJECT_CLOSER) * ACC_UNIT);
}

static inline uint32_t object_shard(const struct acc_segment *seg,
                                    const struct object_entry *entry) {
    const struct acc_bucket *bucket = acc_slot_bucket(object_slot(seg, entry));
    return (uint32_t)((uint64_t)(bucket - acc_bucket(seg, 0, 0)) / seg->geometry.buckets);
}

/* An item with two copies is rewritten under an unchanged word: its sequence and expiry are read
 * where they lie. */
static inline bool twice_current(const struct acc_segment *seg, const struct object_entry *entry,
                                 uint64_t word, uint32_t window, struct acc_look look) {
    uint32_t shard = object_shard(seg, entry);
    const struct acc_item_twice *item = (const struct acc_item_twice *)acc_ring_at(
        seg, shard, acc_word_ring(word), acc_word_offset(word));
    uint32_t sequence = acc_load_acquire(&item->sequence);
    uint32_t expire_at = acc_load_relaxed(&item->record[sequence & 1].expire_at);
    acc_fence_acquire();
    return sequence == entry->life && acc_load_relaxed(&item->sequence) == sequence &&
           acc_load_relaxed(object_slot(seg, entry)) == word &&
           (expire_at == 0 || !acc_clock_passed(expire_at, acc_look_now(seg, &look) + window));
}

/* If the index word is what it was when the value was read, then the segment holds this very value
 * now: words are never used twice, a delete that has returned has replaced it, and whoever finds an
 * item overtaken by a delete replaces it before he says so.  So the key's generation, which every
 * read of the segment itself compares, needs no load here. Nor does the expiry: it is part of the
 * bytes that the word names. */
static inline bool object_current(const AreaObject *self, const struct object_entry *entry,
                                  struct acc_look look) {
    const struct acc_segment *seg = self->area.seg;
    if (entry->life != 0 && acc_unlikely(acc_clock_passed(entry->life, acc_look_now(seg, &look)))) {
        return false;
    }
    return acc_likely(acc_load_acquire(object_slot(seg, entry)) == entry->word);
}

/* The same for a place, where two copies may be rewritten as often as they like: whichever is selected
 * is judged when it is read.  So are tags, whether there are two copies or one. */
static inline bool place_current(const AreaObject *self, const struct object_entry *entry,
                                 struct acc_look look) {
    if (acc_unlikely((entry->slot & OBJECT_CLOSER) != 0)) {
        return acc_load_acquire(object_slot(self->area.seg, entry)) == entry->word;
    }
    return object_current(self, entry, look);
}

/* The area was cleared since the entries were made: none of them is current.  Finalisers of objects
 * run, and may bind the area anew: the segment is held, because the entries are its own.  False:
 * they did. */
static __attribute__((noinline, cold)) bool objects_renew(AreaObject *self, uint32_t area_count) {
    struct object_cache *objects = self->objects;
    SegmentObject *segment = (SegmentObject *)Py_NewRef(self->segment);
    object_cache_clear(objects);
    objects->area_count = area_count;
    bool same = self->objects == objects;
    Py_DECREF(segment);
    return same;
}

/* May what is remembered be used?  It does not tell how old it is, so not by a reader that is capped.
 * The look is taken first, before the generation and the index word that prove an entry current. */
static inline bool objects_usable(AreaObject *self, struct acc_look *look) {
    if (!OBJECTS || self->objects == NULL) {
        return false;
    }
    *look = acc_look(&self->area);
    if (acc_look_capped(look)) {
        return false;
    }
    uint32_t area_count = (uint32_t)acc_load_acquire(self->area.generation);
    return acc_likely(area_count == self->objects->area_count) || objects_renew(self, area_count);
}

static inline void raise_mark_of(uint64_t *slot) {
    struct acc_bucket *bucket = acc_slot_bucket(slot);
    acc_mark_raise(&bucket->mark[slot - bucket->word]);
}

static inline PyObject *object_taken(AreaObject *self, const struct object_entry *entry) {
    raise_mark_of(object_slot(self->area.seg, entry));
    acc_count_own(&self->area.stats->counter[ACC_OBJECT_HIT], 1);
    if (hot_due(self)) {
        hot_count_entry(self, entry);
    }
    return Py_NewRef((PyObject *)entry->held);
}

/* The same as object_hit(), of an object that its word alone does not prove current: its item has two
 * copies, or tags.  (area_read.c) */
PyObject *object_hit_closer(AreaObject *self, const struct object_entry *entry,
                            struct acc_look look);

/* The object of an entry, if it has one and that is current; counted. */
static inline PyObject *object_hit(AreaObject *self, const struct object_entry *entry,
                                   struct acc_look look) {
    if (entry == NULL || acc_unlikely(!object_is_object(entry))) {
        return NULL;
    }
    if (acc_unlikely((entry->slot & OBJECT_CLOSER) != 0)) {
        return object_hit_closer(self, entry, look);
    }
    return acc_likely(object_current(self, entry, look)) ? object_taken(self, entry) : NULL;
}

/* 1 hit, 0 miss, -1 exception; a hit is counted.  (area_read.c) */
int area_read_one(AreaObject *self, PyObject *key_object, PyObject **out);

static inline void count_negative(AreaObject *self, const PyObject *object) {
    if (acc_unlikely(object == Py_None)) {
        acc_count_own(&self->area.stats->counter[ACC_NEGATIVE_HIT], 1);
    }
}

#endif
