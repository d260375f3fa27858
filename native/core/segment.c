/* Owns the mapping: formats a new segment, maps and checks one, knows where everything is.
 *
 * Takes no lock: formatting is serialised by the caller through the init byte of the file, and an
 * unfinished format is simply done again (state is stored last). */
#include "segment.h"
#include "hash.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIN_SIZE (2ull << 20)
#define MAX_SIZE (512ull << 30)
#define ENTRY_BYTES 512u /* the index has one word per this many bytes of segment */

uint64_t acc_min_size(void) {
    return MIN_SIZE;
}

uint64_t acc_max_size(void) {
    return MAX_SIZE;
}

/* Two builds that place one field differently must never map each other's bytes. */
uint32_t acc_layout(void) {
    const uint32_t facts[] = {
        ACC_LAYOUT_VERSION,
        (uint32_t)sizeof(struct acc_header),
        (uint32_t)sizeof(struct acc_process),
        (uint32_t)sizeof(struct acc_area_slot),
        (uint32_t)sizeof(struct acc_stats),
        (uint32_t)sizeof(struct acc_facts),
        (uint32_t)sizeof(struct acc_hot_bucket),
        (uint32_t)sizeof(struct acc_flight),
        (uint32_t)sizeof(struct acc_turn),
        (uint32_t)sizeof(struct acc_link),
        (uint32_t)sizeof(struct acc_outbox_slot),
        (uint32_t)sizeof(struct acc_shard),
        (uint32_t)sizeof(struct acc_bucket),
        (uint32_t)sizeof(struct acc_ghosts),
        (uint32_t)sizeof(struct acc_item),
        (uint32_t)sizeof(struct acc_item_twice),
        (uint32_t)sizeof(struct acc_tag_slot),
        (uint32_t)sizeof(struct acc_tag_block),
        (uint32_t)sizeof(struct acc_overrides),
        (uint32_t)sizeof(struct acc_limits),
        (uint32_t)sizeof(struct acc_event_head),
        (uint32_t)sizeof(struct acc_event_slot),
        ACC_LIMIT_SETS,
        (uint32_t)offsetof(struct acc_header, next_incarnation),
        (uint32_t)offsetof(struct acc_area_slot, fresh_until),
        (uint32_t)offsetof(struct acc_shard, ring),
        (uint32_t)offsetof(struct acc_shard, ghost_clock),
        (uint32_t)offsetof(struct acc_record, value_sum),
        ACC_COUNTERS,
        ENTRY_BYTES,
        ACC_UNIT,
        (uint32_t)ACC_UNIT_NS,
        (uint32_t)sizeof(void *),
        0x01020304u,
    };
    return acc_value_sum((const uint8_t *)facts, sizeof facts);
}

static uint64_t clamp(uint64_t x, uint64_t low, uint64_t high) {
    return x < low ? low : x > high ? high : x;
}

static uint64_t power_of_two_below(uint64_t x) {
    return x == 0 ? 0 : 1ull << (63 - __builtin_clzll(x));
}

static uint32_t bits_for(uint64_t n) {
    return (uint32_t)(64 - __builtin_clzll(n - 1));
}

/* Give a table its place behind the last one. */
static uint64_t place(uint64_t *end, uint64_t count, uint64_t size) {
    uint64_t at = *end;
    *end = (at + count * size + ACC_LINE - 1) & ~(uint64_t)(ACC_LINE - 1);
    return at;
}

