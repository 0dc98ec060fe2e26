/* loadgen's command line. */
#ifndef LOADGEN_OPTIONS_H
#define LOADGEN_OPTIONS_H

#include "client.h"

struct options {
    const char *interface, *pcap_path, *host;
    bool afxdp; /* else AF_PACKET */
    bool busy_poll, has_mac, marks;
    double seconds, warmup_seconds;
    uint64_t pcap_frames;
    struct target *targets;
    struct client_config client; /* all but the MACs, unless given */
};

/* Ends the program with a message, and with 2. */
_Noreturn void stop(const char *format, ...) __attribute__((format(printf, 1, 2)));

void options_take(struct options *options, int argc, char **argv);

#endif
