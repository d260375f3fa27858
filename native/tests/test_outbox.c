/* The outbox: what is told of an entry, what becomes of it, and what the ring leaves of one that it
 * overwrites. */
#include "harness.h"
#include "outbox.h"

static struct acc_area new_area(void) {
    struct acc_segment *seg = new_segment(2 * MIB, 64 << 10);
    struct acc_area area = open_area(seg, "a");
    acc_area_watch(&area);
    return area;
}

static uint64_t note(struct acc_area *area, const char *text, enum acc_note kind) {
    struct test_key key;
    uint64_t number = acc_outbox_append(area, text_key(area, &key, text), kind);
    CHECK(number != 0);
    return number;
}

/* An entry that was not sent. */
static uint64_t queue(struct acc_area *area, const char *text, enum acc_note kind) {
    uint64_t number = note(area, text, kind);
    acc_outbox_settle(area->seg, number, false);
    return number;
}

static uint64_t send(struct acc_area *area, const char *text, enum acc_note kind) {
    uint64_t number = note(area, text, kind);
    acc_outbox_settle(area->seg, number, true);
    return number;
}

struct list {
    struct acc_outbox_entry *entries;
    uint32_t count;
};

static struct list due(struct acc_segment *seg) {
    struct list list;
    CHECK_STATUS(ACC_OK, acc_outbox_due(seg, UINT32_MAX, &list.entries, &list.count));
    return list;
}

/* Which entries are due, or recent. */
static void check_numbers(struct list list, uint32_t count, const uint64_t *numbers) {
    CHECK_EQ(count, list.count);
    for (uint32_t i = 0; i < count; i++) {
        CHECK_EQ(numbers[i], list.entries[i].number);
    }
    free(list.entries);
}

static bool is_key(const struct acc_outbox_entry *entry, const char *text) {
    size_t size = strlen(text);
    return entry->key_size == size + 1 && entry->key[0] == 'b' &&
           memcmp(entry->key + 1, text, size) == 0;
}

static uint32_t count_due(struct acc_segment *seg) {
    struct list list = due(seg);
    free(list.entries);
    return list.count;
}

/* --- states ----------------------------------------------------------------------------------- */

static void one_entry(void) {
    struct acc_area area = new_area();
    struct acc_segment *seg = area.seg;
    uint64_t number = note(&area, "key", ACC_NOTE_EXPIRE);
    CHECK_EQ(0, count_due(seg)); /* its owner lives, and is at it */
    acc_outbox_settle(seg, number, false);
    struct list list = due(seg);
    CHECK_EQ(1, list.count);
    CHECK_EQ(number, list.entries[0].number);
    CHECK_EQ(area.id, list.entries[0].area);
    CHECK_EQ(ACC_NOTE_EXPIRE, list.entries[0].kind);
    CHECK(is_key(&list.entries[0], "key"));
    free(list.entries);
    struct acc_outbox_info info = acc_outbox_look(seg);
    CHECK_EQ(1, info.depth);
    CHECK(info.oldest_age_ns < 10000000000ull);
    acc_outbox_settle(seg, number, true);
    CHECK_EQ(0, count_due(seg));
    CHECK_EQ(0, acc_outbox_look(seg).depth);
    acc_outbox_settle(seg, number, false); /* what was sent stays so */
    CHECK_EQ(0, count_due(seg));
    CHECK_SEGMENT(seg);
    acc_segment_close(seg);
}

/* Keys of every length, the longest in five slots, over the end of the ring. */
static void keys_of_all_lengths(void) {
    struct acc_area area = new_area();
    struct acc_segment *seg = area.seg;
    char text[ACC_KEY_MAX + 1];
    for (uint32_t size = 0; size <= ACC_KEY_MAX; size++) {
        for (uint32_t i = 0; i < size; i++) {
            text[i] = (char)('a' + (i * 7 + size) % 26);
        }
        text[size] = '\0';
        uint64_t number = queue(&area, text, ACC_NOTE_FORGET);
        struct list list = due(seg);
        CHECK_EQ(1, list.count);
        CHECK(is_key(&list.entries[0], text));
        free(list.entries);
        acc_outbox_settle(seg, number, true);
    }
    CHECK_EQ(0, acc_outbox_look(seg).dropped);
    CHECK_SEGMENT(seg);
    acc_segment_close(seg);
}

