/* Garbage in the segment: random bytes anywhere, or a number that is likely to hurt in a place
 * where it does.
 *
 *   test_fuzz [ROUNDS] [SEED]
 *
 * Whatever lies there: no access outside the segment (the sanitizers and a fault tell), no
 * operation over a second, no value of another key and none that is torn and still passes its sum.
 * Names of areas are left alone: two names on one slot are beyond what a cache can notice. */
#include "doorbell.h"
#include "events.h"
#include "facts.h"
#include "hotkeys.h"
#include "leader.h"
#include "limit.h"
#include "link.h"
#include "loads.h"
#include "outbox.h"
#include "override.h"

enum { KEYS = 400, VALUE_MAX = 40000, SLOW_MS = 1000 };

static uint32_t rounds = 8000;
static uint64_t seed = 1;

struct fuzz {
    struct acc_segment *seg;
    struct acc_area area;
    struct chance chance;
    uint64_t version, hits, stored, busy, slowest_ns;
    uint64_t led, joined, taken, ended_stored;
    uint64_t hurt_blocks, marked;
    struct acc_tags tags;               /* of what is written next */
    struct acc_ticket leading, joining; /* held while other things happen */
    uint32_t leading_number, joining_number, written;
    int bell;
    uint8_t value[VALUE_MAX], buffer[VALUE_MAX];
};

/* --- where it hurts --------------------------------------------------------------------------- */

static uint64_t nasty_number(struct fuzz *f, uint64_t seen) {
    uint64_t around = (uint64_t)random_below(&f->chance, 64);
    switch (random_below(&f->chance, 14)) {
    case 0: return 0;
    case 1: return UINT64_MAX;
    case 2: return seen + around;
    case 3: return seen - around;
    case 4: return seen ^ 1ull << random_below(&f->chance, 64);
    case 5: return random_bits(&f->chance) >> random_below(&f->chance, 64);
    case 6: return 1ull << 63;
    case 7: return (1ull << ACC_OFFSET_BITS) - around;
    case 8: return seen + (1ull << f->seg->geometry.ring_bits[ACC_MAIN]);
    case 9: return seen + (1ull << f->seg->geometry.ring_bits[ACC_SMALL]);
    case 10: return seen | ((1ull << f->seg->geometry.ring_bits[ACC_MAIN]) - 1);
    case 11: return UINT32_MAX;
    case 12: return acc_incarnation(f->seg);
    default: return (uint64_t)acc_incarnation(f->seg) | ACC_LOCK_WAITERS;
    }
}

static void hurt_word(struct fuzz *f, void *place) {
    uint64_t seen;
    uint8_t *at = place;
    memcpy(&seen, at, 8);
    seen = nasty_number(f, seen);
    memcpy(at, &seen, random_below(&f->chance, 3) == 0 ? 4 : 8);
}

static void hurt_bytes(struct fuzz *f, uint64_t from, uint64_t to) {
    uint64_t at = from + random_bits(&f->chance) % (to - from);
    uint32_t n = 1 + random_below(&f->chance, 8);
    for (uint32_t i = 0; i < n && at + i < to; i++) {
        f->seg->base[at + i] = (uint8_t)random_bits(&f->chance);
    }
}

/* The header of what stands at an end of a ring, or of what an index word names. */
static void hurt_item(struct fuzz *f, uint32_t shard) {
    const struct acc_geometry *g = &f->seg->geometry;
    uint32_t ring = random_below(&f->chance, 2);
    const struct acc_ring *r = &acc_shard(f->seg, shard)->ring[ring];
    uint64_t offset = random_below(&f->chance, 2) == 0 ? r->head : r->mid;
    if (random_below(&f->chance, 2) == 0) {
        uint64_t word = acc_bucket(f->seg, shard, random_below(&f->chance, g->buckets))
                            ->word[random_below(&f->chance, ACC_BUCKET_SLOTS)];
        ring = acc_word_ring(word);
        offset = acc_word_offset(word);
    }
    uint64_t place = acc_place_of(f->seg, ring, offset);
    if (place + sizeof(struct acc_item_twice) / ACC_UNIT < g->ring_units[ring]) {
        uint8_t *item = acc_ring_base(f->seg, shard, ring) + place * ACC_UNIT;
        uint32_t at = random_below(&f->chance, sizeof(struct acc_item_twice) / 4 - 1) * 4;
        hurt_word(f, item + at);
    }
}

