#include "recovery.h"

#include "segment_size.h"
#include "wire/probe.h"
#include "wire/seq.h"

#define TLP_MAX_ACK_DELAY_US 200000 /* RFC 8985 section 7.2 */
/* Beyond twice the RTT, as Linux: on a short path that is too little for a peer which is not scheduled at once. */
#define TLP_SLACK_US 2000
#define RACK_SEGMENTS 3 /* DupThresh */
#define RACK_PERSIST_RECOVERIES 16 /* RFC 8985 section 6.2 step 4 */

static void set_rto(struct tcb *tcb)
{
    if (tcb->srtt_us == 0) {
        tcb->rto_us = TCP_RTO_INITIAL_US;
        return;
    }
    uint64_t variance = 4ull * tcb->rttvar_us;
    uint64_t rto = tcb->srtt_us + (variance > TCP_RTO_MIN_US ? variance : TCP_RTO_MIN_US);
    tcb->rto_us = rto > TCP_RTO_MAX_US ? TCP_RTO_MAX_US : (uint32_t)rto;
}

static void rtt_sample(struct tcb *tcb, uint64_t rtt_us)
{
    uint32_t rtt = rtt_us > TCP_RTO_MAX_US ? TCP_RTO_MAX_US : (uint32_t)rtt_us;
    rtt = rtt > 0 ? rtt : 1;
    bool first = tcb->min_rtt_us == 0;
    if (first || rtt < tcb->min_rtt_us)
        tcb->min_rtt_us = rtt;
    if (first) {
        tcb->srtt_us = rtt;
        tcb->rttvar_us = rtt / 2;
    } else {
        uint32_t error = rtt > tcb->srtt_us ? rtt - tcb->srtt_us : tcb->srtt_us - rtt;
        tcb->rttvar_us = tcb->rttvar_us - tcb->rttvar_us / 4 + error / 4;
        tcb->srtt_us = tcb->srtt_us - tcb->srtt_us / 8 + rtt / 8;
    }
    set_rto(tcb);
}

/* What the cookie's timestamp says, too coarse for anything but a first timeout: replaced by the first real sample. */
void recovery_rtt_guess(struct tcb *tcb, uint64_t rtt_us)
{
    if (rtt_us >= TCP_RTO_INITIAL_US)
        return;
    tcb->srtt_us = (uint32_t)rtt_us;
    tcb->rttvar_us = tcb->srtt_us / 2;
    set_rto(tcb);
}

/* RFC 8985's reckoning: neither SACKed nor lost. */
uint32_t recovery_pipe(const struct tcb *tcb)
{
    uint32_t sent = tcb->range_count > 0 ? tcb->ranges[tcb->range_count - 1].end - tcb->ranges[0].start : 0;
    uint32_t pipe = sent - tcb->sacked_bytes - tcb->lost_bytes;
    if (tcb->sack || tcb->in_loss)
        return pipe;
    /* Each duplicate ACK says that one segment has left the network; after a timeout one of those taken for lost. */
    uint32_t left = tcb->dupacks * (uint32_t)tcb->snd_mss;
    return pipe > left ? pipe - left : 0;
}

/* What the Eifel response takes back, should the loss turn out to be none. It can turn out only if what is sent again
 * begins at snd_una: then the first ACK that advances tells, RFC 3522 section 3.2. */
static void remember(struct tcpip *tcpip, struct tcb *tcb)
{
    tcb->undo_cwnd = tcb->cwnd;
    tcb->undo_ssthresh = tcb->ssthresh;
    tcb->undo_ts = tcp_ts_clock(tcpip->now_us, tcb->ts_offset);
    tcb->undo = tcb->timestamps && tcb->range_count > 0 && (tcb->ranges[0].flags & RANGE_LOST) != 0;
}

static void enter_recovery(struct tcpip *tcpip, struct tcb *tcb)
{
    PROBE(enter_recovery, tcb, tcb->cwnd, tcb->srtt_us);
    COUNT(tcpip, tcp_retransmit_fast);
    remember(tcpip, tcb);
    tcb->prr_flight = tcp_flight(tcb); /* RecoverFS */
    congestion_lost(&tcpip->congestion, tcb);
    tcb->in_recovery = true;
    tcb->recover = tcb->snd_nxt;
    tcb->prr_delivered = tcb->prr_out = 0;
    tcb->rtt_end = 0; /* Karn's algorithm */
    tcb->tlp_end = 0;
}