static void oldest_first_and_limited(void) {
    struct acc_area area = new_area();
    const uint64_t numbers[] = {queue(&area, "a", ACC_NOTE_FORGET), queue(&area, "b", ACC_NOTE_SET),
                                queue(&area, "c", ACC_NOTE_FORGET)};
    struct list list;
    CHECK_STATUS(ACC_OK, acc_outbox_due(area.seg, 2, &list.entries, &list.count));
    check_numbers(list, 2, numbers);
    check_numbers(due(area.seg), 3, numbers);
    acc_outbox_settle(area.seg, numbers[1], true);
    acc_outbox_settle(area.seg, numbers[0], true);
    check_numbers(due(area.seg), 1, numbers + 2);
    acc_segment_close(area.seg);
}

/* What a newer entry of the key says need not be said before. */
static void needless_entries(void) {
    struct acc_area area = new_area(), other = open_area(area.seg, "b");
    struct acc_segment *seg = area.seg;
    queue(&area, "sent", ACC_NOTE_FORGET);
    queue(&area, "twice", ACC_NOTE_SET);
    uint64_t numbers[] = {queue(&other, "sent", ACC_NOTE_FORGET), 0, 0, 0};
    send(&area, "sent", ACC_NOTE_SET);
    numbers[1] = queue(&area, "twice", ACC_NOTE_FORGET);
    numbers[2] = queue(&area, "expired", ACC_NOTE_FORGET); /* its copy lies there still */
    queue(&area, "expired", ACC_NOTE_EXPIRE);
    send(&area, "expired", ACC_NOTE_EXPIRE);
    numbers[3] = queue(&area, "sent", ACC_NOTE_FORGET); /* newer than what was sent */
    note(&area, "sent", ACC_NOTE_SET);                  /* nobody knows yet what becomes of it */
    check_numbers(due(seg), 4, numbers);
    CHECK_EQ(4, acc_outbox_look(seg).depth);
    /* A clear speaks for the whole area, and for no other. */
    uint64_t clear = acc_outbox_append(&area, NULL, ACC_NOTE_CLEAR);
    acc_outbox_settle(seg, clear, false);
    const uint64_t left[] = {numbers[0], clear};
    check_numbers(due(seg), 2, left);
    acc_outbox_settle(seg, clear, true);
    check_numbers(due(seg), 1, left);
    CHECK_EQ(0, acc_outbox_look(seg).dropped); /* none of them is lost */
    CHECK_SEGMENT(seg);
    acc_segment_close(seg);
}

static void recent_entries(void) {
    struct acc_area area = new_area();
    struct acc_segment *seg = area.seg;
    struct list list;
    uint64_t numbers[] = {send(&area, "a", ACC_NOTE_FORGET), note(&area, "b", ACC_NOTE_SET)};
    queue(&area, "c", ACC_NOTE_FORGET);
    acc_outbox_heard(seg, numbers[1]);
    CHECK_STATUS(ACC_OK, acc_outbox_recent(seg, 5000000000ull, &list.entries, &list.count));
    check_numbers(list, 2, numbers);
    seg->clock_shift += 10 * (int32_t)ACC_UNITS_PER_SECOND;
    CHECK_STATUS(ACC_OK, acc_outbox_recent(seg, 5000000000ull, &list.entries, &list.count));
    check_numbers(list, 0, NULL);
    acc_segment_close(seg);
}

