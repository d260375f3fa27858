/* Owns the table of hot keys.
 *
 * A key may lie in any of the entries of its bucket.  An entry is three words: the key's hash, its
 * area with a check, and a count word: how often in this window of 30 seconds, how often in the one
 * before, the number of the window, and a few bits of the check.  It means something only if both
 * checks are those of its hash and area; else it is free.  What is older than two windows is free,
 * too: nothing has to be cleaned up.
 *
 * No lock.  Who counts a key that is there changes the count word by CAS; he who loses gives it up
 * after a few tries: it was one read in a thousand.  Who needs an entry for a new key sets its count
 * word to 0 by CAS, stores hash and area, and then the new count by CAS from 0.  Killed in between:
 * the entry is free.  Two who do that at once: hash and area may be of one and the count of the
 * other, and then the checks tell; or all of one, and then it is his.  He who was slow may still
 * store his hash over that of an entry that has begun to count: it is free then, and what it had
 * counted is lost.  The table is for people, and comes right by itself within two windows; nothing
 * else is decided by it.
 *
 * In a full bucket a new key takes the place of the least counted, the less often the more that one
 * has: with n counted, once in n + 1 times (Ben Basat et al. 2017, "Randomized admission policy").
 * So a flood of keys that are read once does not wash out a hot one, and one that has become hot
 * gets in after about as many samples as the least of its bucket has. */
#include "hotkeys.h"

#include <stdlib.h>

#define TRIES 4
#define COUNT_MAX ((1u << 20) - 1)
#define WINDOW_MASK 0xfffu

struct count {
    uint32_t now, before, window, check;
};

/* check 12 | window 12 | before 20 | now 20 */
static uint64_t packed(struct count c) {
    return (uint64_t)c.check << 52 | (uint64_t)c.window << 40 | (uint64_t)c.before << 20 | c.now;
}

static struct count unpacked(uint64_t word) {
    return (struct count){
        .now = (uint32_t)word & COUNT_MAX,
        .before = (uint32_t)(word >> 20) & COUNT_MAX,
        .window = (uint32_t)(word >> 40) & WINDOW_MASK,
        .check = (uint32_t)(word >> 52),
    };
}

/* The same as seen from a window that is later, or not much earlier: another process's clock. */
static struct count seen_from(struct count c, uint32_t window) {
    uint32_t passed = (window - c.window) & WINDOW_MASK;
    if (passed == 0 || passed == WINDOW_MASK) {
        return c;
    }
    c.before = passed == 1 ? c.now : 0;
    c.now = 0;
    c.window = window;
    return c;
}

static struct count one_more(struct count c, uint32_t window) {
    c = seen_from(c, window);
    c.now += c.now < COUNT_MAX;
    return c;
}

static uint64_t now_ms(const struct acc_segment *seg) {
    return acc_now_ns(seg) / 1000000u;
}

static uint32_t window_of(uint64_t ms) {
    return (uint32_t)(ms / ACC_HOT_WINDOW_MS) & WINDOW_MASK;
}

/* --- entries ---------------------------------------------------------------------------------- */

struct owner {
    uint64_t hash;
    uint64_t area; /* check 32 | area 32 */
    uint32_t check;
};

static struct owner owner_of(uint64_t hash, uint32_t area) {
    uint64_t mixed = acc_remix(hash, 2ull * area + 1);
    return (struct owner){hash, (mixed & 0xffffffff00000000ull) | area, (uint32_t)mixed & 0xfffu};
}

/* Its count, as seen now, and whose it is.  0: it is free. */
static uint32_t size_of(const struct acc_segment *seg, const struct acc_hot_entry *entry,
                        uint64_t word, uint32_t window, struct owner *out) {
    struct count c = seen_from(unpacked(word), window);
    uint64_t area = acc_load_relaxed(&entry->area);
    *out = owner_of(acc_load_relaxed(&entry->hash), (uint32_t)area);
    bool sound = word != 0 && out->area == area && out->check == c.check &&
                 (uint32_t)area < seg->geometry.areas;
    return sound ? c.now + c.before : 0;
}