static void hurt_shard(struct fuzz *f, uint32_t shard) {
    struct acc_shard *s = acc_shard(f->seg, shard);
    struct acc_ring *r = &s->ring[random_below(&f->chance, 2)];
    switch (random_below(&f->chance, 7)) {
    case 0: hurt_word(f, &r->head); break;
    case 1: hurt_word(f, &r->tail); break;
    case 2: hurt_word(f, &s->ring[ACC_SMALL].mid); break;
    case 3: hurt_word(f, &s->ghost_clock); break; /* and the entries behind it */
    case 4: hurt_word(f, &s->main_live); break;
    case 5: acc_store_relaxed(&s->lock, (uint32_t)nasty_number(f, s->lock)); break;
    default:
        hurt_bytes(f, (uint64_t)((uint8_t *)s - f->seg->base),
                   (uint64_t)((uint8_t *)(s + 1) - f->seg->base));
    }
}

/* A record, preferably one that is in use. */
static void hurt_flight(struct fuzz *f) {
    uint32_t n = random_below(&f->chance, acc_flight_records(f->seg));
    uint32_t used[2] = {f->leading.record, f->joining.record};
    uint32_t which = random_below(&f->chance, 3);
    if (which < 2 && used[which] != ACC_NO_RECORD) {
        n = used[which];
    }
    struct acc_flight *flight = acc_flight_record(f->seg, n);
    if (random_below(&f->chance, 4) == 0) {
        /* Live, of a process that lives, with the key's hash: as near to a real one as garbage
         * comes. */
        flight->control = (uint32_t)random_bits(&f->chance) << ACC_FLIGHT_TOKEN_SHIFT |
                          random_below(&f->chance, 16);
        flight->owner = acc_incarnation(f->seg);
    }
    hurt_word(f, (uint8_t *)flight + 4 * random_below(&f->chance, sizeof *flight / 4 - 1));
}

static void hurt_turn_or_bell(struct fuzz *f) {
    const struct acc_geometry *g = &f->seg->geometry;
    struct acc_turn *turn = acc_turn(f->seg, random_below(&f->chance, g->turns));
    switch (random_below(&f->chance, 4)) {
    case 0: hurt_word(f, &turn->who); break;
    case 1: hurt_word(f, &turn->area); break;
    case 2: hurt_bytes(f, g->turn_at, g->generation_at); break;
    default:
        acc_store_relaxed(&acc_process_slot(f->seg, f->seg->self_slot - 1)->doorbell,
                          (uint32_t)random_bits(&f->chance));
    }
}

/* A slot near the newest entry, a position, a word of the link, or what an area's listener knows. */
static void hurt_link(struct fuzz *f) {
    struct acc_link *link = acc_link(f->seg);
    struct acc_area_slot *area = acc_area_slot(f->seg, f->area.id);
    uint32_t slots = f->seg->geometry.outbox, back = random_below(&f->chance, 8);
    uint8_t *slot = (uint8_t *)acc_outbox_slot(f->seg, ((uint32_t)link->next - back) % slots);
    switch (random_below(&f->chance, 5)) {
    case 0: hurt_word(f, slot); break;
    case 1: hurt_word(f, slot + 8 * random_below(&f->chance, 16)); break;
    case 2: hurt_word(f, (uint8_t *)link + 8 * random_below(&f->chance, sizeof *link / 8)); break;
    case 3: hurt_word(f, random_below(&f->chance, 2) == 0 ? &link->next : &link->behind); break;
    default: hurt_word(f, &area->replication + random_below(&f->chance, 4));
    }
}

