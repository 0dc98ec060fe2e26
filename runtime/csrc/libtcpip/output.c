#include "output.h"

#include "frame_walk.h"
#include "header.h"
#include "libnmio/invariant.h"
#include "recovery.h"
#include "wire/checksum.h"
#include "wire/probe.h"
#include "wire/seq.h"

#define SACK_BLOCKS_MAX 4 /* without timestamps; with them one fewer, RFC 2018 section 3 */
#define PREFETCH_AHEAD 4 /* frames of a run */

/* A segment or superframe about to be sent. */
struct outgoing {
    uint64_t position; /* of its first byte */
    uint32_t mss; /* payload of one segment of a superframe */
    struct header_fields fields;
};

/* What the header says from here on: new data can be marked by routers; what is sent again and segments without data can't, RFC
 * 3168 sections 6.1.4 and 6.1.5. */
static void ect_set(struct tcb *tcb, bool ect)
{
    if (!tcb->ecn || tcb->ect == ect)
        return;
    uint8_t *ip = tcb->header + sizeof(struct wire_eth);
    tcb->ect = ect;
    if (tcb->flow.family == IP_FAMILY_V4) {
        ip[1] = ect ? IP_ECN_ECT0 : 0;
        tcb->ip_sum = checksum_sum(ip, sizeof(struct wire_ipv4));
    } else {
        ip[1] = ect ? IP_ECN_ECT0 << 4 : 0;
    }
}

/* What our segments say of what we have received, the peer now hears. */
static void acknowledged(struct tcb *tcb)
{
    tcb->last_ack_sent = tcb->rcv_nxt;
    tcb->ack_now = false;
}

/* What is the same in the descriptors of all frames with a header. */
static struct nmio_tx_desc descriptor_of(const struct nmio_tx *tx, const struct header *header)
{
    return (struct nmio_tx_desc){.first_piece = tx->piece_count,
                                 .l3_offset = sizeof(struct wire_eth),
                                 .l4_offset = (uint16_t)(sizeof(struct wire_eth) + header->ip_bytes),
                                 .ipv6 = header->ip_bytes == sizeof(struct wire_ipv6)};
}

static void describe(struct nmio_tx_desc *desc, const struct nmio_tx_desc *like, uint8_t *frame, uint32_t head_bytes,
                     uint32_t chunk)
{
    *desc = *like;
    desc->head = frame;
    desc->head_bytes = head_bytes;
    desc->chunk = chunk;
}

/* Descriptors from tx->count on have been written. */
static void enqueue(struct nmio_tx *tx, uint32_t count)
{
    INVARIANT(count <= tx->space);
    tx->count += count;
    tx->space -= count;
}

/* Headers in front of payload in a chunk, with room for option_bytes behind the timestamps, and there_bytes of payload that lie there too: all of a segment's, none of a
 * superframe's. */
static struct nmio_tx_desc *send_one(struct tcpip *tcpip, struct tcb *tcb, uint8_t *payload, uint32_t there_bytes,
                                     uint32_t option_bytes, uint32_t chunk, const struct header_fields *fields)
{
    struct header header;
    header_prepare(tcpip, tcb, &header);
    header.tcp_bytes += option_bytes;
    uint8_t *head = header_put(&header, payload, fields);
    acknowledged(tcb);
    struct nmio_tx_desc like = descriptor_of(tcpip->tx, &header);
    like.checksum_partial = fields->partial;
    struct nmio_tx_desc *desc = &tcpip->tx->desc[tcpip->tx->count];
    describe(desc, &like, head, (uint32_t)(payload - head) + there_bytes, chunk);
    enqueue(tcpip->tx, 1);
    return desc;
}

static void count_payload(struct tcpip *tcpip, struct tcb *tcb, uint64_t position, uint32_t payload_bytes,
                          uint32_t segments)
{
    PROBE(tcpip_output, tcb, position, tcb->snd_nxt, payload_bytes, segments);
    COUNT_BY(tcpip, tcp_tx_segments, segments);
    COUNT_BY(tcpip, tcp_tx_payload_bytes, payload_bytes);
    if (position < tcb->snd_nxt) {
        COUNT_BY(tcpip, tcp_retransmit_segments, segments);
        tcb->resent_segments += segments;
    }
}