/* A message that came back was executed, whatever the caller made of it. */
static void heard_though_given_up(void) {
    struct acc_area area = new_area();
    uint64_t number = queue(&area, "a", ACC_NOTE_FORGET);
    CHECK(!acc_outbox_heard(area.seg, number));
    CHECK_EQ(0, count_due(area.seg));
    number = note(&area, "b", ACC_NOTE_FORGET); /* sooner than the answer */
    CHECK(!acc_outbox_heard(area.seg, number));
    acc_outbox_settle(area.seg, number, false);
    CHECK_EQ(0, count_due(area.seg));
    acc_segment_close(area.seg);
}

/* --- own messages ----------------------------------------------------------------------------- */

static uint64_t set_noted(struct acc_area *area, const char *text, const char *value,
                          enum acc_note kind) {
    struct test_key key;
    uint64_t number = note(area, text, kind);
    const struct acc_write write = {.data = (const uint8_t *)value,
                                    .size = (uint32_t)strlen(value),
                                    .code = ACC_CODE_BYTES,
                                    .note = number};
    CHECK_STATUS(ACC_OK, acc_store(area, text_key(area, &key, text), &write, ACC_LOCK_BUDGET_NS));
    return number;
}

static void own_set(void) {
    struct acc_area area = new_area();
    struct acc_segment *seg = area.seg;
    struct test_key key;
    uint64_t first = set_noted(&area, "k", "one", ACC_NOTE_SET);
    CHECK(acc_outbox_heard(seg, first));
    CHECK(acc_outbox_heard(seg, first)); /* by a new leader, who cannot know */
    /* Stored again, appended and in place: the first one's item is gone, and each has its own. */
    for (int i = 0; i < 4; i++) {
        uint64_t next = set_noted(&area, "k", "two", ACC_NOTE_SET);
        CHECK(!acc_outbox_heard(seg, first));
        CHECK(acc_outbox_heard(seg, next));
        first = next;
    }
    CHECK_STATUS(ACC_OK, set_bytes(&area, text_key(&area, &key, "k"), "x", 1));
    CHECK(!acc_outbox_heard(seg, first));
    first = set_noted(&area, "k", "three", ACC_NOTE_SET);
    acc_delete(&area, &key.key);
    CHECK(!acc_outbox_heard(seg, first));
    first = set_noted(&area, "k", "four", ACC_NOTE_SET);
    acc_area_clear(&area);
    CHECK(!acc_outbox_heard(seg, first));
    CHECK(!acc_outbox_heard(seg, set_noted(&area, "k", "five", ACC_NOTE_FORGET)));
    CHECK(!acc_outbox_heard(seg, note(&area, "k", ACC_NOTE_SET))); /* nothing was stored */
    CHECK_SEGMENT(seg);
    acc_segment_close(seg);
}

/* Two set the same key: whichever's message comes back, only the item that lies there is kept. */
static void own_sets_in_another_order(void) {
    struct acc_area area = new_area();
    struct test_key key;
    uint64_t first = note(&area, "k", ACC_NOTE_SET), second = note(&area, "k", ACC_NOTE_SET);
    struct acc_write write = {.data = (const uint8_t *)"v", .size = 1, .code = ACC_CODE_BYTES};
    text_key(&area, &key, "k");
    write.note = second;
    CHECK_STATUS(ACC_OK, acc_store(&area, &key.key, &write, ACC_LOCK_BUDGET_NS));
    write.note = first;
    CHECK_STATUS(ACC_OK, acc_store(&area, &key.key, &write, ACC_LOCK_BUDGET_NS));
    CHECK(!acc_outbox_heard(area.seg, second));
    CHECK(acc_outbox_heard(area.seg, first));
    acc_segment_close(area.seg);
}

