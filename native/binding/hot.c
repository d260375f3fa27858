/* Reads that are counted for the table of hot keys, one in ACC_HOT_SAMPLE: far from the hit path. */
#include "hot.h"
#include "objects.h"

#include "ring.h"

static uint64_t next_random(AreaObject *self) {
    self->random = acc_remix(self->random, 0xe7037ed1a0b428dbull) ^ acc_clock_ns();
    self->random += self->random == 0; /* whoever shortens lives with it needs one */
    return self->random;
}

void hot_draw(AreaObject *self) {
    acc_hot_draw_next(&self->hot, next_random(self) * 0x9e3779b97f4a7c15ull);
}

__attribute__((noinline, cold)) void hot_count(AreaObject *self, uint64_t hash) {
    hot_draw(self);
    acc_hot_count(self->area.seg, self->area.base, hash);
}

/* The item may be gone, or be written over while its key is hashed: then its word has changed. */
__attribute__((noinline, cold)) void hot_count_entry(AreaObject *self,
                                                     const struct object_entry *entry) {
    struct acc_segment *seg = self->area.seg;
    uint64_t word = entry->word;
    struct acc_view view;
    hot_draw(self);
    if (!acc_view_load(seg, object_shard(seg, entry), acc_word_ring(word), acc_word_offset(word),
                       &view)) {
        return;
    }
    uint64_t hash = acc_hash_of_item(seg, view.common.area, view.key, view.common.key_size);
    acc_fence_acquire();
    if (acc_load_relaxed(object_slot(seg, entry)) == word) {
        acc_hot_count(seg, self->area.base, hash);
    }
}