/* Has the application write into such a frame. Never inline: most frames are none, and what they need stays in registers. */
__attribute__((noinline)) static uint64_t patch(const struct tcpip *tcpip, const struct response_slice *slice,
                                                uint32_t frame_index, uint8_t *payload)
{
    return tcpip->app->patch(tcpip, slice, 0, payload,
                             slice_generation(tcpip, slice)->image.frames[frame_index].payload_bytes);
}

/* A buffer with a copy of a frame's payload. */
static uint32_t copied_frame(struct tcpip *tcpip, const struct image *image, uint32_t frame_index)
{
    uint32_t chunk = eth_buffer(tcpip->eth);
    if (chunk != NMIO_NONE)
        memcpy(nmio_chunk(tcpip->region, chunk) + SSI_PAYLOAD_OFFSET, image_payload(image, frame_index),
               image->frames[frame_index].payload_bytes);
    return chunk;
}

/* Where a prebuilt frame leaves from if that is not a slot of its own: a spare one; or a copy, to compare with. */
__attribute__((noinline)) static uint32_t other_chunk(struct tcpip *tcpip, const struct response_slice *slice,
                                                      uint32_t frame_index)
{
    struct generation *generation = slice_generation(tcpip, slice);
    return tcpip->config.tx_memcpy ? copied_frame(tcpip, &generation->image, frame_index)
                                   : arena_acquire_spare(&tcpip->arena, generation, frame_index);
}

/* Where a prebuilt frame leaves from. places: of its generation. */
static inline uint32_t prebuilt_chunk(struct tcpip *tcpip, const struct response_slice *slice,
                                      struct arena_frame *places, uint32_t frame_index)
{
    uint32_t chunk = tcpip->config.tx_memcpy ? NMIO_NONE : arena_acquire_own(&tcpip->arena, places, frame_index);
    return chunk != NMIO_NONE ? chunk : other_chunk(tcpip, slice, frame_index);
}

/* Of a segment that ends at a position: PSH at the end of a response, or an odd last segment waits for the peer's delayed
 * ACK; FIN with the last one, but sent again without it while that has not been sent yet. */
static uint8_t flags_of(const struct tcb *tcb, const struct response_slice *slice, uint64_t position, uint64_t end)
{
    uint8_t flags = end == slice->end ? TCP_ACK | TCP_PSH : TCP_ACK;
    if (tcb->fin_queued && end == tcb->snd_end && (position == tcb->snd_nxt || tcb->snd_nxt > tcb->snd_end))
        flags |= TCP_FIN;
    return flags;
}

/* Prebuilt frames from a position on, in place: nothing of a payload is read. Those that are whole within max_bytes and the
 * MSS; the first one is. Returns their payload's bytes; 0: no slot is free. */
