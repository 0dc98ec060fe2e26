/* How much may be in flight: NewReno (RFC 5681) and CUBIC (RFC 9438), both with HyStart++ (RFC 9406) in slow start. Windows
 * are in bytes. */
#include "congestion.h"

#define CUBIC_C 0.4
#define CUBIC_BETA 0.7
#define HYSTART_RTT_MIN_US 4000 /* RFC 9406 section 4.3 */
#define HYSTART_RTT_MAX_US 16000
#define HYSTART_SAMPLES 8
#define HYSTART_GROWTH_DIVISOR 4
#define HYSTART_ROUNDS 5
#define HYSTART_SEGMENTS 8 /* L: by which an ACK lets the window grow, where it is not paced, section 4.2 */

/* RFC 6928 section 2. */
static uint32_t initial_window(uint32_t mss)
{
    uint32_t floor = mss * 2 > 14600 ? mss * 2 : 14600;
    return mss * 10 < floor ? mss * 10 : floor;
}

static uint32_t at_least_two(const struct tcb *tcb, uint32_t window)
{
    uint32_t least = 2u * tcb->mss;
    return window > least ? window : least;
}

static uint32_t newreno_lost(struct tcb *tcb)
{
    uint32_t flight = tcp_flight(tcb) < tcb->cwnd ? tcp_flight(tcb) : tcb->cwnd;
    return at_least_two(tcb, flight / 2);
}

static void newreno_acked(struct tcb *tcb, uint32_t acked_bytes, uint64_t now_us)
{
    (void)now_us;
    uint64_t grown = (uint64_t)tcb->mss * acked_bytes / tcb->cwnd;
    tcb->cwnd += grown > 0 ? (uint32_t)grown : 1;
}

/* Newton's method; for arguments from 0 to 1e6 a dozen steps from 1000 down are exact enough. */
static double cube_root(double value)
{
    double root = value > 1 ? value : 1;
    for (int step = 0; step < 48; step++)
        root = (2 * root + value / (root * root)) / 3;
    return root;
}

static uint32_t cubic_lost(struct tcb *tcb)
{
    struct cubic *cubic = &tcb->cubic;
    double window = tcb->cwnd;
    /* Fast convergence, RFC 9438 section 4.7. */
    cubic->w_max = window < cubic->w_max ? window * (1 + CUBIC_BETA) / 2 : window;
    cubic->epoch_us = 0;
    return at_least_two(tcb, (uint32_t)(window * CUBIC_BETA));
}

static void cubic_epoch(struct tcb *tcb, uint64_t now_us)
{
    struct cubic *cubic = &tcb->cubic;
    double window = tcb->cwnd;
    cubic->epoch_us = cubic->counted_us = now_us;
    cubic->w_est = window;
    if (cubic->w_max < window)
        cubic->w_max = window;
    cubic->k = cube_root((cubic->w_max - window) / tcb->mss / CUBIC_C);
}

/* Time in which the window was not used is no time of growth: the epoch moves on by it, RFC 9438 sections 4.2 and 5.8. */
static void cubic_unused(struct tcb *tcb, uint64_t now_us)
{
    struct cubic *cubic = &tcb->cubic;
    if (cubic->epoch_us == 0)
        return;
    cubic->epoch_us += now_us - cubic->counted_us;
    cubic->counted_us = now_us;
}

static void cubic_acked(struct tcb *tcb, uint32_t acked_bytes, uint64_t now_us)
{
    struct cubic *cubic = &tcb->cubic;
    const double alpha = 3 * (1 - CUBIC_BETA) / (1 + CUBIC_BETA);
    double window = tcb->cwnd;
    if (cubic->epoch_us == 0)
        cubic_epoch(tcb, now_us);
    cubic->counted_us = now_us;
    double t = (double)(now_us - cubic->epoch_us + tcb->srtt_us) / 1e6 - cubic->k;
    double target = cubic->w_max + CUBIC_C * t * t * t * tcb->mss;
    target = target > 1.5 * window ? 1.5 * window : target;
    /* The Reno-friendly region, RFC 9438 section 4.3. */
    double slope = cubic->w_est >= cubic->w_max ? 1 : alpha;
    cubic->w_est += slope * tcb->mss * acked_bytes / window;
    if (target < cubic->w_est)
        target = cubic->w_est;
    if (target > window)
        cubic->fraction += (target - window) * acked_bytes / window;
    else
        cubic->fraction += 0.01 * tcb->mss * acked_bytes / window;
    uint32_t whole = (uint32_t)cubic->fraction;
    cubic->fraction -= whole;
    tcb->cwnd += whole;
}

