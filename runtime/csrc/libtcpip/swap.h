/* Another image from some round on: a generation (frames/generation.h) is laid out beside what is served, by whoever swaps and off
 * the threads that serve; taken up between two rounds; and given back when nothing of it is needed any more. */
#ifndef SANDSTORM_SWAP_H
#define SANDSTORM_SWAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "app.h"
#include "image/image.h"

struct generation;

#define GENERATION_NEW 0 /* nobody has taken it up */
#define GENERATION_SERVED 1 /* from now on it must stay, with all that its image points to, until it is */
#define GENERATION_GONE 2
#define GENERATION_REFUSED 3 /* too many are still needed */

/* Why an image can't take the place of another while that is served, for an operator; NULL: it can. */
const char *generation_error(const struct image *now, const struct image *next);

/* Bytes that generation_init needs. has_arena: frames leave from an arena, as they do unless others carry the bytes. */
size_t generation_bytes(const struct tcpip_app *app, const struct image *image, bool has_arena);
/* Lays a generation out in memory (64-byte aligned, zeroed). Of the image only what it points to must outlive it. */
struct generation *generation_init(void *memory, const struct tcpip_app *app, const struct image *image,
                                   bool has_arena);
/* GENERATION_*. From any thread. */
uint32_t generation_state(const struct generation *generation);
/* Connections that still need it are to be reset. From any thread. */
void generation_end(struct generation *generation);

struct layout;
struct tcpip;

/* Lays out the generation that is there from the start, and makes it the newest. */
void generation_lay_out_first(struct tcpip *tcpip, struct layout *layout, const struct tcpip_app *app,
                              const struct image *image, bool has_arena);
void generation_init_first(struct tcpip *tcpip);

/* Between two rounds: what is asked for from now on is answered from this one, if there is a place for it. */
void tcpip_swap(struct tcpip *tcpip, struct generation *generation);
/* Connections that need another than the newest. From any thread. */
uint32_t tcpip_need_older(const struct tcpip *tcpip);
/* Looks whether older ones are still needed, at a few connections each time; to be called in each round while there are any. */
void tcpip_retire(struct tcpip *tcpip);

#endif