static uint32_t send_prebuilt(struct tcpip *tcpip, struct tcb *tcb, const struct response_slice *slice,
                              uint64_t position, uint32_t frame_index, uint32_t max_bytes)
{
    const struct ssi_frame *frames = slice_generation(tcpip, slice)->image.frames;
    struct arena_frame *places = slice_generation(tcpip, slice)->frames;
    uint64_t left = slice->end - position;
    uint32_t sent = 0, first = frame_index, mss = tcb->snd_mss, segment_bytes = tcpip->segment_bytes;
    struct header header;
    max_bytes = max_bytes < left ? max_bytes : (uint32_t)left;
    for (uint32_t ahead = 0; ahead < PREFETCH_AHEAD && ahead * segment_bytes < max_bytes; ahead++)
        arena_prefetch(&tcpip->arena, places, frame_index + ahead);
    header_prepare(tcpip, tcb, &header);
    const struct nmio_tx_desc like = descriptor_of(tcpip->tx, &header);
    struct nmio_tx_desc *desc = &tcpip->tx->desc[tcpip->tx->count];
    const struct nmio_tx_desc *end = desc + tcpip->tx->space;
    for (; desc < end && sent < max_bytes; frame_index++) {
        uint32_t bytes = frames[frame_index].payload_bytes;
        if (bytes > max_bytes - sent || bytes > mss)
            break;
        if (sent + PREFETCH_AHEAD * segment_bytes < max_bytes)
            arena_prefetch(&tcpip->arena, places, frame_index + PREFETCH_AHEAD);
        uint32_t chunk = prebuilt_chunk(tcpip, slice, places, frame_index);
        if (chunk == NMIO_NONE)
            break;
        uint8_t *payload = nmio_chunk(tcpip->region, chunk) + SSI_PAYLOAD_OFFSET;
        uint8_t flags = sent + bytes < left ? TCP_ACK : flags_of(tcb, slice, position, slice->end);
        struct header_fields fields = {(uint32_t)position + sent, bytes, frames[frame_index].payload_sum, flags,
                                       false};
        if (sent == 0 && is_patched(frames, slice, frame_index)) /* a response's first is the first here */
            fields.payload_sum += patch(tcpip, slice, frame_index, payload);
        uint8_t *head = header_put(&header, payload, &fields);
        header.ecn_flags &= (uint8_t)~TCP_CWR;
        describe(desc++, &like, head, (uint32_t)(payload - head) + bytes, chunk);
        sent += bytes;
    }
    if (sent == 0)
        return 0;
    enqueue(tcpip->tx, frame_index - first);
    acknowledged(tcb);
    count_payload(tcpip, tcb, position, sent, frame_index - first);
    return sent;
}

void tcpip_copy(struct tcpip *tcpip, const struct response_slice *slice, uint64_t offset, uint8_t *dst, uint32_t len)
{
    if (is_composed(slice)) {
        memcpy(dst, composed_bytes(&tcpip->composed, slice->first_frame) + offset, len);
        return;
    }
    struct frame_part part = frame_part_first(tcpip, slice, offset, len);
    bool patched = is_patched(part.image->frames, slice, part.frame_index);
    uint8_t *at = dst;
    for (; part.bytes > 0; frame_part_next(&part)) {
        memcpy(at, image_payload(part.image, part.frame_index) + part.within, part.bytes);
        at += part.bytes;
    }
    if (patched)
        tcpip->app->patch(tcpip, slice, offset, dst, len);
}

/* A segment that is no prebuilt frame: the slow path. */
static bool send_resegmented(struct tcpip *tcpip, struct tcb *tcb, const struct response_slice *slice,
                             struct outgoing *out)
{
    uint32_t chunk = eth_buffer(tcpip->eth);
    if (chunk == NMIO_NONE)
        return false;
    uint8_t *payload = nmio_chunk(tcpip->region, chunk) + SSI_PAYLOAD_OFFSET;
    tcpip_copy(tcpip, slice, stream_offset(slice, out->position), payload, out->fields.payload_bytes);
    out->fields.payload_sum = checksum_sum(payload, out->fields.payload_bytes);
    send_one(tcpip, tcb, payload, out->fields.payload_bytes, 0, chunk, &out->fields);
    COUNT(tcpip, tcp_tx_resegmented);
    return true;
}

/* Adds the payload of one frame, or a part of it, to the superframe. False: no slot is free. */
static bool add_piece(struct tcpip *tcpip, const struct response_slice *slice, const struct frame_part *part)
{
    struct nmio_piece piece = {image_payload(part->image, part->frame_index) + part->within, part->bytes, NMIO_NONE};
    if (is_patched(part->image->frames, slice, part->frame_index)) {
        uint32_t chunk = arena_acquire(&tcpip->arena, slice_generation(tcpip, slice), part->frame_index);
        if (chunk == NMIO_NONE)
            return false;
        uint8_t *payload = nmio_chunk(tcpip->region, chunk) + SSI_PAYLOAD_OFFSET;
        patch(tcpip, slice, part->frame_index, payload);
        piece = (struct nmio_piece){payload + part->within, part->bytes, chunk};
    }
    tcpip->tx->piece[tcpip->tx->piece_count++] = piece;
    return true;
}