/* A store that did not happen is not told; nor is one to an entry that is gone. */
static void notes_of_nothing(void) {
    struct acc_area area = new_area();
    struct test_key key;
    uint64_t number = note(&area, "k", ACC_NOTE_SET);
    CHECK_STATUS(ACC_OK, set_bytes(&area, text_key(&area, &key, "k"), "x", 1));
    const struct acc_write write = {.data = (const uint8_t *)"v",
                                    .size = 1,
                                    .code = ACC_CODE_BYTES,
                                    .mode = ACC_ADD,
                                    .note = number};
    CHECK_STATUS(ACC_NOT_STORED, acc_store(&area, &key.key, &write, ACC_LOCK_BUDGET_NS));
    CHECK(!acc_outbox_heard(area.seg, number));
    uint64_t late = note(&area, "l", ACC_NOTE_SET);
    for (uint32_t i = 0; i < area.seg->geometry.outbox; i++) {
        send(&area, "l", ACC_NOTE_SET);
    }
    const struct acc_write stale = {
        .data = (const uint8_t *)"v", .size = 1, .code = ACC_CODE_BYTES, .note = late};
    text_key(&area, &key, "l");
    CHECK_STATUS(ACC_OK, acc_store(&area, &key.key, &stale, ACC_LOCK_BUDGET_NS));
    CHECK(!acc_outbox_heard(area.seg, late));
    CHECK(!acc_outbox_heard(area.seg, late + area.seg->geometry.outbox));
    acc_segment_close(area.seg);
}

/* --- the ring comes round --------------------------------------------------------------------- */

static void overwritten_unsent(void) {
    struct acc_area area = new_area(), other = open_area(area.seg, "b");
    struct acc_segment *seg = area.seg;
    uint64_t first = queue(&area, "first", ACC_NOTE_FORGET);
    send(&other, "sent", ACC_NOTE_FORGET);
    for (uint32_t i = 0; i < seg->geometry.outbox - 2; i++) {
        send(&other, "k", ACC_NOTE_SET);
    }
    CHECK(!acc_outbox_owed(seg, area.id));
    CHECK_EQ(1, count_due(seg));
    send(&other, "k", ACC_NOTE_SET);
    CHECK(acc_outbox_owed(seg, area.id) && !acc_outbox_owed(seg, other.id));
    CHECK_EQ(1, acc_outbox_look(seg).dropped);
    CHECK_EQ(0, count_due(seg));
    acc_outbox_settle(seg, first, false); /* a number that has gone */
    CHECK_EQ(0, count_due(seg));
    send(&other, "k", ACC_NOTE_SET);
    CHECK(!acc_outbox_owed(seg, other.id)); /* what was sent is overwritten for nothing */
    acc_outbox_paid(seg, area.id);
    CHECK(!acc_outbox_owed(seg, area.id));
    CHECK_SEGMENT(seg);
    acc_segment_close(seg);
}

/* What came to be owed while the clear was on its way is owed still. */
static void owed_again_before_it_is_paid(void) {
    struct acc_area area = new_area();
    struct acc_segment *seg = area.seg;
    for (uint32_t i = 0; i < seg->geometry.outbox + 1; i++) {
        char text[16];
        snprintf(text, sizeof text, "%u", i);
        queue(&area, text, ACC_NOTE_FORGET);
    }
    CHECK(acc_outbox_owed(seg, area.id));
    queue(&area, "more", ACC_NOTE_FORGET);
    acc_outbox_paid(seg, area.id);
    CHECK(acc_outbox_owed(seg, area.id));
    acc_outbox_paid(seg, area.id);
    CHECK(!acc_outbox_owed(seg, area.id));
    acc_segment_close(seg);
}

