/* A sample of the frames, both ways, as a pcap file. */
#ifndef LOADGEN_CAPTURE_H
#define LOADGEN_CAPTURE_H

#include <stdint.h>
#include <stdio.h>

struct capture {
    FILE *file; /* NULL: none, or no more */
    uint64_t left; /* frames */
    int64_t epoch_ns; /* the wall's clock less ours */
};

/* 0, or -errno. */
int capture_open(struct capture *capture, const char *path, uint64_t frames, uint64_t now_ns);

void capture_add(struct capture *capture, const uint8_t *frame, uint32_t len_bytes, uint64_t now_ns);

/* 0, or -errno: not all could be written. */
int capture_close(struct capture *capture);

#endif