static uint32_t pieces_of(const struct tcpip *tcpip, const struct response_slice *slice, const struct outgoing *out)
{
    uint32_t segment_bytes = tcpip->segment_bytes;
    uint64_t offset = stream_offset(slice, out->position);
    return (uint32_t)((offset + out->fields.payload_bytes - 1) / segment_bytes - offset / segment_bytes) + 1;
}

/* Up to gather_max segments behind one header. */
static bool send_superframe(struct tcpip *tcpip, struct tcb *tcb, const struct response_slice *slice,
                            struct outgoing *out)
{
    struct nmio_tx *tx = tcpip->tx;
    uint32_t pieces = pieces_of(tcpip, slice, out);
    if (tx->piece_count + pieces > tx->piece_capacity)
        return false;
    uint32_t chunk = eth_buffer(tcpip->eth);
    if (chunk == NMIO_NONE)
        return false;
    uint32_t first_piece = tx->piece_count;
    struct frame_part part =
        frame_part_first(tcpip, slice, stream_offset(slice, out->position), out->fields.payload_bytes);
    for (; part.bytes > 0; frame_part_next(&part)) {
        if (!add_piece(tcpip, slice, &part)) {
            tx->piece_count = first_piece; /* only the first piece can have failed: it alone is patched */
            nmio_release(tcpip->region, chunk);
            return false;
        }
    }
    out->fields.partial = true;
    uint8_t *end = nmio_chunk(tcpip->region, chunk) + SSI_PAYLOAD_OFFSET;
    struct nmio_tx_desc *desc = send_one(tcpip, tcb, end, 0, 0, chunk, &out->fields);
    desc->first_piece = first_piece;
    desc->piece_count = (uint16_t)pieces;
    desc->gso_bytes = (uint16_t)(out->fields.payload_bytes > out->mss ? out->mss : 0);
    COUNT(tcpip, tcp_tx_superframes);
    return true;
}

/* The slice that holds a position in [snd_una, snd_end). */
static const struct response_slice *slice_at(const struct tcb *tcb, uint64_t position)
{
    uint32_t i = 0;
    while (i + 1u < tcb->slice_count && position >= tcb_slice(tcb, i)->end)
        i++;
    return tcb_slice(tcb, i);
}

/* Most payload of one segment or superframe from a position on: ends with its slice, and where the port gathers nothing
 * with the frame, so that the next one is a prebuilt frame again (unless the path takes none whole). */
static uint32_t send_size(const struct tcpip *tcpip, const struct tcb *tcb, const struct response_slice *slice,
                          uint64_t position, uint32_t max_bytes)
{
    uint32_t segment_bytes = tcpip->segment_bytes;
    uint32_t size = tcb->snd_mss;
    uint64_t bytes = (uint64_t)size * tcpip->config.gather_max;
    bytes = bytes < 65000 ? bytes : 65000 / size * size; /* the IP header counts to 65,535 */
    if (tcpip->config.gather_max == 1 && size == segment_bytes)
        bytes = segment_bytes - stream_offset(slice, position) % segment_bytes;
    bytes = bytes < max_bytes ? bytes : max_bytes;
    return (uint32_t)(bytes < slice->end - position ? bytes : slice->end - position);
}

/* A segment of a response that lies in a buffer. What may be given back while the port still reads it is never sent in place. */
__attribute__((noinline)) static uint32_t send_composed(struct tcpip *tcpip, struct tcb *tcb,
                                                        const struct response_slice *slice, uint64_t position,
                                                        uint32_t max_bytes)
{
    uint64_t left = slice->end - position;
    uint32_t bytes = tcb->snd_mss < max_bytes ? tcb->snd_mss : max_bytes;
    bytes = bytes < left ? bytes : (uint32_t)left;
    struct outgoing out = {.position = position, .mss = tcb->snd_mss};
    out.fields = (struct header_fields){
        .seq = (uint32_t)position, .payload_bytes = bytes, .flags = flags_of(tcb, slice, position, position + bytes)};
    if (!send_resegmented(tcpip, tcb, slice, &out))
        return 0;
    count_payload(tcpip, tcb, position, bytes, 1);
    return bytes;
}