/* An area may be made to owe a clear; a mapping for reading changes nothing. */
static void owed_by_order(void) {
    struct acc_area area = new_area(), other = open_area(area.seg, "b");
    struct acc_segment *seg = area.seg;
    acc_outbox_owe(seg, area.id);
    CHECK(acc_outbox_owed(seg, area.id) && !acc_outbox_owed(seg, other.id));
    acc_outbox_owe(seg,
                   area.id); /* while the leader clears it: the clear may have been too early */
    acc_outbox_paid(seg, area.id);
    CHECK(acc_outbox_owed(seg, area.id));
    acc_outbox_paid(seg, area.id);
    CHECK(!acc_outbox_owed(seg, area.id));
    acc_outbox_owe(seg, seg->geometry.areas); /* no such area */
    CHECK_SEGMENT(seg);
    acc_segment_close(seg);
}

/* A ring full of long and short keys that were not sent: each lost one is owed, none is torn. */
static void full_of_unsent(void) {
    struct acc_area area = new_area();
    struct acc_segment *seg = area.seg;
    struct chance chance = {7};
    char text[ACC_KEY_MAX + 1];
    for (int i = 0; i < 3000; i++) {
        uint32_t size = random_below(&chance, ACC_KEY_MAX - 20);
        int n = snprintf(text, sizeof text, "%d.", i);
        memset(text + n, 'x', size);
        text[(uint32_t)n + size] = '\0';
        queue(&area, text, ACC_NOTE_FORGET);
        if (i % 100 == 0) {
            struct list list = due(seg);
            CHECK(list.count > 0);
            CHECK(is_key(&list.entries[list.count - 1], text));
            free(list.entries);
            CHECK_SEGMENT(seg);
        }
    }
    CHECK(acc_outbox_owed(seg, area.id));
    acc_segment_close(seg);
}

/* --- processes -------------------------------------------------------------------------------- */

static int note_and_die(void *path) {
    struct acc_segment *seg = attach(path);
    struct acc_area area = open_area(seg, "a");
    note(&area, "of the dead", ACC_NOTE_FORGET);
    kill(getpid(), SIGKILL);
    return 0;
}

static void owner_killed(void) {
    const char *path = new_segment_file(2 * MIB, 1024);
    struct acc_segment *seg = attach(path);
    open_area(seg, "a");
    CHECK_EQ(128 + SIGKILL, in_child(note_and_die, (void *)(uintptr_t)path));
    struct list list = due(seg);
    CHECK_EQ(1, list.count);
    CHECK(is_key(&list.entries[0], "of the dead"));
    CHECK_EQ(1, acc_outbox_look(seg).depth);
    acc_outbox_settle(seg, list.entries[0].number, false); /* could not be sent: again later */
    CHECK_EQ(1, count_due(seg));
    acc_outbox_settle(seg, list.entries[0].number, true);
    CHECK_EQ(0, count_due(seg));
    free(list.entries);
    acc_segment_close(seg);
}

/* Whoever is killed in WRITING has done nothing; whoever is stopped there is passed by, and finds
 * his slots as he left them. */
static void held_slots(void) {
    const char *path = new_segment_file(2 * MIB, 1024);
    struct acc_segment *seg = attach(path);
    struct acc_area area = open_area(seg, "a");
    uint32_t *words = shared_words();
    pid_t pid = fork_child();
    if (pid == 0) {
        reach(words, acc_incarnation(attach(path)));
        for (;;) {
            pause();
        }
    }
    await(words, 1);
    struct acc_outbox_slot *slot = acc_outbox_slot(seg, 3);
    uint64_t held = 1ull << 33 | (uint64_t)words[0] << 3 | 1; /* lap 1, WRITING */
    slot->control = held;
    for (uint32_t i = 0; i < 3 * seg->geometry.outbox; i++) {
        send(&area, "k", ACC_NOTE_SET);
        CHECK_EQ(held, slot->control);
    }
    kill_child(pid);
    for (uint32_t i = 0; i < seg->geometry.outbox; i++) {
        send(&area, "k", ACC_NOTE_SET);
    }
    CHECK(slot->control != held);
    CHECK(!acc_outbox_owed(seg, area.id));
    CHECK_SEGMENT(seg);
    munmap(words, 4096);
    acc_segment_close(seg);
}

