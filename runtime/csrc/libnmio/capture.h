/* A capture of what ports receive and send: a port around a port, which copies frames into a ring in memory, and a writer
 * in another thread, which makes a pcapng file of them. A worker never waits for the disk: a frame for which the ring has
 * no room is counted as dropped.
 *
 *   worker ── captured port ── port         struct nmio_port both
 *                  │ ring, one producer and one consumer
 *               capture_drain ── file
 *
 * A frame sent is captured when it is given to the port, a superframe as the one large frame that it is. Checksums that are
 * left to others (of superframes, and of received frames that a local sender or the NIC vouches for) are finished in the
 * copy, if it is whole. */
#ifndef SANDSTORM_CAPTURE_H
#define SANDSTORM_CAPTURE_H

#include "nmio.h"

#define CAPTURE_SNAP_BYTES_MAX 262144 /* as tcpdump has it: longer than any frame */
#define CAPTURE_RING_BYTES_MIN 4096

struct capture;

/* Makes the file, or empties it if there is one. snap_bytes: what is kept of each frame, 1 to CAPTURE_SNAP_BYTES_MAX.
 * application: its name, for the file's header. Returns 0 or -errno. */
int capture_open(struct capture **capture, const char *path, uint32_t snap_bytes, const char *application);

/* A port that does what port does, and captures. Everything has to be added before the first frame. ring_bytes: room for
 * frames on their way to the file, CAPTURE_RING_BYTES_MIN at least. name and description: of the interface, in the file. *captured is
 * gone with the capture; its close() does nothing, and port is the caller's as before. Returns 0 or -errno. */
int capture_add(struct capture *capture, struct nmio_port *port, uint64_t ring_bytes, const char *name,
                const char *description, struct nmio_port **captured);

/* Writes what the rings hold, earlier frames first, and flushes the file. From one thread at a time, any. Returns the number of frames,
 * or -errno: then nothing more is written. -EBADMSG: a ring holds what no worker writes. */
int64_t capture_drain(struct capture *capture);

/* Frames in the file, and those that a ring had no room for; from any thread. */
uint64_t capture_written(const struct capture *capture);
uint64_t capture_dropped(const struct capture *capture);

/* Drains and writes how many frames were dropped. No worker may run any more. Returns 0 or -errno, also of what failed
 * before. */
int capture_finish(struct capture *capture);

/* Finishes and frees everything. Returns 0 or -errno. */
int capture_close(struct capture *capture);

#endif