/* The block of an item that a word names, a slot of the table, the clock, or an area's epoch. */
static void hurt_tags(struct fuzz *f, uint32_t shard) {
    const struct acc_geometry *g = &f->seg->geometry;
    switch (random_below(&f->chance, 8)) {
    case 0: hurt_bytes(f, g->tag_at, g->shard_at); return;
    case 1: hurt_word(f, acc_tag_slot(f->seg, f->tags.slot[random_below(&f->chance, 2)])); return;
    case 2: hurt_word(f, &acc_header(f->seg)->tag_clock); return;
    case 3: hurt_word(f, &acc_area_slot(f->seg, f->area.id)->tag_epoch); return;
    default: break;
    }
    for (int tries = 0; tries < 200; tries++) { /* most words are empty */
        struct acc_view view;
        uint64_t word = acc_bucket(f->seg, shard, random_below(&f->chance, g->buckets))
                            ->word[random_below(&f->chance, ACC_BUCKET_SLOTS)];
        if (word != 0 &&
            acc_view_load(f->seg, shard, acc_word_ring(word), acc_word_offset(word), &view) &&
            acc_record_tagged(&view.record)) {
            uint64_t at = (uint64_t)(view.value - f->seg->base) + acc_record_size(&view.record) +
                          random_below(&f->chance, sizeof(struct acc_tag_block));
            hurt_bytes(f, at, at + 8 < g->size ? at + 8 : g->size);
            f->hurt_blocks++;
            return;
        }
    }
}

/* An override, a word of the limiter, an event, or how many of those there are. */
static void hurt_operator(struct fuzz *f) {
    const struct acc_geometry *g = &f->seg->geometry;
    uint32_t row = random_below(&f->chance, 2) == 0 ? f->area.base : acc_override_host(f->seg);
    switch (random_below(&f->chance, 6)) {
    case 0: hurt_bytes(f, g->override_at, g->shard_at); break;
    case 1: hurt_word(f, acc_limit_set(f->seg, random_below(&f->chance, ACC_LIMIT_SETS))); break;
    case 2: hurt_word(f, acc_event_slot(f->seg, random_below(&f->chance, g->events))); break;
    case 3: hurt_word(f, &acc_event_head(f->seg)->next); break;
    default:
        hurt_word(
            f, &acc_override_row(f->seg, row)->word[random_below(&f->chance, ACC_OVERRIDE_SLOTS)]);
    }
}

static void hurt(struct fuzz *f) {
    const struct acc_geometry *g = &f->seg->geometry;
    uint32_t shard = random_below(&f->chance, g->shards);
    switch (random_below(&f->chance, 18)) {
    case 16: hurt_operator(f); break;
    case 0: hurt_bytes(f, g->ring_at, g->size); break;
    case 1: hurt_bytes(f, g->index_at, g->ghost_at); break;
    case 2: hurt_bytes(f, g->generation_at, g->tag_at); break;
    case 3: hurt_bytes(f, g->ghost_at, g->ring_at); break;
    case 4: hurt_bytes(f, g->process_at, g->area_at); break;
    case 5: hurt_bytes(f, g->stats_at, g->generation_at); break;
    case 6:
        hurt_bytes(f, offsetof(struct acc_header, hash_key), sizeof(struct acc_header));
        hurt_word(f, &acc_header(f->seg)->next_incarnation);
        break;
    case 7: hurt_item(f, shard); break;
    case 9: hurt_flight(f); break;
    case 10: hurt_turn_or_bell(f); break;
    case 12:
    case 13: hurt_link(f); break;
    case 11: hurt_word(f, &acc_shard(f->seg, shard)->flights); break;
    case 14:
    case 15: hurt_tags(f, shard); break;
    case 8:
        hurt_word(f, &acc_bucket(f->seg, shard, random_below(&f->chance, g->buckets))
                          ->word[random_below(&f->chance, ACC_BUCKET_SLOTS)]);
        break;
    default: hurt_shard(f, shard);
    }
    if (random_below(&f->chance, 50) == 0) {
        f->area.generation[0] = random_bits(&f->chance);
    }
}

/* --- operations ------------------------------------------------------------------------------- */

static void look(struct fuzz *f, uint32_t number, const struct acc_key *key) {
    struct got got = read_once(&f->area, key, f->buffer, VALUE_MAX, true);
    uint64_t version;
    /* A sum that does not match is a value that a verifying reader drops. */
    if (got.status == ACC_OK && acc_value_sum(f->buffer, got.size) == got.record.value_sum) {
        f->hits++;
        if (acc_record_code(&got.record) == ACC_CODE_BYTES) {
            CHECK(proves_itself(f->buffer, got.size, number, &version));
        }
    }
}