enum acc_status acc_geometry_of(uint64_t size, uint32_t max_value_size, struct acc_geometry *g) {
    if (size < MIN_SIZE || size > MAX_SIZE || size % 4096 || max_value_size == 0 ||
        max_value_size > ACC_VALUE_MAX) {
        return ACC_EMISMATCH;
    }
    memset(g, 0, sizeof *g);
    g->size = size;
    g->max_value_size = max_value_size;
    /* Few large shards rather than many small ones: a value may take a quarter of a shard's main
     * ring. */
    uint64_t shards = power_of_two_below(size / 8 / max_value_size);
    /* ... and not so many in a small segment that their records of flights take up its room. */
    g->shards =
        (uint32_t)clamp(shards, 1, clamp(power_of_two_below(size >> 16), 1, ACC_SHARDS_MAX));
    g->buckets = (uint32_t)(size / ENTRY_BYTES / ACC_BUCKET_SLOTS / g->shards) + 1;
    g->entries_max = g->buckets * ACC_BUCKET_SLOTS / 8 * 7;
    g->ghost_lines = (g->buckets * ACC_BUCKET_SLOTS + ACC_GHOST_SLOTS - 1) / ACC_GHOST_SLOTS;
    g->generations = (uint32_t)clamp(power_of_two_below(size / 32 / 8), 1u << 10, 1u << 24);
    g->generation_shift = 64 - bits_for(g->generations);
    /* A 64th of the segment: of 65,536 slots three thousand deletes by tag within a value's life take
     * it by mistake once in a hundred times.  Less in small ones, where the fixed parts are large as
     * it is. */
    uint64_t for_tags = size / (size < 2 * MIN_SIZE ? 512 : size < (16u << 20) ? 256 : 64);
    g->tags = (uint32_t)clamp(power_of_two_below(for_tags / sizeof(struct acc_tag_slot)),
                              ACC_TAG_SLOTS_MIN, ACC_TAG_SLOTS_MAX);
    g->processes = (uint32_t)clamp(size >> 16, 64, 4096);
    g->areas = (uint32_t)clamp(size >> 16, 64, 4096);
    g->stats = (uint32_t)clamp(size >> 15, 64, 16384);
    g->hot = (uint32_t)clamp(size >> 17, ACC_HOT_MIN, ACC_HOT_MAX);
    uint64_t flights = clamp(size >> 14, 256, 65536);
    g->flight_groups =
        (uint32_t)clamp(flights / ACC_FLIGHT_GROUP / g->shards, 1, ACC_FLIGHT_GROUPS);
    g->turns = (uint32_t)clamp(size >> 16, 64, 4096);
    /* A 64th of the segment, up to eight MiB: a minute without a second level at a thousand
     * explicit writes a second. */
    g->outbox = (uint32_t)clamp(power_of_two_below((size >> 6) / sizeof(struct acc_outbox_slot)),
                                ACC_OUTBOX_MIN, ACC_OUTBOX_MAX);
    g->outbox_bits = bits_for(g->outbox);
    /* A 256th of the segment, up to a MiB. */
    g->events = (uint32_t)clamp(power_of_two_below((size >> 8) / sizeof(struct acc_event_slot)),
                                ACC_EVENTS_MIN, ACC_EVENTS_MAX);

    uint64_t end = 4096;
    g->process_at = place(&end, g->processes, sizeof(struct acc_process));
    g->area_at = place(&end, g->areas, sizeof(struct acc_area_slot));
    g->stats_at = place(&end, g->stats, sizeof(struct acc_stats));
    g->facts_at = place(&end, g->areas, sizeof(struct acc_facts));
    g->hot_at = place(&end, 1, sizeof(struct acc_hot_head));
    (void)place(&end, g->hot, sizeof(struct acc_hot_bucket)); /* right behind its head */
    g->flight_at = place(&end, (uint64_t)g->shards * g->flight_groups * ACC_FLIGHT_GROUP,
                         sizeof(struct acc_flight));
    g->turn_at = place(&end, g->turns, sizeof(struct acc_turn));
    g->link_at = place(&end, 1, sizeof(struct acc_link));
    g->outbox_at = place(&end, g->outbox, sizeof(struct acc_outbox_slot));
    g->generation_at = place(&end, g->generations, 8);
    g->tag_at = place(&end, g->tags, sizeof(struct acc_tag_slot));
    g->override_at = place(&end, g->areas + 1, sizeof(struct acc_overrides));
    g->limit_at = place(&end, ACC_LIMIT_SETS, sizeof(struct acc_limits));
    uint64_t for_events = sizeof(struct acc_event_head) + g->events * sizeof(struct acc_event_slot);
    g->event_at = place(&end, 1, for_events);
    g->shard_at = place(&end, g->shards, sizeof(struct acc_shard));
    g->index_at = place(&end, (uint64_t)g->shards * g->buckets, sizeof(struct acc_bucket));
    g->ghost_at = place(&end, (uint64_t)g->shards * g->ghost_lines, sizeof(struct acc_ghosts));
    g->ring_at = end;