/* Sends a superframe, a segment or a run of prebuilt frames from a position on. Returns its payload's bytes; 0: there was no
 * space. */
static uint32_t send_at(struct tcpip *tcpip, struct tcb *tcb, const struct response_slice *slice, uint64_t position,
                        uint32_t max_bytes)
{
    if (tcpip->tx->space == 0)
        return 0;
    if (is_composed(slice))
        return send_composed(tcpip, tcb, slice, position, max_bytes);
    uint32_t segment_bytes = tcpip->segment_bytes;
    uint32_t bytes = send_size(tcpip, tcb, slice, position, max_bytes);
    uint64_t offset = stream_offset(slice, position);
    uint32_t frame_index = slice->first_frame + (uint32_t)(offset / segment_bytes);
    bool whole = offset % segment_bytes == 0 &&
                 slice_generation(tcpip, slice)->image.frames[frame_index].payload_bytes == bytes;
    if (tcpip->config.gather_max == 1 && whole)
        return send_prebuilt(tcpip, tcb, slice, position, frame_index, max_bytes);
    struct outgoing out = {.position = position, .mss = tcb->snd_mss};
    out.fields = (struct header_fields){
        .seq = (uint32_t)position, .payload_bytes = bytes, .flags = flags_of(tcb, slice, position, position + bytes)};
    if (tcpip->config.gather_max > 1 ? !send_superframe(tcpip, tcb, slice, &out)
                                     : !send_resegmented(tcpip, tcb, slice, &out))
        return 0;
    count_payload(tcpip, tcb, position, bytes, (bytes + out.mss - 1) / out.mss);
    return bytes;
}

/* A segment without payload, with so many words of options behind the timestamps. False: there was no space. */
static bool send_with_options(struct tcpip *tcpip, struct tcb *tcb, struct header_fields fields,
                              const uint32_t *words, uint32_t count)
{
    uint32_t chunk = eth_buffer(tcpip->eth);
    if (chunk == NMIO_NONE)
        return false;
    uint32_t option_bytes = count * (uint32_t)sizeof(*words);
    uint8_t *end = nmio_chunk(tcpip->region, chunk) + SSI_PAYLOAD_OFFSET + option_bytes;
    ect_set(tcb, false);
    fields.payload_sum = checksum_sum(words, option_bytes); /* of what the headers do not fill in */
    send_one(tcpip, tcb, end, 0, option_bytes, chunk, &fields);
    memcpy(end - option_bytes, words, option_bytes);
    return true;
}

/* A segment without payload. False: there was no space. */
static bool send_bare(struct tcpip *tcpip, struct tcb *tcb, uint64_t position, uint8_t flags)
{
    const uint32_t none = 0;
    return send_with_options(tcpip, tcb, (struct header_fields){.seq = (uint32_t)position, .flags = flags}, &none, 0);
}

/* What RFC 2018 section 4 and RFC 2883 section 4 want the peer to hear: what has come twice, then what came ahead, the latest
 * first, as far as the options go. Returns how many words of 32 bits. */
static uint32_t sack_option(const struct tcpip *tcpip, struct tcb *tcb, uint32_t words[1 + 2 * SACK_BLOCKS_MAX])
{
    uint32_t most = tcb->timestamps ? SACK_BLOCKS_MAX - 1 : SACK_BLOCKS_MAX, count = 0;
    if (!tcb->sack)
        return 0;
    if (tcb->dsack.start != tcb->dsack.end) {
        words[1] = be32(tcb->dsack.start);
        words[2] = be32(tcb->dsack.end);
        count = 1;
    }
    if (tcb->buffer != TCB_NONE) {
        const struct receive_buffer *buffer = &tcpip->buffers.buffers[tcb->buffer];
        for (uint32_t i = 0; i < buffer->range_count && count < most; i++, count++) {
            words[1 + 2 * count] = be32(buffer->ranges[i].start);
            words[2 + 2 * count] = be32(buffer->ranges[i].end);
        }
    }
    words[0] = be32((uint32_t)TCP_OPTION_NOP << 24 | TCP_OPTION_NOP << 16 | TCP_OPTION_SACK << 8 | (2 + 8 * count));
    return count > 0 ? 1 + 2 * count : 0;
}