/* A leader goes through the ring while others fill it and are killed: nothing that was not sent is
 * lost without a trace. */
static void killed_in_a_crowd(void) {
    enum { PROCESSES = 4, ROUNDS = 40 };
    const char *path = new_segment_file(2 * MIB, 1024);
    struct acc_segment *seg = attach(path);
    struct acc_area area = open_area(seg, "a");
    struct chance chance = {3};
    uint32_t *words = shared_words(); /* [process] last key whose entry it has */
    for (uint32_t round = 0; round < ROUNDS; round++) {
        pid_t pids[PROCESSES];
        memset(words, 0, 4096);
        for (uint32_t p = 0; p < PROCESSES; p++) {
            pids[p] = fork_child();
            if (pids[p] == 0) {
                struct acc_segment *own = attach(path);
                struct acc_area mine = open_area(own, "a");
                for (uint32_t i = 1;; i++) {
                    char text[200];
                    memset(text, 'x', sizeof text);
                    snprintf(text + 150 * (i % 2), 50, "%u.%u.%u", round, p, i);
                    uint64_t number = note(&mine, text, ACC_NOTE_FORGET);
                    acc_store_release(&words[p], i);
                    acc_outbox_settle(own, number, true);
                }
            }
        }
        for (uint32_t p = 0; p < PROCESSES; p++) {
            await(&words[p], 50 + random_below(&chance, 100));
            kill(pids[p], SIGKILL);
            free(due(seg).entries);
        }
        for (uint32_t p = 0; p < PROCESSES; p++) {
            CHECK_EQ(128 + SIGKILL, wait_child(pids[p]));
        }
        struct list list = due(seg);
        CHECK(list.count <= PROCESSES);
        for (uint32_t i = 0; i < list.count; i++) {
            CHECK(list.entries[i].key_size > 5 && list.entries[i].key_size < 220);
            acc_outbox_settle(seg, list.entries[i].number, true);
        }
        free(list.entries);
        CHECK_EQ(0, count_due(seg));
        CHECK_SEGMENT(seg);
    }
    for (uint32_t i = 0; i < 2 * seg->geometry.outbox; i++) {
        send(&area, "k", ACC_NOTE_SET); /* nothing of theirs is in the way */
    }
    munmap(words, 4096);
    acc_segment_close(seg);
}

static void *append_many(void *argument) {
    struct acc_area area = *(struct acc_area *)argument;
    for (int i = 0; i < 3000; i++) {
        char text[300] = {0};
        memset(text, 'y', (size_t)(i % 290));
        uint64_t number = note(&area, text, (enum acc_note)(i % 3));
        acc_outbox_settle(area.seg, number, i % 2);
        acc_outbox_heard(area.seg, number - (uint64_t)(i % 7));
    }
    return NULL;
}

static void threads(void) {
    struct acc_area area = new_area();
    pthread_t ids[4];
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(0, pthread_create(&ids[i], NULL, append_many, &area));
    }
    for (int i = 0; i < 200; i++) {
        struct list list = due(area.seg);
        for (uint32_t n = 0; n < list.count; n++) {
            CHECK(list.entries[n].key_size <= 300);
        }
        free(list.entries);
        acc_outbox_look(area.seg);
    }
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(0, pthread_join(ids[i], NULL));
    }
    CHECK_SEGMENT(area.seg);
    acc_segment_close(area.seg);
}

/* --- garbage ---------------------------------------------------------------------------------- */

/* A damaged entry might have been anybody's. */
static void damaged_entry(void) {
    struct acc_area area = new_area();
    struct acc_segment *seg = area.seg;
    uint64_t number = queue(&area, "k", ACC_NOTE_FORGET);
    struct acc_outbox_slot *slot = acc_outbox_slot(seg, (uint32_t)(number % seg->geometry.outbox));
    slot->area = 5;
    CHECK_EQ(1, acc_outbox_check(seg, ignore_violation, NULL));
    CHECK_EQ(0, count_due(seg));
    CHECK(acc_outbox_owed(seg, area.id));
    CHECK_EQ(1, acc_outbox_look(seg).dropped);
    CHECK_SEGMENT(seg);
    acc_segment_close(seg);
}