static struct acc_hot_bucket *bucket_of(const struct acc_segment *seg, uint64_t hash) {
    return acc_hot_bucket(seg, acc_range((uint32_t)(hash >> 32), seg->geometry.hot));
}

/* True: the key has this entry, and was counted in it, if that was to be had. */
static bool count_in(struct acc_segment *seg, struct acc_hot_entry *entry, const struct owner *key,
                     uint32_t window) {
    for (int tries = 0; tries < TRIES; tries++) {
        uint64_t word = acc_load_acquire(&entry->count);
        struct owner owner;
        if (size_of(seg, entry, word, window, &owner) == 0 || owner.hash != key->hash ||
            owner.area != key->area) {
            return false;
        }
        if (acc_cas64(&entry->count, word, packed(one_more(unpacked(word), window)))) {
            break;
        }
    }
    return true;
}

static void take(struct acc_hot_entry *entry, uint64_t word, const struct owner *key,
                 uint32_t window) {
    if (word != 0 && !acc_cas64(&entry->count, word, 0)) {
        return;
    }
    acc_store_relaxed(&entry->hash, key->hash);
    acc_store_relaxed(&entry->area, key->area);
    const struct count first = {.now = 1, .window = window, .check = key->check};
    (void)acc_cas64(&entry->count, 0, packed(first));
}

/* The least counted of a bucket. */
static struct acc_hot_entry *least(const struct acc_segment *seg, struct acc_hot_bucket *bucket,
                                   uint32_t window, uint64_t *word, uint32_t *size) {
    struct acc_hot_entry *found = NULL;
    for (uint32_t i = 0; i < ACC_HOT_WAYS; i++) {
        struct acc_hot_entry *entry = &bucket->entry[i];
        struct owner owner;
        uint64_t seen = acc_load_acquire(&entry->count);
        uint32_t has = size_of(seg, entry, seen, window, &owner);
        if (found == NULL || has < *size) {
            found = entry;
            *word = seen;
            *size = has;
        }
    }
    return found;
}

static void count_key(struct acc_segment *seg, const struct owner *key, uint64_t ns) {
    struct acc_hot_bucket *bucket = bucket_of(seg, key->hash);
    uint32_t window = window_of(now_ms(seg));
    for (uint32_t i = 0; i < ACC_HOT_WAYS; i++) {
        if (count_in(seg, &bucket->entry[i], key, window)) {
            return;
        }
    }
    uint64_t word = 0;
    uint32_t size = 0;
    struct acc_hot_entry *entry = least(seg, bucket, window, &word, &size);
    uint32_t chance = (uint32_t)(acc_remix(ns, 0x589965cc75374cc3ull) >> 32);
    if (acc_range(chance, size + 1) == 0) {
        take(entry, word, key, window);
    }
}

/* --- the total -------------------------------------------------------------------------------- */

/* Its word is that of an entry with more room for counts and none for a check: window 12 | before 26
 * | now 26.  Garbage in it tells garbage until it is two windows old. */
#define TOTAL_MAX ((1u << 26) - 1)

static struct count total_of(uint64_t word, uint32_t window) {
    const struct count c = {.now = (uint32_t)word & TOTAL_MAX,
                            .before = (uint32_t)(word >> 26) & TOTAL_MAX,
                            .window = (uint32_t)(word >> 52)};
    return seen_from(c, window);
}

