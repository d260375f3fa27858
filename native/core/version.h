/* Versions of an area: values of two releases that lie side by side.
 *
 * A version is an area {name, fingerprint} with a slot and an id of its own, beside the plain area
 * of its name, its base.  Per version are the values, the flights and the pauses: they carry its id,
 * so that a read finds its own version's item only.  All else is the base's: generation and
 * fresh_until, counters, turns, locks, the outbox, and the hash of a key.  So all items of a key, of
 * whatever version, have one shard, two buckets, one tag, and one generation.
 *
 * Invariant: what the generation of a key says, it says of every version's item; and whoever forgets
 * a key has, before he returns, cleared the index words of all of them, because decoded objects are
 * believed as long as the word stands.
 *
 *   delete            bumps the generation once, then clears the words of all items of the key that
 *                     the bump has overtaken
 *   set, add, touch,  do that first, and then store: the others' copies are older than this write,
 *   incr              and what others load of the key fails on the generation
 *   expire            bumps; stores each version's stale copy again behind the bump, of
 *                     ACC_VERSIONS_KEPT of them; clears the words of the rest
 *   fill              concerns its own version only
 *
 * An area of which there is one version (`versions` of its base's slot, area.c) does none of that:
 * it pays for the load of that word, which lies beside its generation.
 *
 * Killed between the bump and the words, or between two of them: the key is deleted in all versions,
 * but the call has not returned.  Readers of the segment find each item overtaken and clear its word
 * before they say so (read.h), so that the objects of that version end with it; the measurement
 * clears the words that nobody reads.  Killed between the bump of a write and its store: deleted
 * likewise, by a write that was never done. */
#ifndef ACC_VERSION_H
#define ACC_VERSION_H

#include "read.h"

/* Versions whose stale copies survive an expire. */
#define ACC_VERSIONS_KEPT 4u

/* Clear the words of all items of a key that a bump has overtaken; `before` is what the bump has
 * returned.  Was one of them alive until then? */
bool acc_versions_forget(const struct acc_area *area, const struct acc_home *home,
                         const struct acc_key *key, uint64_t before);

/* Versions that have an item of the key, dead or alive, this area's first.  How many; at most
 * `most`. */
uint32_t acc_versions_of(struct acc_area *area, const struct acc_home *home,
                         const struct acc_key *key, struct acc_area *out, uint32_t most);

/* Does this word stand for an item of the key, in whatever version? */
bool acc_versions_find(const struct acc_area *area, const struct acc_home *home,
                       const struct acc_key *key, uint64_t word, struct acc_found *found);

#endif