/* The small interface of an algorithm. */
struct algorithm {
    uint32_t (*lost)(struct tcb *tcb); /* the new ssthresh, in bytes; cwnd is still what it was */
    void (*acked)(struct tcb *tcb, uint32_t acked_bytes, uint64_t now_us); /* grows cwnd in congestion avoidance */
};

static const struct algorithm algorithms[] = {
    [CONGESTION_CUBIC] = {cubic_lost, cubic_acked},
    [CONGESTION_NEWRENO] = {newreno_lost, newreno_acked},
};

/* Slow start ends before loss when the RTT of a round has grown, RFC 9406 section 4.2. */
static void hystart_round(struct tcb *tcb)
{
    struct hystart *h = &tcb->hystart;
    if (h->samples >= HYSTART_SAMPLES && h->last_min_us != 0) {
        uint32_t threshold = h->last_min_us / 8;
        threshold = threshold < HYSTART_RTT_MIN_US ? HYSTART_RTT_MIN_US : threshold;
        threshold = threshold > HYSTART_RTT_MAX_US ? HYSTART_RTT_MAX_US : threshold;
        if (h->css_rounds == 0 && h->round_min_us >= h->last_min_us + threshold) {
            h->css_baseline_us = h->round_min_us;
            h->css_rounds = 1;
        } else if (h->css_rounds > 0 && h->round_min_us < h->css_baseline_us) {
            h->css_rounds = 0; /* it was jitter: on with slow start */
        }
    }
}

static void slow_start(const struct congestion *congestion, struct tcb *tcb, uint32_t acked_bytes)
{
    struct hystart *h = &tcb->hystart;
    uint32_t rtt_us = tcb->rack_rtt_us;
    if (rtt_us > 0) {
        h->samples++;
        if (h->round_min_us == 0 || rtt_us < h->round_min_us)
            h->round_min_us = rtt_us;
        hystart_round(tcb);
    }
    uint32_t most = congestion->pacing ? UINT32_MAX : HYSTART_SEGMENTS * (uint32_t)tcb->snd_mss;
    uint32_t growth = acked_bytes < most ? acked_bytes : most;
    tcb->cwnd += h->css_rounds > 0 ? growth / HYSTART_GROWTH_DIVISOR : growth;
    if (tcb->snd_una < h->round_end)
        return;
    if (h->css_rounds > 0 && ++h->css_rounds > HYSTART_ROUNDS)
        tcb->ssthresh = tcb->cwnd;
    h->round_end = tcb->snd_nxt;
    h->last_min_us = h->round_min_us;
    h->round_min_us = h->samples = 0;
}

void congestion_init(struct tcb *tcb)
{
    tcb->cwnd = initial_window(tcb->mss);
    tcb->ssthresh = UINT32_MAX;
}

void congestion_acked(const struct congestion *congestion, struct tcb *tcb, uint32_t acked_bytes, uint32_t flight,
                      uint64_t now_us)
{
    /* A window that the sender does not fill proves nothing, RFC 7661: grow only when it was used. */
    if (flight < tcb->cwnd / 2 || (flight + 4u * tcb->mss < tcb->cwnd && tcb->cwnd >= tcb->ssthresh)) {
        cubic_unused(tcb, now_us);
        return;
    }
    if (tcb->cwnd < tcb->ssthresh)
        slow_start(congestion, tcb, acked_bytes);
    else
        algorithms[congestion->algorithm].acked(tcb, acked_bytes, now_us);
}

/* RFC 5681 section 4.1: after a retransmission timeout's time without sending the path is not known any more. As Linux, half of
 * the window goes for each such time, down to the initial one, and ssthresh remembers most of it. */
static void restart_after_idle(struct tcb *tcb, uint64_t now_us)
{
    uint32_t restart = initial_window(tcb->mss);
    uint64_t idle_us = now_us - tcb->last_sent_us;
    uint32_t three_quarters = tcb->cwnd / 4 * 3;
    if (tcb->cwnd <= restart)
        return;
    if (tcb->ssthresh < three_quarters)
        tcb->ssthresh = three_quarters;
    for (; idle_us > tcb->rto_us && tcb->cwnd > restart; idle_us -= tcb->rto_us)
        tcb->cwnd /= 2;
    if (tcb->cwnd < restart)
        tcb->cwnd = restart;
}

void congestion_flight_begins(struct tcb *tcb, uint64_t now_us)
{
    cubic_unused(tcb, now_us);
    if (now_us - tcb->last_sent_us > tcb->rto_us && !tcb->in_recovery)
        restart_after_idle(tcb, now_us);
}

void congestion_lost(const struct congestion *congestion, struct tcb *tcb)
{
    tcb->ssthresh = algorithms[congestion->algorithm].lost(tcb);
    tcb->hystart.css_rounds = 0;
}