    g->shard_ring_bytes = ((size - end) / g->shards) & ~(uint64_t)(ACC_LINE - 1);
    uint64_t small = (g->shard_ring_bytes / 10) & ~(uint64_t)(ACC_LINE - 1);
    g->ring_units[ACC_SMALL] = (uint32_t)(small / ACC_UNIT);
    g->ring_units[ACC_MAIN] = (uint32_t)((g->shard_ring_bytes - small) / ACC_UNIT);
    for (int ring = 0; ring < 2; ring++) {
        g->ring_bits[ring] = bits_for(g->ring_units[ring]);
    }
    return ACC_OK;
}

static void write_prefix(struct acc_prefix *prefix, const struct acc_geometry *g,
                         const struct acc_identity *identity) {
    prefix->prefix_size = sizeof *prefix;
    prefix->layout = acc_layout();
    prefix->size = g->size;
    prefix->created = (uint64_t)time(NULL);
    memcpy(prefix->boot_id, identity->boot_id, sizeof prefix->boot_id);
    prefix->time_ns = identity->time_ns;
    prefix->uid = identity->uid;
    strncpy(prefix->library, identity->library, sizeof prefix->library - 1);
    strncpy(prefix->name, identity->name, sizeof prefix->name - 1);
    prefix->magic = ACC_MAGIC;
}

bool acc_segment_new_origin(struct acc_header *header) {
    return getrandom(header->origin, sizeof header->origin, 0) == sizeof header->origin;
}

/* Fill zeroed memory.  READY last: killed before it, the next attacher formats again. */
static enum acc_status format_at(uint8_t *base, const struct acc_geometry *g,
                                 const struct acc_identity *identity) {
    struct acc_header *header = (struct acc_header *)base;
    acc_store_release(&header->prefix.state, ACC_STATE_NEW);
    memset(base + sizeof(struct acc_prefix), 0, g->ring_at - sizeof(struct acc_prefix));
    write_prefix(&header->prefix, g, identity);
    if (getrandom(header->hash_key, sizeof header->hash_key, 0) != sizeof header->hash_key ||
        !acc_segment_new_origin(header)) {
        return ACC_ESYS;
    }
    header->max_value_size = g->max_value_size;
    header->shards = g->shards;
    header->ring_units[ACC_SMALL] = g->ring_units[ACC_SMALL];
    header->ring_units[ACC_MAIN] = g->ring_units[ACC_MAIN];
    header->next_incarnation = 1;
    acc_store_release(&header->prefix.state, ACC_STATE_READY);
    return ACC_OK;
}

enum acc_status acc_segment_format(int fd, uint64_t size, uint32_t max_value_size,
                                   const struct acc_identity *identity) {
    struct acc_geometry geometry;
    enum acc_status status = acc_geometry_of(size, max_value_size, &geometry);
    if (status != ACC_OK) {
        return status;
    }
    uint8_t *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        return ACC_ESYS;
    }
    status = format_at(base, &geometry, identity);
    munmap(base, size);
    return status;
}

static bool same_geometry(const struct acc_header *header, const struct acc_geometry *g) {
    return header->prefix.magic == ACC_MAGIC && header->prefix.layout == acc_layout() &&
           header->prefix.size == g->size &&
           acc_load_acquire(&header->prefix.state) == ACC_STATE_READY &&
           header->shards == g->shards && header->ring_units[0] == g->ring_units[0] &&
           header->ring_units[1] == g->ring_units[1];
}

static struct acc_self *new_self(void) {
    struct acc_self *self =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (self == MAP_FAILED) {
        return NULL;
    }
    /* Linux 4.14.  Where it is refused there would be no telling a child from its parent: no
     * segment. */
    if (madvise(self, 4096, MADV_WIPEONFORK) != 0) {
        munmap(self, 4096);
        return NULL;
    }
    return self;
}

void acc_segment_forget_ahead(struct acc_segment *seg) {
    uint32_t n = seg->geometry.shards * ACC_HANDS;
    for (uint32_t i = 0; i < n; i++) {
        seg->ahead[i].n = seg->ahead[i].at = 0;
    }
}