static struct acc_write random_write(struct fuzz *f, uint32_t number) {
    uint32_t most = random_below(&f->chance, 20) == 0 ? VALUE_MAX : 1500;
    struct acc_write write = {
        .data = f->value,
        .size = 16 + random_below(&f->chance, most - 16),
        .code = ACC_CODE_BYTES,
        .mode = (uint8_t)random_below(&f->chance, 3),
        .expire_at = acc_now(f->seg) + random_below(&f->chance, 10000),
        .stale_until = acc_now(f->seg) + random_below(&f->chance, 20000),
    };
    fill_value(f->value, write.size, number, ++f->version);
    if (random_below(&f->chance, 2) == 0) {
        static const char *const letters[] = {"a", "b", "ab", "abcdefgh"};
        f->tags = letter_tags(&f->area, letters[random_below(&f->chance, 4)]);
        write.tags = &f->tags;
    }
    return write;
}

static void note_status(struct fuzz *f, enum acc_status status) {
    f->stored += status == ACC_OK;
    f->busy += status == ACC_BUSY;
}

/* --- loads ------------------------------------------------------------------------------------ */

static void end_leading(struct fuzz *f) {
    struct test_key key;
    number_key(&f->area, &key, f->leading_number);
    struct acc_write write = random_write(f, f->leading_number);
    switch (random_below(&f->chance, 4)) {
    case 0: acc_load_end(&f->area, &f->leading, ACC_RESULT_FAILED); break;
    case 1: acc_load_hand(&f->area, &key.key, &f->leading, &write, 1000000); break;
    default: {
        enum acc_status status = acc_load_finish(&f->area, &key.key, &f->leading, &write, 1000000);
        note_status(f, status);
        f->ended_stored += status == ACC_OK;
    }
    }
    CHECK(!f->leading.leading);
    f->leading.record = ACC_NO_RECORD;
}

static void end_joining(struct fuzz *f) {
    struct test_key key;
    number_key(&f->area, &key, f->joining_number);
    uint8_t *value, code;
    uint32_t size;
    uint64_t version;
    acc_flight_ring(f->seg, &f->joining);
    acc_flight_wait(f->seg, &f->joining, 100000);
    acc_flight_running(f->seg, &f->joining);
    acc_flight_leaderless(f->seg, &f->joining);
    acc_flight_waiting(f->seg, &f->joining);
    if (acc_load_take(&f->area, &key.key, &f->joining, &value, &size, &code) == ACC_OK) {
        f->taken++;
        if (code == ACC_CODE_BYTES) {
            CHECK(proves_itself(value, size, f->joining_number, &version));
        }
        free(value);
    }
    acc_flight_leave(f->seg, &f->joining);
    f->joining.record = ACC_NO_RECORD;
}

static enum acc_status enter_something(struct fuzz *f, uint32_t *number,
                                       struct acc_ticket *ticket) {
    struct test_key key;
    uint32_t window = random_below(&f->chance, 2) == 0 ? 0 : ACC_WINDOW_ALL;
    if (random_below(&f->chance, 6) == 0) {
        *number = f->leading_number;
        window = ACC_WINDOW_ALL;
    }
    number_key(&f->area, &key, *number);
    if (random_below(&f->chance, 8) == 0) {
        return acc_load_alone(&f->area, &key.key, random_below(&f->chance, 3), 1, 1000000, ticket);
    }
    return acc_load_enter(&f->area, &key.key, ACC_LOAD_JOIN, window, random_below(&f->chance, 1000),
                          1000000, ticket);
}

/* Lead one load and wait for another (or for the same), over whatever lies there. */
static void load_something(struct fuzz *f, uint32_t number) {
    struct acc_ticket ticket;
    if (enter_something(f, &number, &ticket) != ACC_OK) {
        return;
    }
    if (ticket.leading) {
        if (f->leading.leading) {
            end_leading(f);
        }
        f->led++;
        f->leading = ticket;
        f->leading_number = number;
    } else {
        end_joining(f);
        f->joined++;
        f->joining = ticket;
        f->joining_number = number;
    }
    if (f->leading.leading && random_below(&f->chance, 2) == 0) {
        end_leading(f);
    }
}

static void look_at_load(struct fuzz *f, const struct acc_key *key) {
    struct acc_flight_info info;
    acc_flight_look(f->seg, random_below(&f->chance, acc_flight_records(f->seg)), &info);
    if (random_below(&f->chance, 2) == 0) {
        acc_load_pause(&f->area, key, 100, 1000000);
    }
    acc_load_pausing(&f->area, key);
}

/* What garbage leads in our name is waited for, as long as its lease says; the rest works at once,
 * and everything when that is gone. */
