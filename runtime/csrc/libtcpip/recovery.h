/* What to send again and when: SACK (RFC 2018), RACK-TLP (RFC 8985), PRR (RFC 6937), RTO (RFC 6298), NewReno's partial
 * ACKs for peers without SACK (RFC 6582), and the Eifel response (RFC 3522, RFC 4015) when it was in vain. Nothing is kept
 * for it but positions and times, since every byte can be made again from the image. */
#ifndef SANDSTORM_RECOVERY_H
#define SANDSTORM_RECOVERY_H

#include "state.h"

/* An acceptable ACK, before snd_una moves to it. repeated: nothing is new in it but perhaps SACK blocks, so that it is a
 * duplicate in RFC 5681's sense if something is in flight. */
void recovery_ack(struct tcpip *tcpip, struct tcb *tcb, const struct tcp_segment *segment, uint64_t ack,
                  bool repeated);
void recovery_timeout(struct tcpip *tcpip, struct tcb *tcb);
/* An upper bound, before any sample. */
void recovery_rtt_guess(struct tcb *tcb, uint64_t rtt_us);
/* Bytes in flight by RFC 8985's reckoning. */
uint32_t recovery_pipe(const struct tcb *tcb);
/* Sets the connection's timer for what is due first; restart: the retransmission timeout begins again. */
void recovery_arm(struct tcpip *tcpip, struct tcb *tcb, bool restart);
/* After an ACK without progress. */
void recovery_rearm(struct tcpip *tcpip, struct tcb *tcb);
/* Starts the persist timer. */
void recovery_persist(struct tcpip *tcpip, struct tcb *tcb);
void recovery_disarm(struct tcb *tcb);

#endif
