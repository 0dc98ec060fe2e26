/* The worker: one port, one stack, one thread. The only place that reads clocks. */
#ifndef SANDSTORM_LOOP_H
#define SANDSTORM_LOOP_H

#include "libnmio/nmio.h"
#include "stack.h"
#include "wake.h"

struct worker;

/* A worker over an open port; port, image and what they stand on must outlive it. Returns NULL without memory, or if
 * the configuration is out of bounds. */
struct worker *worker_create(const struct stack_config *config, const struct image *image, struct nmio_port *port,
                             enum wake_preference preference);
void worker_destroy(struct worker *worker);

/* The process that ran it has ended without a word, and another one will run it, which is forked next: with memory of its own, into which
 * it takes over what goes on of the connections there (stack_resume). config and image: as if it were created now. False, and nothing
 * has changed: without memory. */
bool worker_restart(struct worker *worker, const struct stack_config *config, const struct image *image);
/* Has it done that? */
bool worker_resumed(const struct worker *worker);
/* The memory of the one before is given back, in this process; without worker_resumed its connections are lost. Until then
 * worker_restart can be tried again. */
void worker_forget(struct worker *worker);
/* After worker_restart: nmio_port_ops.reopen. 0 or -errno. */
int worker_port_reopen(struct worker *worker);

/* Before it runs: it goes on with connections that another build has left, as records, which must stay until worker_resumed or
 * worker_forget. 8-byte aligned. */
void worker_take_over(struct worker *worker, const uint8_t *records, uint64_t len_bytes);
/* Has it end and leave its connections as records, of worker_records_bytes at most; in the process that runs it, from any thread. memory:
 * 8-byte aligned, zeroed. */
void worker_leave(struct worker *worker, uint8_t *memory);
uint64_t worker_records_bytes(const struct worker *worker);

/* Serves until worker_stop, and then resets connections that are unfinished (stack_unfinished). Returns 0, or -errno of the
 * port. */
int worker_run(struct worker *worker);

/* One round without sleeping; frames received, or -errno. */
int worker_round(struct worker *worker);

/* From any thread or signal handler. */
void worker_stop(struct worker *worker);
/* Ends idle connections, finishes the others, accepts no more (stack_drain). */
void worker_drain(struct worker *worker);
/* Connections that are unfinished; UINT32_MAX: worker_drain has not been taken up yet. From any thread. */
uint32_t worker_unfinished(const struct worker *worker);

/* Another worker has asked the link, and the addresses are ours (ETH_ACD_FOLLOW). */
void worker_addresses_confirmed(struct worker *worker);

/* The interface has changed: the worker's stack learns of it in its next round. False while the change before this is not
 * taken up yet; worker_link_taken says when this one is. From one thread. */
bool worker_link_change(struct worker *worker, const struct stack_link *link);
bool worker_link_taken(const struct worker *worker);

/* The descriptors that it uses while it runs, into fds, which has room for WORKER_FDS; how many there are. */
#define WORKER_FDS 2
uint32_t worker_fds(const struct worker *worker, int *fds);

/* Hands over a generation, for the worker to take up in its next round (stack_swap). False while the one before this is not taken up
 * yet. From one thread. */
bool worker_swap(struct worker *worker, struct generation *generation);

/* How often the process that runs it has taken up another image, which is known by its word only: for worker_restart. */
void worker_swapped(struct worker *worker, uint32_t swaps);

/* Has it go round once at least, though nothing comes. */
void worker_poke(struct worker *worker);

/* What there is to read of it from any thread, and from the process that it was made in when another runs it. */
struct stack *worker_stack(const struct worker *worker);
const struct stack_view *worker_view(const struct worker *worker);
/* As they were at the end of the last round. */
const struct nmio_port_counters *worker_port_counters(const struct worker *worker);
/* How it has waited, wake.h. From any thread. */
const struct wake *worker_wake(const struct worker *worker);
/* Bytes that the stack was laid out in. */
uint64_t worker_memory_bytes(const struct worker *worker);

void nmio_port_close(struct nmio_port *port);

#endif