static void leave_recovery(struct tcb *tcb)
{
    tcb->in_recovery = tcb->in_loss = false;
    tcb->undo = false;
    if (tcb->prr_flight > 0)
        tcb->cwnd = tcb->ssthresh; /* RFC 6937 section 3: at the end cwnd is ssthresh */
    tcb->prr_flight = 0;
    if (tcb->reorder_steps > 0 && --tcb->reorder_persist == 0)
        tcb->reorder_steps = 0;
}

static bool echo_is_old(const struct tcb *tcb, const struct tcp_segment *segment)
{
    return tcb->undo && segment->options.timestamps && seq_lt(segment->options.ts_echo, tcb->undo_ts);
}

/* The first retransmission was in vain if what it is answered to is older than itself, RFC 3522. */
static void undo_spurious(struct tcpip *tcpip, struct tcb *tcb, const struct tcp_segment *segment)
{
    bool spurious = echo_is_old(tcb, segment);
    tcb->undo = false;
    if (!spurious)
        return;
    COUNT(tcpip, tcp_retransmit_spurious);
    scoreboard_unlose(tcb);
    if (tcb->cwnd < tcb->undo_cwnd)
        tcb->cwnd = tcb->undo_cwnd;
    tcb->ssthresh = tcb->undo_ssthresh;
    tcb->prr_flight = 0;
    leave_recovery(tcb);
}

/* RFC 8985 section 6.2 step 4: how long a hole may be reordering. */
static uint32_t reorder_window_us(const struct tcb *tcb)
{
    if (!tcb->reordering) {
        if (tcb->in_recovery || tcb->sacked_bytes >= RACK_SEGMENTS * (uint32_t)tcb->snd_mss)
            return 0;
    }
    uint32_t window = tcb->min_rtt_us / 4 * (tcb->reorder_steps + 1u);
    return window < tcb->srtt_us ? window : tcb->srtt_us;
}

/* Was something that has arrived sent after a range? By its time, or by its position: whatever lies above it was sent behind
 * it, if it has not been sent again itself. The times of a range alone would overlook that, as they are only so exact. */
static bool overtaken(const struct tcb *tcb, const struct sent_range *range)
{
    struct sending sending = {range->last_us, range->end, (range->flags & RANGE_RESENT) != 0};
    return scoreboard_after(&tcb->rack, &sending) || (!sending.resent && seq_lt(range->end, tcb->rack_fack));
}

/* RFC 8985 section 6.2 step 5. Marks what is lost; returns when the next might be, 0 if none waits. */
static uint32_t detect_loss(struct tcpip *tcpip, struct tcb *tcb)
{
    uint32_t now_us = (uint32_t)tcpip->now_us, wait_us = 0;
    uint32_t window_us = reorder_window_us(tcb);
    for (uint32_t i = 0; i < tcb->range_count; i++) {
        struct sent_range *range = &tcb->ranges[i];
        if ((range->flags & (RANGE_SACKED | RANGE_LOST)) != 0 || !overtaken(tcb, range))
            continue;
        /* Without a window to wait for, order alone decides: the times of a range are only so exact. */
        int32_t left_us = window_us == 0 ? 0 : (int32_t)(range->last_us + tcb->rack_rtt_us + window_us - now_us);
        if (left_us <= 0)
            scoreboard_lose_range(tcb, i);
        else if ((uint32_t)left_us > wait_us)
            wait_us = (uint32_t)left_us;
    }
    if (!tcb->in_recovery && tcb->lost_bytes > 0)
        enter_recovery(tcpip, tcb);
    return wait_us;
}

static void rack_update(struct tcb *tcb, const struct delivery *delivery)
{
    uint32_t rtt_us = delivery->now_us - delivery->latest.sent_us;
    tcb->rack_fack = delivery->fack;
    if (delivery->reordered)
        tcb->reordering = true;
    if (!delivery->timed)
        return;
    /* Outside of recovery one segment per round trip is timed; but before the first of them is acknowledged what is SACKed
     * tells, or there would be no reordering window, RFC 8985 section 6.2 step 4. */
    bool wanted = tcb->in_recovery || tcb->min_rtt_us == 0;
    if (wanted && !delivery->latest.resent && (tcb->sack || !delivery->any_resent))
        rtt_sample(tcb, rtt_us);
    tcb->rack_rtt_us = rtt_us;
    if (scoreboard_after(&delivery->latest, &tcb->rack))
        tcb->rack = delivery->latest;
}