void tcp_send_ack(struct tcpip *tcpip, struct tcb *tcb)
{
    uint32_t words[1 + 2 * SACK_BLOCKS_MAX];
    uint32_t count = sack_option(tcpip, tcb, words);
    tcb->dsack.end = tcb->dsack.start;
    struct header_fields fields = {.seq = (uint32_t)tcb->snd_nxt, .flags = TCP_ACK};
    if (send_with_options(tcpip, tcb, fields, words, count))
        COUNT(tcpip, tcp_tx_acks);
}

/* A sequence number that the peer has long acknowledged makes it say its window again, RFC 9293 section 3.8.6.1. */
void tcp_send_probe(struct tcpip *tcpip, struct tcb *tcb)
{
    COUNT(tcpip, tcp_window_probes);
    send_bare(tcpip, tcb, tcb->snd_una - 1, TCP_ACK);
}

void tcp_send_rst(struct tcpip *tcpip, struct tcb *tcb)
{
    if (send_bare(tcpip, tcb, tcb->snd_nxt, TCP_RST | TCP_ACK))
        COUNT(tcpip, tcp_tx_rst);
}

static void fin_sent(struct tcb *tcb)
{
    tcb->snd_nxt = tcb->snd_end + 1;
    if (tcb->state == TCP_ESTABLISHED)
        tcp_state_set(tcb, TCP_FIN_WAIT_1);
    else if (tcb->state == TCP_CLOSE_WAIT)
        tcp_state_set(tcb, TCP_LAST_ACK);
}

/* Bytes per second at which a window is spread over the round trip: faster than it, as ACKs come late. The factors are
 * Linux's, sysctl tcp_pacing_ss_ratio and tcp_pacing_ca_ratio. */
static uint64_t pace_bytes_s(const struct tcb *tcb)
{
    uint32_t percent = tcb->cwnd < tcb->ssthresh / 2 ? 200 : 120;
    return (uint64_t)tcb->cwnd * percent * 10000 / tcb->srtt_us;
}

/* Most that may go at once; 0: not yet, and the timer is set for when. */
static uint32_t pace_allows(struct tcpip *tcpip, struct tcb *tcb)
{
    if (!tcpip->config.pacing || tcb->srtt_us == 0)
        return TCB_SEND_BYTES_MAX;
    if (tcb->pace_at_us > tcpip->now_us && !tcb->tlp_now) {
        tcb->paced = true;
        timer_update(&tcpip->wheel, tcb);
        return 0;
    }
    if (tcpip->config.gather_max == 1)
        return tcb->snd_mss; /* frame by frame */
    uint64_t a_tick = pace_bytes_s(tcb) * TIMER_TICK_US / 1000000;
    uint32_t least = 2 * tcb->snd_mss;
    return a_tick > least ? (uint32_t)a_tick : least;
}

/* So many bytes have gone. What a late timer has cost is made good, up to a tick of it. */
static void spend(const struct tcpip *tcpip, struct tcb *tcb, uint32_t sent_bytes)
{
    tcb->turn_bytes -= (int32_t)sent_bytes;
    if (!tcpip->config.pacing || tcb->srtt_us == 0)
        return;
    uint64_t earliest_us = tcpip->now_us - TIMER_TICK_US;
    uint64_t from_us = tcb->pace_at_us > earliest_us ? tcb->pace_at_us : earliest_us;
    tcb->pace_at_us = from_us + sent_bytes * 1000000ull / (pace_bytes_s(tcb) + 1);
}