static void heal_loads(struct fuzz *f) {
    const struct acc_geometry *g = &f->seg->geometry;
    for (int clean = 0; clean < 2; clean++) {
        for (uint32_t number = 0; number < KEYS; number++) {
            struct test_key key;
            struct acc_ticket ticket;
            number_key(&f->area, &key, number);
            acc_delete(&f->area, &key.key);
            enum acc_status status = enter_load(&f->area, &key.key, &ticket);
            CHECK(status == ACC_OK || (status == ACC_FULL && !clean));
            CHECK(ticket.leading || !clean);
            if (ticket.leading) {
                fill_value(f->value, 500, number, ++f->version);
                CHECK_STATUS(ACC_OK, finish_bytes(&f->area, &key.key, &ticket, f->value, 500));
                CHECK(is_there(&f->area, &key.key));
            }
        }
        memset(f->seg->base + g->flight_at, 0, g->turn_at - g->flight_at);
    }
}

/* --- the second level ------------------------------------------------------------------------- */

/* An explicit write with all that belongs to it, and what a listener does now and then. */
static void write_through(struct fuzz *f, const struct acc_key *key) {
    struct acc_segment *seg = f->seg;
    struct acc_area_slot *slot = acc_area_slot(seg, f->area.id);
    struct acc_outbox_entry *entries;
    uint32_t count;
    uint64_t of, upto, number = acc_outbox_append(&f->area, key, ACC_NOTE_SET);
    enum acc_remote answer = acc_link_ask(seg, 2000000000, random_below(&f->chance, 2));
    struct acc_write write = random_write(f, f->written);
    write.note = number;
    note_status(f, acc_store(&f->area, key, &write, 1000000));
    acc_outbox_heard(seg, random_below(&f->chance, 4) == 0 ? random_bits(&f->chance) : number);
    acc_outbox_settle(seg, number, random_below(&f->chance, 2));
    acc_link_failed(seg, acc_now_ns(seg), answer == ACC_REMOTE_PROBE);
    acc_leader_beat(seg, acc_leader_claim(seg, 1000));
    if (random_below(&f->chance, 20) == 0) {
        acc_link_confirm(seg, acc_now_ns(seg));
        acc_link_state(slot, &of, &upto);
        acc_link_applied(slot, of + random_below(&f->chance, 2), upto + 1);
        CHECK_STATUS(ACC_OK, acc_outbox_due(seg, 256, &entries, &count));
        CHECK(count <= 256);
        for (uint32_t i = 0; i < count; i++) {
            CHECK(entries[i].key_size <= ACC_KEY_MAX + 1 && entries[i].area < seg->geometry.areas);
            acc_outbox_settle(seg, entries[i].number, true);
        }
        free(entries);
        acc_outbox_owed(seg, f->area.id);
        acc_outbox_paid(seg, f->area.id);
    }
}

/* The next heartbeat, the next leader and the ring that comes round put it right. */
static void heal_link(struct fuzz *f) {
    struct acc_segment *seg = f->seg;
    for (uint32_t term = 0; term == 0;) {
        term = acc_leader_claim(seg, 50000000);
    }
    acc_link_confirm(seg, acc_now_ns(seg));
    acc_link_connected(seg);
    acc_link_message(seg);
    for (uint32_t i = 0; i < 2 * seg->geometry.outbox; i++) {
        struct test_key key;
        number_key(&f->area, &key, i);
        acc_outbox_settle(seg, acc_outbox_append(&f->area, &key.key, ACC_NOTE_FORGET), true);
    }
}

/* What operators do, and what they are shown. */
static void watch(struct fuzz *f) {
    static struct acc_event events[ACC_EVENTS_MAX];
    struct acc_segment *seg = f->seg;
    struct acc_event event = {.op = "fuzz", .result = "ok", .hash = random_bits(&f->chance)};
    enum acc_option option = (enum acc_option)random_below(&f->chance, ACC_OPTIONS);
    uint32_t seen, alive;
    uint64_t number = acc_event_begin(seg, &event);
    acc_event_add(seg, &event);
    acc_event_end(seg, random_below(&f->chance, 4) == 0 ? event.hash : number, &event);
    acc_events_read(seg, events, 1 + random_below(&f->chance, ACC_EVENTS_MAX));
    acc_limit_allowed(seg, random_bits(&f->chance), 1000000);
    if (random_below(&f->chance, 8) == 0) {
        acc_override_set(seg, acc_override_host(seg), option, 0, 1000000000);
        acc_override_notice(seg);
        acc_override_seen(seg, &seen, &alive);
        CHECK_EQ(acc_override_print(seg), acc_override_acted(seg));
        acc_override_remove(seg, acc_override_host(seg), option);
    }
}