/* The SACK blocks of a segment; true if the first is a duplicate's (RFC 2883). */
static bool take_sacks(struct tcpip *tcpip, struct tcb *tcb, const struct tcp_segment *segment, uint64_t ack,
                       struct delivery *delivery)
{
    bool duplicate = false;
    uint32_t said = segment->ack; /* by which a DSACK is told: of an ACK that came late, what it says is not */
    for (uint32_t i = 0; i < segment->options.sack_count; i++) {
        uint32_t start = segment->options.sacks[i][0], end = segment->options.sacks[i][1];
        if (!seq_lt(start, end))
            continue;
        if (seq_leq(end, (uint32_t)ack)) {
            duplicate = duplicate || (i == 0 && seq_leq(end, said));
            continue;
        }
        if (seq_lt(start, (uint32_t)ack) || seq_lt((uint32_t)tcb->snd_nxt, end))
            continue;
        scoreboard_sacked(&tcpip->overflow, tcb, start, end, delivery);
    }
    return duplicate;
}

/* RFC 6937: as much goes out as has arrived, in proportion to the new window; and one segment more where that is safe, as
 * snd_una has moved and nothing else was lost. */
static void prr(struct tcb *tcb, uint32_t delivered, bool safe)
{
    uint32_t pipe = recovery_pipe(tcb);
    tcb->prr_delivered += delivered;
    int64_t send;
    if (pipe > tcb->ssthresh) {
        uint64_t share = ((uint64_t)tcb->prr_delivered * tcb->ssthresh + tcb->prr_flight - 1) / tcb->prr_flight;
        send = (int64_t)share - (int64_t)tcb->prr_out;
    } else {
        int64_t limit = (int64_t)tcb->prr_delivered - (int64_t)tcb->prr_out;
        limit = (limit > (int64_t)delivered ? limit : (int64_t)delivered) + (safe ? tcb->snd_mss : 0);
        int64_t room = (int64_t)tcb->ssthresh - (int64_t)pipe;
        send = room < limit ? room : limit;
    }
    if (tcb->prr_out == 0 && send < tcb->snd_mss)
        send = tcb->snd_mss; /* the first retransmission always goes */
    tcb->cwnd = pipe + (send > 0 ? (uint32_t)send : 0);
}

/* Without SACK: three duplicates, or a partial ACK in recovery, say that the first segment is lost. */
static void newreno_detect(struct tcpip *tcpip, struct tcb *tcb, uint64_t ack, bool advanced)
{
    bool partial = advanced && tcb->in_recovery && ack < tcb->recover;
    bool third = !advanced && !tcb->in_recovery && tcb->dupacks >= TCP_DUPACKS && ack >= tcb->recover;
    if (!partial && !third)
        return;
    uint32_t start = (uint32_t)ack;
    scoreboard_lose(&tcpip->overflow, tcb, start, start + tcb->snd_mss);
    if (third)
        enter_recovery(tcpip, tcb);
}

/* RFC 8985 section 7.4.2. A probe that was sent again, and whose end is acknowledged, may have repaired a loss that nobody saw,
 * or both have arrived. A DSACK or a bare duplicate ACK tells the latter; an ACK beyond it without them the former, for which
 * the window must shrink. */
static void end_probe(struct tcpip *tcpip, struct tcb *tcb, uint64_t ack, bool both_arrived)
{
    if (tcb->tlp_end == 0 || ack < tcb->tlp_end)
        return;
    bool repaired = tcb->tlp_resent && !both_arrived;
    if (repaired && ack == tcb->tlp_end)
        return; /* not known yet */
    tcb->tlp_end = 0;
    if (repaired && !tcb->in_recovery) {
        congestion_lost(&tcpip->congestion, tcb);
        tcb->cwnd = tcb->ssthresh;
    }
}

/* A duplicate was reported: the reordering window was too short. A step a round trip, kept for a while, RFC 8985 section
 * 6.2 step 4. */
static void widen_reorder_window(struct tcb *tcb)
{
    if (!tcb->reordering || tcb->snd_una < tcb->dsack_round_end)
        return;
    tcb->dsack_round_end = tcb->snd_nxt;
    tcb->reorder_persist = RACK_PERSIST_RECOVERIES;
    if (tcb->reorder_steps < UINT8_MAX)
        tcb->reorder_steps++;
}