/* Notes that [snd_nxt, end) has been sent, and the FIN behind it if that went along. A round trip is that of the first
 * segment's. */
static void advance(struct tcpip *tcpip, struct tcb *tcb, uint64_t end)
{
    uint64_t start = tcb->snd_nxt;
    tcb->last_sent_us = tcpip->now_us;
    if (tcb->rtt_end == 0 && !tcb->in_recovery) {
        uint64_t first_end = start + tcb->snd_mss;
        tcb->rtt_end = tcpip->config.gather_max == 1 && first_end < end ? first_end : end;
        tcb->rtt_sent_us = tcpip->now_us;
    }
    tcb->snd_nxt = end;
    if (tcb->fin_queued && end == tcb->snd_end)
        fin_sent(tcb);
    tcb->prr_out += (uint32_t)(end - start);
    scoreboard_sent(tcb, (uint32_t)start, (uint32_t)tcb->snd_nxt, (uint32_t)tcpip->now_us);
}

/* Sends [start, start + data_bytes) again, or as much of it as room and pacing let go. The bytes that went; 0: space ran out, or
 * *paced: it is not their time yet. */
static uint32_t send_again(struct tcpip *tcpip, struct tcb *tcb, uint64_t start, uint32_t data_bytes, uint32_t room,
                           bool *paced)
{
    uint32_t allowed = pace_allows(tcpip, tcb), mss = tcb->snd_mss;
    *paced = allowed == 0;
    if (*paced)
        return 0;
    room = room < allowed ? room : allowed;
    ect_set(tcb, false);
    uint32_t most = data_bytes <= room ? data_bytes : room - room % mss;
    uint32_t sent = send_at(tcpip, tcb, slice_at(tcb, start), start, most);
    if (sent > 0)
        spend(tcpip, tcb, sent);
    return sent;
}

/* Bytes that cwnd lets go of what is lost: a segment at least where nothing else is in flight, or a probe is due. */
static uint32_t lost_room(const struct tcb *tcb)
{
    uint32_t pipe = recovery_pipe(tcb), mss = tcb->snd_mss;
    uint32_t room = tcb->cwnd > pipe ? tcb->cwnd - pipe : 0;
    return (tcb->tlp_now || pipe == 0) && room < mss ? mss : room;
}

/* Sends lost ranges again, as far as cwnd goes. False: space ran out. */
static bool send_lost(struct tcpip *tcpip, struct tcb *tcb)
{
    while (tcb->lost_bytes > 0 && tcb->turn_bytes > 0) {
        const struct sent_range *lost = scoreboard_next_lost(tcb);
        uint64_t start = seq_unwrap(lost->start, tcb->snd_una), end = start + (lost->end - lost->start);
        uint32_t room = lost_room(tcb);
        if (room < end - start && room < tcb->snd_mss)
            return true;
        if (start == tcb->snd_end) {
            if (!send_bare(tcpip, tcb, start, TCP_FIN | TCP_ACK))
                return false;
        } else {
            bool paced;
            uint64_t data_end = end < tcb->snd_end ? end : tcb->snd_end;
            uint32_t sent = send_again(tcpip, tcb, start, (uint32_t)(data_end - start), room, &paced);
            if (sent == 0)
                return paced;
            if (start + sent < tcb->snd_end)
                end = start + sent;
        }
        tcb->tlp_now = false;
        tcb->prr_out += (uint32_t)(end - start);
        scoreboard_resent(&tcpip->overflow, tcb, (uint32_t)start, (uint32_t)end, (uint32_t)tcpip->now_us);
    }
    return true;
}

/* How much the windows let go from snd_nxt on. */
static uint32_t usable_window(const struct tcb *tcb)
{
    uint32_t pipe = recovery_pipe(tcb);
    uint32_t flight = tcp_flight(tcb);
    uint32_t congestion = tcb->cwnd > pipe ? tcb->cwnd - pipe : 0;
    uint32_t peer = tcb->snd_wnd > flight ? tcb->snd_wnd - flight : 0;
    if (tcb->tlp_now && congestion < tcb->mss)
        congestion = tcb->mss;
    return congestion < peer ? congestion : peer;
}