static enum acc_status new_segment(uint8_t *base, const struct acc_geometry *geometry, int fd,
                                   struct acc_segment **out) {
    struct acc_segment *seg = calloc(1, sizeof *seg);
    struct acc_self *self = new_self();
    struct acc_stats **stats_of = calloc(geometry->areas, sizeof *stats_of);
    struct acc_ahead *ahead = calloc((size_t)geometry->shards * ACC_HANDS, sizeof *ahead);
    uint32_t *owed_seen = calloc(geometry->areas, sizeof *owed_seen);
    if (seg == NULL || self == NULL || stats_of == NULL || ahead == NULL || owed_seen == NULL) {
        free(seg);
        free(stats_of);
        free(ahead);
        free(owed_seen);
        if (self != NULL) {
            munmap(self, 4096);
        }
        errno = ENOMEM;
        return ACC_ESYS;
    }
    seg->base = base;
    seg->geometry = *geometry;
    seg->fd = fd;
    seg->self = self;
    seg->stats_of = stats_of;
    seg->ahead = ahead;
    seg->owed_seen = owed_seen;
    acc_segment_forget_ahead(seg);
    memcpy(seg->hash_key, acc_header(seg)->hash_key, sizeof seg->hash_key);
    /* A cache has no place in a core dump: it would be large, and the values are the users'. */
    (void)madvise(base, geometry->size, MADV_DONTDUMP);
    *out = seg;
    return ACC_OK;
}

static void remember_path(struct acc_segment *seg) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", seg->fd);
    ssize_t n = readlink(link, seg->path, sizeof seg->path - 1);
    seg->path[n < 0 ? 0 : n] = '\0';
}

enum acc_status acc_segment_map(int fd, uint64_t size, bool readonly, struct acc_segment **out) {
    struct stat st;
    if (fstat(fd, &st) != 0) {
        return ACC_ESYS;
    }
    if ((uint64_t)st.st_size != size || size < MIN_SIZE) {
        return ACC_EMISMATCH;
    }
    uint8_t *base =
        mmap(NULL, size, readonly ? PROT_READ : PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        return ACC_ESYS;
    }
    const struct acc_header *header = (const struct acc_header *)base;
    struct acc_geometry geometry;
    enum acc_status status = acc_geometry_of(size, header->max_value_size, &geometry);
    if (status == ACC_OK && !same_geometry(header, &geometry)) {
        status = ACC_EMISMATCH;
    }
    if (status == ACC_OK) {
        status = new_segment(base, &geometry, fd, out);
    }
    if (status != ACC_OK) {
        munmap(base, size);
        return status;
    }
    (*out)->readonly = readonly;
    (*out)->device = st.st_dev;
    (*out)->inode = st.st_ino;
    remember_path(*out);
    if (!readonly) {
        (*out)->scratch = malloc(ACC_SCRATCH_BYTES);
    }
    return ACC_OK;
}

enum acc_status acc_segment_private(uint64_t size, uint32_t max_value_size,
                                    struct acc_segment **out) {
    struct acc_geometry geometry;
    enum acc_status status = acc_geometry_of(size, max_value_size, &geometry);
    if (status != ACC_OK) {
        return status;
    }
    uint8_t *base = mmap(NULL, size, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) {
        return ACC_ESYS;
    }
    const struct acc_identity identity = {.name = "", .library = ""};
    status = format_at(base, &geometry, &identity);
    if (status == ACC_OK) {
        status = new_segment(base, &geometry, -1, out);
    }
    if (status != ACC_OK) {
        munmap(base, size);
        return status;
    }
    (*out)->is_private = true;
    (*out)->scratch = malloc(ACC_SCRATCH_BYTES);
    return ACC_OK;
}

bool acc_segment_owns_descriptor(const struct acc_segment *seg) {
    struct stat st;
    return seg->fd >= 0 && fstat(seg->fd, &st) == 0 && st.st_dev == seg->device &&
           st.st_ino == seg->inode;
}

void acc_segment_unmap(struct acc_segment *seg) {
    munmap(seg->base, seg->geometry.size);
    munmap(seg->self, 4096);
    if (acc_segment_owns_descriptor(seg)) {
        close(seg->fd);
    }
    free(seg->scratch);
    free(seg->stats_of);
    free(seg->ahead);
    free(seg->owed_seen);
    free(seg);
}