/* A word that says that a living process, even this one, writes what nobody has been given yet. */
static void writer_ahead(void) {
    struct acc_area area = new_area();
    struct acc_segment *seg = area.seg;
    struct acc_outbox_slot *slot = acc_outbox_slot(seg, 3);
    for (uint64_t lap = 2; lap < 1u << 30; lap <<= 7) { /* the first that is given out is lap 1 */
        uint64_t held = lap << 33 | (uint64_t)acc_incarnation(seg) << 3 | 1; /* WRITING */
        slot->control = held;
        CHECK_EQ(1, acc_outbox_check(seg, ignore_violation, NULL));
        for (uint32_t i = 0; i < seg->geometry.outbox && slot->control == held; i++) {
            send(&area, "k", ACC_NOTE_SET);
        }
        CHECK(slot->control != held);
        CHECK(!acc_outbox_owed(seg, area.id));
        CHECK_SEGMENT(seg);
    }
    acc_segment_close(seg);
}

static void garbage(void) {
    struct acc_area area = new_area();
    struct acc_segment *seg = area.seg;
    struct chance chance = {11};
    for (int round = 0; round < 20000; round++) {
        char text[400] = {0};
        memset(text, 'z', random_below(&chance, 390));
        uint8_t *at = (uint8_t *)acc_outbox_slot(seg, random_below(&chance, seg->geometry.outbox));
        switch (random_below(&chance, 6)) {
        case 0: *(uint64_t *)(void *)at ^= 1ull << random_below(&chance, 64); break;
        case 1: at[random_below(&chance, 128)] ^= (uint8_t)(1 + random_below(&chance, 255)); break;
        case 2:
            if (round % 50 == 0) {
                acc_link(seg)->next = random_bits(&chance) >> random_below(&chance, 64);
            }
            break;
        case 3: acc_link(seg)->behind = random_bits(&chance) >> random_below(&chance, 64); break;
        default: break;
        }
        struct test_key key;
        uint64_t number = acc_outbox_append(&area, text_key(&area, &key, text), ACC_NOTE_SET);
        acc_outbox_heard(seg, random_below(&chance, 2) ? number : random_bits(&chance));
        acc_outbox_settle(seg, random_below(&chance, 2) ? number : random_bits(&chance), round % 2);
        if (round % 20 == 0) {
            free(due(seg).entries);
            acc_outbox_look(seg);
            acc_outbox_check(seg, ignore_violation, NULL);
        }
    }
    /* The ring comes round, and all is well. */
    for (uint32_t i = 0; i < 4 * seg->geometry.outbox; i++) {
        struct test_key key;
        acc_outbox_settle(seg, acc_outbox_append(&area, text_key(&area, &key, "k"), ACC_NOTE_SET),
                          true);
    }
    CHECK_SEGMENT(seg);
    uint64_t number = queue(&area, "k", ACC_NOTE_FORGET);
    check_numbers(due(seg), 1, &number);
    acc_segment_close(seg);
}

RUN(60, TEST(one_entry), TEST(keys_of_all_lengths), TEST(oldest_first_and_limited),
    TEST(needless_entries), TEST(recent_entries), TEST(heard_though_given_up), TEST(own_set),
    TEST(own_sets_in_another_order), TEST(notes_of_nothing), TEST(overwritten_unsent),
    TEST(owed_again_before_it_is_paid), TEST(owed_by_order), TEST(full_of_unsent),
    TEST(owner_killed), TEST(held_slots), TEST(killed_in_a_crowd), TEST(threads),
    TEST(damaged_entry), TEST(writer_ahead), TEST(garbage))