/* The tick removes what cannot be, and the ring comes round. */
static void heal_operator(struct fuzz *f) {
    const struct acc_event event = {.op = "heal"};
    acc_override_tick(f->seg);
    for (uint32_t i = 0; i < 3 * f->seg->geometry.events; i++) {
        acc_event_add(f->seg, &event);
    }
}

/* What people are shown, and what is counted for it. */
static void show(struct fuzz *f, uint64_t hash) {
    struct acc_hot_key keys[8];
    uint32_t facts[ACC_FACTS] = {1}, changed;
    acc_hot_count(f->seg, f->area.id, hash);
    uint32_t n = acc_hot_top(f->seg, keys, 8);
    for (uint32_t i = 0; i < n; i++) {
        CHECK(keys[i].area < f->seg->geometry.areas && keys[i].rate >= 0);
    }
    CHECK(acc_hot_total(f->seg) >= 0);
    acc_facts_read(f->seg, f->area.id, facts, &changed);
    acc_facts_write(f->seg, f->area.id, facts, ACC_FACTS);
}

static void operate(struct fuzz *f) {
    uint32_t number = random_below(&f->chance, KEYS);
    struct test_key key;
    number_key(&f->area, &key, number);
    uint32_t later = acc_now(f->seg) + 1000;
    int64_t out, initial = 1;
    uint64_t began = acc_clock_ns();
    switch (random_below(&f->chance, 20)) {
    case 0: acc_delete(&f->area, &key.key); break;
    case 1: note_status(f, acc_touch(&f->area, &key.key, later, later + 1000, 1000000)); break;
    case 2: note_status(f, acc_expire(&f->area, &key.key, 1000000)); break;
    case 3:
        text_key(&f->area, &key, "counter");
        note_status(f, acc_incr(&f->area, &key.key, 1, &initial, 0, 0, 1000000, &out));
        break;
    case 17:
        if (random_below(&f->chance, 8) == 0) {
            mark_letters(&f->area, "ch", random_below(&f->chance, 2));
            f->marked++;
        }
        break;
    case 12:
    case 13: load_something(f, number); break;
    case 14: look_at_load(f, &key.key); break;
    case 18: show(f, key.key.hash); break;
    case 19: watch(f); break;
    case 15:
    case 16:
        f->written = number;
        write_through(f, &key.key);
        break;
    case 4:
    case 5:
    case 6:
    case 7: {
        const struct acc_write write = random_write(f, number);
        note_status(f, acc_store(&f->area, &key.key, &write, 1000000));
        break;
    }
    default: look(f, number, &key.key);
    }
    uint64_t took = acc_clock_ns() - began;
    if (took > f->slowest_ns) {
        f->slowest_ns = took;
    }
}

/* The slower things, which must hold as well. */
static void maintain(struct fuzz *f) {
    uint64_t counters[ACC_COUNTERS];
    acc_maintenance_tick(f->seg);
    acc_maintenance_tick(f->seg);
    acc_segment_measure(f->seg);
    acc_maintenance_check(f->seg, ignore_violation, NULL);
    acc_stats_sum(f->seg, f->area.id, counters);
    acc_process_any_other(f->seg);
}

/* Leave and enter again, over a table of processes and a count of incarnations that may be garbage.
 */
static void enter_again(struct fuzz *f) {
    if (f->leading.leading && random_below(&f->chance, 2) == 0) {
        end_leading(f);
    }
    acc_segment_unregister(f->seg);
    CHECK_STATUS(ACC_OK, acc_segment_register(f->seg));
    CHECK(acc_incarnation(f->seg) != 0);
    acc_doorbell_arm(f->seg, f->bell, 1);
    CHECK(acc_area_enter(&f->area));
}

/* After garbage the cache heals: every key can be stored and read again, and the invariants hold.
 */