static void count_total(struct acc_segment *seg) {
    struct acc_hot_head *head = acc_hot_head(seg);
    uint64_t ms = now_ms(seg);
    if (acc_load_relaxed(&head->since) == 0) {
        (void)acc_cas64(&head->since, 0, ms);
    }
    for (int tries = 0; tries < TRIES; tries++) {
        uint64_t word = acc_load_relaxed(&head->total);
        struct count c = total_of(word, window_of(ms));
        c.now += c.now < TOTAL_MAX;
        if (acc_cas64(&head->total, word,
                      (uint64_t)c.window << 52 | (uint64_t)c.before << 26 | c.now)) {
            return;
        }
    }
}

void acc_hot_count(struct acc_segment *seg, uint32_t area, uint64_t hash) {
    const struct owner key = owner_of(hash, area);
    if (seg->readonly) {
        return;
    }
    count_total(seg);
    count_key(seg, &key, acc_clock_ns());
}

/* --- reading ---------------------------------------------------------------------------------- */

/* For how long has been counted what two windows hold?  Less than that while the first ones run.  (A
 * `since` that is in the future is garbage.) */
static double seconds_seen(const struct acc_segment *seg, uint64_t ms) {
    uint64_t since = acc_load_relaxed(&acc_hot_head(seg)->since);
    uint64_t seen = ms % ACC_HOT_WINDOW_MS + ACC_HOT_WINDOW_MS;
    if (since <= ms && ms - since < seen) {
        seen = ms - since < 1000 ? 1000 : ms - since;
    }
    return (double)seen / 1000.0;
}

static double rate_of(uint32_t size, double seconds) {
    return (double)size * ACC_HOT_SAMPLE / seconds;
}

/* One entry, whole: what was read is of the entry as its count word says it is. */
static bool read_entry(const struct acc_segment *seg, const struct acc_hot_entry *entry,
                       uint64_t ms, struct acc_hot_key *out) {
    uint64_t word = acc_load_acquire(&entry->count);
    struct owner owner;
    uint32_t size = size_of(seg, entry, word, window_of(ms), &owner);
    *out = (struct acc_hot_key){owner.hash, (uint32_t)owner.area,
                                rate_of(size, seconds_seen(seg, ms))};
    return size != 0;
}

static int hotter(const void *a, const void *b) {
    const struct acc_hot_key *x = a, *y = b;
    if (x->rate != y->rate) {
        return x->rate < y->rate ? 1 : -1;
    }
    return x->hash < y->hash ? -1 : x->hash > y->hash;
}

/* Two who took places for one key at once have each counted a part of it. */
static bool add_to_twin(struct acc_hot_key *found, uint32_t from, uint32_t n,
                        const struct acc_hot_key *key) {
    for (uint32_t i = from; i < n; i++) {
        if (found[i].hash == key->hash && found[i].area == key->area) {
            found[i].rate += key->rate;
            return true;
        }
    }
    return false;
}

uint32_t acc_hot_top(const struct acc_segment *seg, struct acc_hot_key *out, uint32_t most) {
    uint64_t ms = now_ms(seg);
    uint32_t n = 0;
    struct acc_hot_key *found = calloc(acc_hot_entries(seg), sizeof *found);
    for (uint32_t b = 0; found != NULL && b < seg->geometry.hot; b++) {
        uint32_t from = n; /* a key is in one bucket only */
        for (uint32_t i = 0; i < ACC_HOT_WAYS; i++) {
            struct acc_hot_key key;
            if (read_entry(seg, &acc_hot_bucket(seg, b)->entry[i], ms, &key) &&
                !add_to_twin(found, from, n, &key)) {
                found[n++] = key;
            }
        }
    }
    if (found != NULL) {
        qsort(found, n, sizeof *found, hotter);
    }
    n = n < most ? n : most;
    for (uint32_t i = 0; i < n; i++) {
        out[i] = found[i];
    }
    free(found);
    return n;
}

double acc_hot_total(const struct acc_segment *seg) {
    uint64_t ms = now_ms(seg);
    struct count c = total_of(acc_load_relaxed(&acc_hot_head(seg)->total), window_of(ms));
    return rate_of(c.now + c.before, seconds_seen(seg, ms));
}
