/* Decoded objects of this process.  Each is returned only after the words that prove it current
 * have been read again in shared memory, so it is never older than the segment.
 *
 * Sets of two entries, a line each; grows while it is useful, up to ENTRIES_MAX; bounded in bytes
 * as well. */
#include "state.h"

#define SETS_MIN 256u
#define ENTRIES_MAX 131072u

static int allocate(struct object_cache *cache, uint32_t sets) {
    size_t entries = (size_t)sets * 2;
    void *memory = PyMem_RawCalloc(entries + 2, sizeof(struct object_entry));
    struct object_extra *extras = PyMem_RawCalloc(entries, sizeof *extras);
    if (memory == NULL || extras == NULL) {
        PyMem_RawFree(memory);
        PyMem_RawFree(extras);
        return -1;
    }
    cache->memory = memory;
    cache->entries = (struct object_entry *)(((uintptr_t)memory + 63) & ~(uintptr_t)63);
    cache->extras = extras;
    cache->sets = sets;
    cache->shift = 64u - (uint32_t)__builtin_ctz(sets);
    return 0;
}

struct object_cache *object_cache_new(uint64_t bytes_max) {
    struct object_cache *cache = PyMem_RawCalloc(1, sizeof *cache);
    if (cache == NULL || allocate(cache, SETS_MIN) != 0) {
        PyMem_RawFree(cache);
        PyErr_NoMemory();
        return NULL;
    }
    cache->bytes_max = bytes_max;
    return cache;
}

static void remove_entry(struct object_cache *cache, uint32_t i) {
    struct object_entry *entry = &cache->entries[i];
    if (entry->tagged == 0) {
        return;
    }
    PyObject *key = object_key(entry), *value = object_value(entry);
    entry->tagged = 0;
    entry->held = 0;
    cache->bytes -= cache->extras[i].size;
    cache->used--;
    /* Last: a destructor may come back here. */
    Py_DECREF(key);
    Py_XDECREF(value);
}

void object_cache_clear(struct object_cache *cache) {
    for (uint32_t i = 0; i < cache->sets * 2; i++) {
        remove_entry(cache, i);
    }
}

void object_cache_free(struct object_cache *cache) {
    object_cache_clear(cache);
    PyMem_RawFree(cache->memory);
    PyMem_RawFree(cache->extras);
    PyMem_RawFree(cache);
}

int object_cache_traverse(struct object_cache *cache, visitproc visit, void *arg) {
    for (uint32_t i = 0; i < cache->sets * 2; i++) {
        Py_VISIT(object_key(&cache->entries[i]));
        Py_VISIT(object_value(&cache->entries[i]));
    }
    return 0;
}

static void place(struct object_cache *cache, uint32_t i, const struct object_entry *entry,
                  const struct object_extra *extra) {
    cache->entries[i] = *entry;
    cache->extras[i] = *extra;
    cache->bytes += extra->size;
    cache->used++;
}

/* Twice the sets.  Entries keep their references; the one that finds no place is dropped. */
static bool grow(struct object_cache *cache) {
    struct object_cache old = *cache;
    /* Sets of two overflow by chance long before the table is full: twice the room costs less than
     * decoding again. */
    if (old.used < old.sets / 4 * 3 || old.sets * 4 > ENTRIES_MAX ||
        allocate(cache, old.sets * 2) != 0) {
        *cache = old;
        return false;
    }
    cache->used = 0;
    cache->bytes = 0;
    cache->hand = 0;
    for (uint32_t i = 0; i < old.sets * 2; i++) {
        struct object_entry *entry = &old.entries[i];
        if (entry->tagged == 0) {
            continue;
        }
        struct object_entry *set = object_cache_set(cache, PyObject_Hash(object_key(entry)));
        uint32_t at = (uint32_t)(set - cache->entries) + (set[0].tagged != 0);
        place(cache, at, entry, &old.extras[i]); /* a set of two splits into two: it always fits */
    }
    PyMem_RawFree(old.memory);
    PyMem_RawFree(old.extras);
    return true;
}

bool object_key_equal(PyObject *seen, PyObject *key) {
    if (Py_TYPE(seen) != Py_TYPE(key)) {
        return false; /* 1 and True are equal to Python, and two keys to us */
    }
    if (PyUnicode_CheckExact(key)) {
        if (PyUnicode_IS_COMPACT_ASCII(seen) && PyUnicode_IS_COMPACT_ASCII(key)) {
            Py_ssize_t size = PyUnicode_GET_LENGTH(key);
            return PyUnicode_GET_LENGTH(seen) == size &&
                   memcmp(PyUnicode_DATA(seen), PyUnicode_DATA(key), (size_t)size) == 0;
        }
        return PyUnicode_Compare(seen, key) == 0;
    }
    if (PyBytes_CheckExact(key)) {
        Py_ssize_t size = PyBytes_GET_SIZE(key);
        return PyBytes_GET_SIZE(seen) == size &&
               memcmp(PyBytes_AS_STRING(seen), PyBytes_AS_STRING(key), (size_t)size) == 0;
    }
    return PyObject_RichCompareBool(seen, key, Py_EQ) == 1; /* exact int: cannot fail */
}

/* Where an entry goes: over its older self, in a free place, else over one of the two in turn. */
static uint32_t choose(struct object_cache *cache, Py_hash_t hash,
                       const struct object_entry *entry) {
    for (;;) {
        struct object_entry *set = object_cache_set(cache, hash);
        uint32_t first = (uint32_t)(set - cache->entries);
        for (uint32_t i = 0; i < 2; i++) {
            if (object_same_hash(&set[i], hash) &&
                object_key_equal(object_key(&set[i]), object_key(entry))) {
                return first + i;
            }
        }
        for (uint32_t i = 0; i < 2; i++) {
            if (set[i].tagged == 0 || set[i].held == OBJECT_ABSENT) {
                return first + i;
            }
        }
        if (!grow(cache)) {
            return first + (cache->hand++ & 1);
        }
    }
}

static void shrink(struct object_cache *cache, uint32_t keep) {
    for (uint32_t steps = 0; cache->bytes > cache->bytes_max && steps < 64; steps++) {
        uint32_t victim = cache->hand++ & (cache->sets * 2 - 1);
        if (victim != keep) {
            remove_entry(cache, victim);
        }
    }
}

void object_cache_put(struct object_cache *cache, Py_hash_t hash, const struct object_entry *entry,
                      const struct object_extra *extra) {
    if (object_is_object(entry) && extra->size > cache->bytes_max / 8) {
        return;
    }
    uint32_t at = choose(cache, hash, entry);
    Py_INCREF(object_key(entry));
    Py_XINCREF(object_value(entry));
    remove_entry(cache, at);
    if (cache->entries[at].tagged != 0 ||
        object_cache_set(cache, hash) != &cache->entries[at & ~1u]) {
        /* A destructor filled the place meanwhile, or made the table grow: the newcomer is not
         * kept. */
        Py_DECREF(object_key(entry));
        Py_XDECREF(object_value(entry));
        return;
    }
    place(cache, at, entry, extra);
    shrink(cache, at);
}

void object_cache_put_absent(struct object_cache *cache, Py_hash_t hash,
                             const struct object_entry *entry) {
    static const struct object_extra nothing = {0};
    do {
        struct object_entry *set = object_cache_set(cache, hash);
        for (uint32_t i = 0; i < 2; i++) {
            if (set[i].tagged == 0) {
                Py_INCREF(object_key(entry));
                place(cache, (uint32_t)(set - cache->entries) + i, entry, &nothing);
                return;
            }
        }
    } while (grow(cache));
}