static void heal(struct fuzz *f) {
    for (uint32_t shard = 0; shard < f->seg->geometry.shards; shard++) {
        acc_store_relaxed(&acc_shard(f->seg, shard)->lock, 0u);
    }
    acc_segment_measure(f->seg);
    for (int lap = 0; lap < 3; lap++) {
        for (uint32_t number = 0; number < KEYS; number++) {
            struct test_key key;
            number_key(&f->area, &key, number);
            fill_value(f->value, 8000, number, ++f->version);
            if (number % 3 == 0) {
                CHECK_STATUS(ACC_OK, set_tagged(&f->area, &key.key, f->value, 8000, "ab"));
            } else {
                CHECK_STATUS(ACC_OK, set_bytes(&f->area, &key.key, f->value, 8000));
            }
            CHECK(is_there(&f->area, &key.key));
            if (number % 10 == 0) {
                acc_segment_measure(f->seg);
            }
        }
    }
    heal_link(f);
    heal_operator(f);
    CHECK_SEGMENT(f->seg);
    struct test_key key;
    number_key(&f->area, &key, KEYS - 1);
    CHECK_STATUS(ACC_OK, set_tagged(&f->area, &key.key, "tagged", 6, "ab"));
    mark_letters(&f->area, "c", false);
    CHECK(is_there(&f->area, &key.key));
    mark_letters(&f->area, "b", false);
    CHECK(!is_there(&f->area, &key.key));
    heal_loads(f);
}

/* Move the mapping between two pages that fault, so that a step outside it is seen. */
static void put_between_guards(struct acc_segment *seg) {
    uint64_t size = seg->geometry.size;
    uint8_t *room = mmap(NULL, size + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(room != MAP_FAILED);
    void *moved = mremap(seg->base, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, room + 4096);
    CHECK(moved == room + 4096);
    seg->base = moved;
}

static void run_fuzz(uint32_t max_value_size) {
    struct fuzz *f = calloc(1, sizeof *f);
    /* Moved before it is registered, that is before there is a thread that uses it. */
    f->seg = map_file(new_segment_file(2 * MIB, max_value_size));
    put_between_guards(f->seg);
    f->area = open_area(f->seg, "fuzz");
    f->chance.state = seed;
    f->leading.record = f->joining.record = ACC_NO_RECORD;
    f->bell = acc_doorbell_open(f->seg);
    acc_doorbell_arm(f->seg, f->bell, 1);
    for (uint32_t round = 0; round < rounds; round++) {
        hurt(f);
        for (uint32_t n = random_below(&f->chance, 40); n > 0; n--) {
            operate(f);
        }
        if (round % 5 == 0) {
            acc_maintenance_tick(
                f->seg); /* sooner than its thread would: a lock word with our id costs no time */
        }
        if (round % 200 == 0) {
            maintain(f);
            enter_again(f);
        }
        if (round % 2000 == 0) {
            heal(f);
        }
    }
    heal(f);
    printf(
        "fuzz: %u corruptions, %llu hits, %llu stored, %llu gave up, slowest %llu us; %llu loads "
        "led, %llu of them stored, %llu joined, %llu taken\n",
        rounds, (unsigned long long)f->hits, (unsigned long long)f->stored,
        (unsigned long long)f->busy, (unsigned long long)(f->slowest_ns / 1000),
        (unsigned long long)f->led, (unsigned long long)f->ended_stored,
        (unsigned long long)f->joined, (unsigned long long)f->taken);
    CHECK(f->hurt_blocks > rounds / 100 && f->marked > rounds / 100);
    CHECK(f->led > rounds / 4 && f->ended_stored > rounds / 20 && f->joined > rounds / 40);
    CHECK(f->slowest_ns < SLOW_MS * 1000000ull);
    CHECK(f->hits > rounds / 4 && f->stored > rounds);
    acc_doorbell_close(f->seg, f->bell);
    acc_segment_close(f->seg);
    free(f);
}

static void four_shards(void) {
    run_fuzz(64 << 10);
}

/* One main ring, which ends where the mapping ends. */
static void one_shard(void) {
    run_fuzz(256 << 10);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {TEST(four_shards), TEST(one_shard)};
    if (argc > 1) {
        rounds = (uint32_t)strtoul(argv[1], NULL, 10);
    }
    if (argc > 2) {
        seed = strtoull(argv[2], NULL, 10);
    }
    return run_tests(tests, 2, 60 + rounds / 100, 1, argv);
}