/* Sends new data. False: space ran out. */
static bool send_data(struct tcpip *tcpip, struct tcb *tcb)
{
    uint32_t mss = tcb->snd_mss;
    if (tcb->snd_nxt == tcb->snd_una && tcb->snd_nxt < tcb->snd_end && congestion_cares(tcb, tcpip->now_us))
        congestion_flight_begins(tcb, tcpip->now_us);
    while (tcb->snd_nxt < tcb->snd_end && tcb->turn_bytes > 0) {
        uint32_t usable = usable_window(tcb);
        const struct response_slice *slice = slice_at(tcb, tcb->snd_nxt);
        uint64_t left = slice->end - tcb->snd_nxt;
        /* No silly windows, RFC 9293 section 3.8.6.2.1: a whole segment (snd_mss is no more than half of the largest
         * window), the end, or what fits when the persist timer has waited for more. */
        bool silly = usable < mss && usable < left;
        if (usable == 0 || (silly && !tcb->persist_now))
            break;
        uint32_t allowed = pace_allows(tcpip, tcb);
        if (allowed == 0)
            return true;
        usable = usable < allowed ? usable : allowed;
        if (usable >= mss && usable < left)
            usable -= usable % mss;
        ect_set(tcb, true);
        uint32_t sent = send_at(tcpip, tcb, slice, tcb->snd_nxt, usable);
        if (sent == 0)
            return false;
        tcb->ecn_flags &= (uint8_t)~TCP_CWR;
        spend(tcpip, tcb, sent);
        advance(tcpip, tcb, tcb->snd_nxt + sent);
        tcb->tlp_now = tcb->persist_now = false;
    }
    tcb->tlp_now = false;
    return true;
}

static bool send_fin(struct tcpip *tcpip, struct tcb *tcb)
{
    if (!tcb->fin_queued || tcb->snd_nxt != tcb->snd_end)
        return true;
    if (!send_bare(tcpip, tcb, tcb->snd_nxt, TCP_FIN | TCP_ACK))
        return false;
    advance(tcpip, tcb, tcb->snd_end);
    return true;
}

/* The retransmission timer runs while something is in flight, and starts afresh with the first that is; while nothing is, as
 * the window is shut or too small, the persist timer does. A probe is reckoned from what was sent last, RFC 8985
 * section 7.2. */
static void timers_start(struct tcpip *tcpip, struct tcb *tcb, bool sent_new)
{
    if (tcb->snd_nxt > tcb->snd_una) {
        if (tcb->rto_deadline_us == 0 || tcb->timer_kind == TCP_TIMER_PERSIST) {
            tcb->persist_backoff = 0;
            recovery_arm(tcpip, tcb, true);
        } else if (sent_new && tcb->timer_kind == TCP_TIMER_PROBE) {
            recovery_arm(tcpip, tcb, false);
        }
    } else if (tcb->snd_nxt < tcb->snd_end && tcb->rto_deadline_us == 0) {
        recovery_persist(tcpip, tcb);
    }
}

enum tcpip_sent tcp_output(struct tcpip *tcpip, struct tcb *tcb)
{
    if (tcb->state == 0)
        return TCPIP_SENT;
    uint64_t snd_nxt = tcb->snd_nxt;
    bool done = send_lost(tcpip, tcb) && send_data(tcpip, tcb) && send_fin(tcpip, tcb);
    if (done && tcb->ack_now) {
        if (tcpip->tx->space > 0)
            tcp_send_ack(tcpip, tcb);
        done = !tcb->ack_now; /* else there was no space, or no buffer */
    }
    timers_start(tcpip, tcb, tcb->snd_nxt != snd_nxt);
    if (!done)
        return TCPIP_NO_SPACE;
    return tcb->turn_bytes > 0 ? TCPIP_SENT : TCPIP_TURN_OVER;
}
