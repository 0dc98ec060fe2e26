/* Gives the web a request's head as it grows, piece by piece, as libtcpip does with one that comes in many segments: what a
 * segment more costs behind all that came before. No TCP is in it.
 *
 *   heads HEAD_BYTES PIECE_BYTES LINE_BYTES IMAGE
 *
 * LINE_BYTES: of each field's line, at least 6. Prints how many answers were begun, which is 1. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arguments.h"
#include "image_file.h"
#include "libtcpip/swap.h"
#include "web/state.h"
#include "web/web.h"

static const char first_lines[] = "GET /0 HTTP/1.1\r\nHost: a\r\n";
#define WEB_BYTES (4u << 20) /* for what the web keeps */
#define FIRST_BYTES (sizeof(first_lines) - 1)

/* A head of so many bytes, but for the last line, which fills it up. */
static uint8_t *head_of(uint32_t head_bytes, uint32_t line_bytes)
{
    uint8_t *head = malloc(head_bytes);
    uint32_t at = FIRST_BYTES;
    if (head == NULL || head_bytes < FIRST_BYTES + 8 || line_bytes < 6)
        stop("an argument is out of bounds");
    memset(head, 'a', head_bytes);
    memcpy(head, first_lines, FIRST_BYTES);
    while (at < head_bytes - 2) {
        uint32_t left = head_bytes - 2 - at, bytes = left < line_bytes + 6 ? left : line_bytes;
        memcpy(head + at, "X:", 2);
        memcpy(head + at + bytes - 2, "\r\n", 2);
        at += bytes;
    }
    memcpy(head + at, "\r\n", 2);
    return head;
}

/* In a function of its own so that callgrind can count it alone. */
__attribute__((noipa)) uint32_t take_piece(struct tcpip *tcpip, struct tcb *tcb, const uint8_t *head,
                                           uint32_t len_bytes)
{
    return web_app.receive(tcpip, tcb, head, len_bytes);
}

int main(int argc, char **argv)
{
    static struct image_file file;
    if (argc != 5)
        stop("usage: heads HEAD_BYTES PIECE_BYTES LINE_BYTES IMAGE");
    uint32_t head_bytes = (uint32_t)strtoul(argv[1], NULL, 10), piece_bytes = (uint32_t)strtoul(argv[2], NULL, 10);
    const uint8_t *head = head_of(head_bytes, (uint32_t)strtoul(argv[3], NULL, 10));
    image_file_open(&file, argv[4]);
    struct tcpip *tcpip = calloc(1, sizeof(*tcpip));
    struct tcb *tcb = aligned_alloc(64, sizeof(*tcb));
    if (tcpip == NULL || tcb == NULL || piece_bytes == 0)
        stop("no memory, or no pieces");
    memset(tcb, 0, sizeof(*tcb));
    struct layout layout = {aligned_alloc(64, WEB_BYTES), 0};
    memset(layout.base, 0, WEB_BYTES);
    tcpip->app_state = web_app.lay_out(&layout, NULL);
    generation_lay_out_first(tcpip, &layout, &web_app, &file.image, false);
    if (layout.used_bytes > WEB_BYTES)
        stop("the image has more responses than there is room for");
    generation_init_first(tcpip);
    web_app.init(tcpip->app_state, tcpip, NULL);
    web_app.swapped(tcpip->app_state);
    ready_init(&tcpip->ready, tcb);
    tcb_few_slices(tcb);
    uint32_t taken = 0;
    for (uint32_t len = piece_bytes; taken == 0 && len < head_bytes + piece_bytes; len += piece_bytes)
        taken = take_piece(tcpip, tcb, head, len < head_bytes ? len : head_bytes);
    printf("%u\n", tcb->slice_count);
    return taken == head_bytes && tcb->slice_count == 1 ? 0 : 1;
}