static void take_rtt(struct tcpip *tcpip, struct tcb *tcb, uint64_t ack)
{
    tcb->dupacks = 0;
    tcb->retries = 0;
    if (tcb->rtt_end != 0 && ack >= tcb->rtt_end) {
        rtt_sample(tcb, tcpip->now_us - tcb->rtt_sent_us);
        tcb->rtt_end = 0;
    } else {
        set_rto(tcb); /* progress ends the backoff: in a long recovery there may be no sample for minutes */
    }
}

/* Marks what is lost; true if something is that was not before. */
static bool find_losses(struct tcpip *tcpip, struct tcb *tcb, uint64_t ack, bool advanced)
{
    uint32_t before = tcb->lost_bytes;
    tcb->reorder_wait_us = 0;
    /* Where nothing is SACKed or was sent again, nothing that is still in flight was sent before what has arrived. */
    if (tcb->sack && tcb->sacked_bytes == 0 && before == 0 && !tcb->in_recovery && !tcb->rack.resent)
        return false;
    if (tcb->sack)
        tcb->reorder_wait_us = detect_loss(tcpip, tcb);
    else
        newreno_detect(tcpip, tcb, ack, advanced);
    return tcb->lost_bytes > before;
}

/* What an ACK that advances says. Always inline: nearly all do. */
__attribute__((always_inline)) static inline void take_progress(struct tcpip *tcpip, struct tcb *tcb,
                                                                const struct tcp_segment *segment, uint64_t ack,
                                                                struct delivery *delivery)
{
    scoreboard_acked(&tcpip->overflow, tcb, (uint32_t)ack, delivery);
    take_rtt(tcpip, tcb, ack);
    undo_spurious(tcpip, tcb, segment);
}

/* Complexity: each condition is a line of the RFCs named above; apart they would hide what follows what. */
void recovery_ack(struct tcpip *tcpip, struct tcb *tcb, const struct tcp_segment *segment, uint64_t ack,
                  bool repeated)
{
    struct delivery delivery = {
        .now_us = (uint32_t)tcpip->now_us, .fack = tcb->rack_fack, .echo_old = echo_is_old(tcb, segment)};
    bool advanced = ack > tcb->snd_una;
    bool dsack = tcb->sack && take_sacks(tcpip, tcb, segment, ack, &delivery);
    uint32_t flight = tcp_flight(tcb);
    bool duplicate = repeated && flight > 0;
    if (dsack)
        widen_reorder_window(tcb);
    end_probe(tcpip, tcb, ack, dsack || (repeated && segment->options.sack_count == 0));
    if (!advanced && delivery.bytes == 0 && !duplicate && !tcb->in_recovery)
        return;
    if (advanced)
        take_progress(tcpip, tcb, segment, ack, &delivery);
    else if (duplicate && tcb->dupacks < UINT8_MAX)
        tcb->dupacks++;
    if (delivery.bytes > 0)
        rack_update(tcb, &delivery);
    if (tcb->in_recovery && ack >= tcb->recover)
        leave_recovery(tcb);
    bool safe = !find_losses(tcpip, tcb, ack, advanced) && advanced;
    if (tcb->in_recovery && !tcb->in_loss)
        prr(tcb, delivery.bytes > 0 || !duplicate ? delivery.bytes : tcb->snd_mss, safe);
    else if (advanced)
        congestion_acked(&tcpip->congestion, tcb, delivery.bytes, flight, tcpip->now_us);
}

/* A tail loss probe: new data if there is some, else the last segment again, RFC 8985 section 7.3. */
static void probe_tail(struct tcpip *tcpip, struct tcb *tcb)
{
    PROBE(probe_tail, tcb, tcb->cwnd, tcb->srtt_us);
    COUNT(tcpip, tcp_tail_probes);
    struct sent_range *last = &tcb->ranges[tcb->range_count - 1];
    bool room = tcb->snd_nxt < tcb->snd_end && tcb->snd_wnd >= tcp_flight(tcb) + tcb->snd_mss;
    tcb->tlp_resent = !room;
    tcb->tlp_now = room;
    if (!room) {
        /* As it was cut, as far as can be told: a range begins where a segment did. */
        uint32_t bytes = (last->end - last->start - 1) % tcb->snd_mss + 1;
        scoreboard_lose(&tcpip->overflow, tcb, last->end - bytes, last->end);
        tcb->tlp_now = true;
    }
    tcb->rtt_end = 0;
    tcb->tlp_end = tcb->snd_nxt + (room ? tcb->snd_mss : 0);
}

