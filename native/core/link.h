/* What the processes of this host know together of the second level: when it last answered, whether
 * it may be asked, and how far its invalidations have been applied. */
#ifndef ACC_LINK_H
#define ACC_LINK_H

#include "override.h"

/* The second level executed a write of ours that was sent at `sent` (ns): all is well.  Behind an
 * interruption it is read again only when every host has had the time to send what it owes. */
void acc_link_confirm(struct acc_segment *seg, uint64_t sent);
/* It answered such a write with an error. */
void acc_link_refused(struct acc_segment *seg);

/* The connection of who listens.  After a loss the second level is not read until it has confirmed a
 * write that was sent behind it; all else here is shown to operators only. */
void acc_link_connected(struct acc_segment *seg);
void acc_link_lost(struct acc_segment *seg, uint64_t retry_ns); /* until the next try */
void acc_link_message(struct acc_segment *seg);

enum acc_remote { ACC_REMOTE_GO = 0, ACC_REMOTE_PROBE = 1, ACC_REMOTE_NO = 2 };

/* May it be asked?  bound_ns: what it answers is believed for so long after it last confirmed a
 * write of ours.  PROBE: yes, and on what comes of it depends whether others may: report it. */
enum acc_remote acc_link_ask(struct acc_segment *seg, uint64_t bound_ns, bool reading);
void acc_link_ok(struct acc_segment *seg, bool probe);
/* A call that began at `since` (ns) failed. */
void acc_link_failed(struct acc_segment *seg, uint64_t since, bool probe);

enum acc_breaker { ACC_BREAKER_CLOSED, ACC_BREAKER_OPEN, ACC_BREAKER_HALF_OPEN };

/* What an override has the breaker be. */
enum acc_forced { ACC_FORCED_NOT, ACC_FORCED_CLOSED, ACC_FORCED_OPEN };

struct acc_link_info {
    uint64_t now;                                                        /* ns */
    uint64_t confirmed, heard, connected, connects, message, next_retry; /* ns; 0: never */
    bool refused, settled;
    enum acc_breaker breaker;
    enum acc_forced forced;
    uint32_t failures;
    uint64_t open_ns; /* until the next probe */
};

struct acc_link_info acc_link_look(const struct acc_segment *seg);

/* How far the invalidations of an area have been applied: those of a server's replication id up to a
 * sequence number.  False: none, or it is not known. */
bool acc_link_state(const struct acc_area_slot *area, uint64_t *replication, uint64_t *sequence);
/* Raise it; with another replication id, replace it; replication 0: forget it. */
void acc_link_applied(struct acc_area_slot *area, uint64_t replication, uint64_t sequence);

/* What nobody of ours can have stored, each reported; their number. */
uint32_t acc_link_check(const struct acc_segment *seg, acc_report *report, void *context);

#endif