static void retransmission_timeout(struct tcpip *tcpip, struct tcb *tcb)
{
    PROBE(retransmission_timeout, tcb, tcb->retries, tcb->rto_us);
    COUNT(tcpip, tcp_retransmit_timeout);
    scoreboard_lose_all(tcb);
    /* Once for what is in flight: fast recovery has shrunk the window for it before, RFC 5681 section 3.1. */
    if (tcb->retries == 1 && (!tcb->in_recovery || tcb->in_loss)) {
        if (!tcb->in_recovery)
            remember(tcpip, tcb);
        congestion_lost(&tcpip->congestion, tcb);
    }
    segment_size_black_hole(tcpip, tcb);
    tcb->cwnd = tcb->mss;
    tcb->in_recovery = tcb->in_loss = true;
    tcb->recover = tcb->snd_nxt;
    tcb->prr_flight = 0;
    tcb->dupacks = 0;
    tcb->rtt_end = 0;
    tcb->tlp_end = 0;
}

void recovery_timeout(struct tcpip *tcpip, struct tcb *tcb)
{
    uint8_t kind = tcb->timer_kind;
    tcb->timer_kind = TCP_TIMER_RTO;
    if (kind == TCP_TIMER_REORDER) {
        tcb->reorder_wait_us = detect_loss(tcpip, tcb);
        if (tcb->in_recovery && !tcb->in_loss)
            prr(tcb, 0, false);
        return;
    }
    if (kind == TCP_TIMER_PROBE && tcb->range_count > 0) {
        probe_tail(tcpip, tcb);
        return;
    }
    retransmission_timeout(tcpip, tcb);
}

/* May a tail loss probe be scheduled? RFC 8985 section 7.2. */
static bool may_probe(const struct tcb *tcb)
{
    return tcb->sack && tcb->range_count > 0 && !tcb->in_recovery && tcb->tlp_end == 0 && tcb->srtt_us != 0 &&
           tcb->retries == 0 && tcb->sacked_bytes == 0;
}

/* The one timer of a connection is set for what is due first: the retransmission timeout, which only progress or
 * restart puts off, RACK's reordering timer, or a tail loss probe. */
void recovery_arm(struct tcpip *tcpip, struct tcb *tcb, bool restart)
{
    uint64_t now_us = tcpip->now_us;
    if (restart || tcb->rto_at_us == 0)
        tcb->rto_at_us = now_us + tcb->rto_us;
    tcb->rto_deadline_us = tcb->rto_at_us;
    tcb->timer_kind = TCP_TIMER_RTO;
    if (tcb->reorder_wait_us > 0 && now_us + tcb->reorder_wait_us < tcb->rto_at_us) {
        tcb->timer_kind = TCP_TIMER_REORDER;
        tcb->rto_deadline_us = now_us + tcb->reorder_wait_us;
    } else if (may_probe(tcb)) {
        bool alone = tcp_flight(tcb) <= tcb->snd_mss;
        uint64_t probe_us = now_us + 2ull * tcb->srtt_us + (alone ? TLP_MAX_ACK_DELAY_US : TLP_SLACK_US);
        tcb->timer_kind = TCP_TIMER_PROBE;
        tcb->rto_deadline_us = probe_us < tcb->rto_at_us ? probe_us : tcb->rto_at_us;
    }
    timer_update(&tcpip->wheel, tcb);
}

/* Once something is SACKed or recovery has begun there is nothing to probe for: a probe left waiting would take the RTO's
 * turn, and send nothing. */
void recovery_rearm(struct tcpip *tcpip, struct tcb *tcb)
{
    bool pointless = tcb->range_count > 0 && tcb->timer_kind == TCP_TIMER_PROBE && !may_probe(tcb);
    if (tcb->reorder_wait_us > 0 || pointless)
        recovery_arm(tcpip, tcb, false);
}

/* As Linux, the retransmission timeout, doubled for each time that nothing came of it; but that itself stays as it is. */
void recovery_persist(struct tcpip *tcpip, struct tcb *tcb)
{
    uint64_t wait_us = (uint64_t)tcb->rto_us << tcb->persist_backoff;
    tcb->timer_kind = TCP_TIMER_PERSIST;
    tcb->rto_at_us = 0;
    tcb->rto_deadline_us = tcpip->now_us + (wait_us < TCP_RTO_MAX_US ? wait_us : TCP_RTO_MAX_US);
    timer_update(&tcpip->wheel, tcb);
}

void recovery_disarm(struct tcb *tcb)
{
    tcb->rto_at_us = tcb->rto_deadline_us = 0;
}
