#define _GNU_SOURCE
#include "clients.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/wire.h"

#define CLIENT_WINDOW 65535
#define CLIENT_WINDOW_SCALE 7
#define CLIENT_MSS 1460
#define CLIENT_PORT_FIRST 1024
#define CLIENT_GENERATIONS 0x4000 /* of addresses: by then a connection is long forgotten */
#define CLIENT_PORTS 60000 /* of each address */
#define ACK_EVERY 2 /* segments, RFC 9293 section 3.8.6.3: a client speaks then at the latest */
#define HEAD_BYTES (sizeof(struct wire_eth) + sizeof(struct wire_ipv4) + sizeof(struct wire_tcp))

static const uint8_t server_address[4] = {192, 0, 2, 1};
static const char close_lines[] = "Connection: close\r\n\r\n"; /* in place of a request's empty line */
#define EMPTY_LINE_BYTES 2
#define CLOSE_BYTES (sizeof(close_lines) - 1)

static const char *const fields[TARGET_PROGRAMS] = {
    "",
    "User-Agent: curl/7.88.1\r\nAccept: */*\r\n",
    "User-Agent: Debian APT-HTTP/1.3 (2.6.1)\r\nAccept: text/*\r\nCache-Control: max-age=0\r\n",
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\nAccept: "
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/png,image/svg+xml,*/"
    "*;q=0.8\r\n"
    "Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\n"
    "Upgrade-Insecure-Requests: 1\r\nPriority: u=0, i\r\n",
    "Connection: keep-alive\r\nUpgrade-Insecure-Requests: 1\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) "
    "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36\r\nAccept: "
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,"
    "application/signed-exchange;v=b3;q=0.7\r\nAccept-Encoding: gzip, deflate\r\nAccept-Language: en-US,en;q=0.9\r\n",
};

bool target_make(struct target *target, const struct image *image, const char *path, uint32_t program)
{
    const struct ssi_route *route = image_route_find(image, 0, (const uint8_t *)path, strlen(path));
    if (route == NULL || program >= TARGET_PROGRAMS)
        return false;
    int bytes =
        asprintf(&target->request, "GET %s HTTP/1.1\r\nHost: sandstorm.example\r\n%s\r\n", path, fields[program]);
    target->request_bytes = (uint32_t)bytes;
    target->response = &image->responses[image->variants[route->first_variant].get_response];
    return bytes >= 0;
}

static void enqueue(struct clients *clients, struct client *client)
{
    if (client->queued)
        return;
    client->queued = true;
    uint32_t at = (clients->queue_first + clients->queue_count++) % clients->count;
    clients->queue[at] = (uint32_t)(client - clients->client);
}

void clients_open(struct clients *clients, const struct image *image, uint32_t count, uint32_t first_number)
{
    *clients = (struct clients){.image = image, .count = count, .first_number = first_number, .check_every = 1};
    clients->ack_bytes = ACK_EVERY * image->header->segment_bytes;
    clients->client = calloc(count, sizeof(*clients->client));
    clients->queue = calloc(count, sizeof(*clients->queue));
    if (clients->client == NULL || clients->queue == NULL)
        abort();
    for (uint32_t i = 0; i < count; i++) {
        clients->client[i].seq = 1000 * i;
        enqueue(clients, &clients->client[i]);
    }
}

void clients_start(struct clients *clients, const struct target *targets, uint32_t target_count, uint64_t requests)
{
    clients->targets = targets;
    clients->target_count = target_count;
    clients->next_target = 0;
    clients->left = requests;
    clients->requests = clients->bytes = clients->segments = 0;
    for (uint32_t i = 0; i < clients->count; i++)
        if (clients->client[i].target == NULL)
            enqueue(clients, &clients->client[i]);
    /* Once, not at each turn: nobody must wait until the server takes him for lost. */
    for (uint32_t i = clients->random ? clients->queue_count : 0; i > 1; i--) {
        uint32_t *one = &clients->queue[(clients->queue_first + i - 1) % clients->count];
        uint32_t *other =
            &clients->queue[(clients->queue_first + random_below(&clients->random_state, i)) % clients->count];
        uint32_t index = *one;
        *one = *other;
        *other = index;
    }
}

static void next_request(struct clients *clients, struct client *client)
{
    client->target = NULL;
    client->received = 0;
    if (clients->left == 0)
        return;
    client->checks = clients->left % clients->check_every == 0;
    clients->left--;
    if (clients->random)
        clients->next_target = random_below(&clients->random_state, clients->target_count);
    client->target = &clients->targets[clients->next_target];
    clients->next_target = clients->next_target + 1 < clients->target_count ? clients->next_target + 1 : 0;
}

static uint32_t syn_options(uint8_t *at, uint32_t now_ms)
{
    uint8_t options[20] = {2, 4, CLIENT_MSS >> 8, CLIENT_MSS & 0xff, 4, 2, 8, 10};
    uint32_t value = be32(now_ms);
    memcpy(options + 8, &value, 4);
    memcpy(options + 16, (uint8_t[]){1, 3, 3, CLIENT_WINDOW_SCALE}, 4);
    memcpy(at, options, sizeof(options));
    return sizeof(options);
}

static uint32_t ack_options(uint8_t *at, uint32_t now_ms, uint32_t echo)
{
    struct wire_tcp_timestamps option = {be32(TCP_TIMESTAMPS_ALIGNED), be32(now_ms), be32(echo)};
    memcpy(at, &option, sizeof(option));
    return sizeof(option);
}

/* The one whose turn it was has said all. */
static void dequeue(struct clients *clients)
{
    clients->client[clients->queue[clients->queue_first]].queued = false;
    clients->queue_first = (clients->queue_first + 1) % clients->count;
    clients->queue_count--;
}

/* With close: what a client says next; false: nothing, for there is no request left to make a connection for. */
static bool closing_client_speaks(struct clients *clients, struct client *client, bool *asks)
{
    if (!client->connected) {
        if (client->target == NULL)
            next_request(clients, client);
        return client->target != NULL;
    }
    *asks = client->greeted && client->received == 0;
    if (!client->greeted)
        enqueue(clients, client); /* the request comes in a segment of its own, as applications send it */
    client->greeted = true;
    return true;
}

static uint32_t put_request(const struct clients *clients, const struct target *target, uint8_t *at)
{
    memcpy(at, target->request, target->request_bytes);
    if (!clients->close)
        return target->request_bytes;
    memcpy(at + target->request_bytes - EMPTY_LINE_BYTES, close_lines, CLOSE_BYTES);
    return target->request_bytes - EMPTY_LINE_BYTES + (uint32_t)CLOSE_BYTES;
}

static void put_ip(struct wire_ipv4 *ip, uint32_t number, uint16_t generation, uint32_t payload_bytes)
{
    uint32_t host = number / CLIENT_PORTS;
    *ip = (struct wire_ipv4){.version_ihl = 0x45, .ttl = IP_TTL, .protocol = IP_PROTOCOL_TCP};
    ip->total_bytes = be16((uint16_t)(sizeof(*ip) + payload_bytes));
    memcpy(ip->source,
           (uint8_t[]){(uint8_t)(198 - (generation >> 8)), (uint8_t)(18 + generation), (uint8_t)(host >> 8),
                       (uint8_t)host},
           4);
    memcpy(ip->destination, server_address, 4);
    uint64_t sum = 0;
    for (size_t i = 0; i < sizeof(*ip); i += 2) {
        uint16_t word;
        memcpy(&word, (uint8_t *)ip + i, 2);
        sum += word;
    }
    sum = (sum & 0xffff) + (sum >> 16);
    ip->checksum = (uint16_t)~((sum & 0xffff) + (sum >> 16));
}

/* A client's next frame. */
static uint32_t speak(struct clients *clients, uint32_t index, bool asks, uint32_t ack, uint8_t *frame)
{
    struct client *client = &clients->client[index];
    uint32_t number = clients->first_number + index;
    struct wire_eth *eth = (struct wire_eth *)frame;
    struct wire_ipv4 *ip = (struct wire_ipv4 *)(eth + 1);
    struct wire_tcp *tcp = (struct wire_tcp *)(ip + 1);
    bool finishes = client->finishing && ack == client->ack;
    memset(frame, 0, HEAD_BYTES);
    memcpy(eth->destination, (uint8_t[]){2, 0, 0, 0, 0, 1}, 6);
    memcpy(eth->source, (uint8_t[]){2, 0, 0, 0, 0, 2}, 6);
    eth->type = be16(ETH_TYPE_IPV4);
    uint8_t *options = (uint8_t *)(tcp + 1);
    uint32_t option_bytes = client->connected ? ack_options(options, clients->now_ms, client->ts_echo)
                                              : syn_options(options, clients->now_ms);
    uint32_t data_bytes = asks ? put_request(clients, client->target, options + option_bytes) : 0;
    uint32_t tcp_bytes = (uint32_t)sizeof(*tcp) + option_bytes;
    put_ip(ip, number, client->generation, tcp_bytes + data_bytes);
    tcp->source_port = be16((uint16_t)(CLIENT_PORT_FIRST + number % CLIENT_PORTS));
    tcp->destination_port = be16(80);
    tcp->seq = be32(client->seq);
    tcp->ack = be32(ack);
    client->said = ack;
    tcp->offset = (uint8_t)(tcp_bytes / 4 << 4);
    tcp->flags = client->connected ? TCP_ACK | (asks ? TCP_PSH : 0) | (finishes ? TCP_FIN : 0) : TCP_SYN;
    tcp->window = be16(CLIENT_WINDOW);
    client->seq += data_bytes + (client->connected && !finishes ? 0 : 1);
    if (asks)
        client->received = 1; /* of a response that begins at 1: so that it is asked for once */
    client->finished |= finishes;
    client->finishing &= !finishes;
    return (uint32_t)(HEAD_BYTES + option_bytes + data_bytes);
}

uint32_t clients_say(struct clients *clients, uint8_t *frame)
{
    while (clients->queue_count > 0) {
        uint32_t index = clients->queue[clients->queue_first];
        struct client *client = &clients->client[index];
        if (client->connected && client->ack - client->said > clients->ack_bytes)
            return speak(clients, index, false, client->said + clients->ack_bytes, frame); /* and is not done */
        dequeue(clients);
        client->unacked = 0;
        bool asks = false;
        if (clients->close) {
            if (!closing_client_speaks(clients, client, &asks))
                continue;
        } else {
            if (client->connected && client->target == NULL)
                next_request(clients, client);
            asks = client->connected && client->target != NULL && client->received == 0;
        }
        return speak(clients, index, asks, client->ack, frame);
    }
    return 0;
}

/* Does this part of a response have the image's bytes, but for its patches? */
static bool as_built(const struct clients *clients, const struct ssi_response *response, uint64_t offset,
                     const uint8_t *data, uint32_t bytes)
{
    const struct image *image = clients->image;
    const struct ssi_header *h = image->header;
    while (bytes > 0) {
        const struct ssi_frame *frame = &image->frames[response->first_frame + offset / h->segment_bytes];
        uint32_t within = (uint32_t)(offset % h->segment_bytes), part = frame->payload_bytes - within;
        part = part < bytes ? part : bytes;
        const uint8_t *built = image->slots + (size_t)frame->slot * h->slot_bytes + SSI_PAYLOAD_OFFSET + within;
        uint32_t from = offset < response->head_bytes ? response->head_bytes - (uint32_t)offset : 0;
        if (from < part && memcmp(built + from, data + from, part - from) != 0)
            return false;
        offset += part;
        data += part;
        bytes -= part;
    }
    return true;
}

static void take_payload(struct clients *clients, struct client *client, const uint8_t *data, uint32_t bytes)
{
    const struct ssi_response *response = client->target->response;
    if (client->received - 1 + bytes > response->stream_bytes ||
        (client->checks && !as_built(clients, response, client->received - 1, data, bytes)))
        clients->mismatches++;
    client->received += bytes;
    client->ack += bytes;
    clients->bytes += bytes;
    if (client->received - 1 < response->stream_bytes || clients->close)
        return;
    clients->requests++;
    next_request(clients, client);
    enqueue(clients, client);
}

/* The server has acknowledged a client's FIN: the request is served, and another connection can come. */
static void closed(struct clients *clients, struct client *client)
{
    clients->requests++;
    uint16_t generation = (uint16_t)((client->generation + 1) % CLIENT_GENERATIONS);
    *client = (struct client){.seq = client->seq, .queued = client->queued, .generation = generation};
    enqueue(clients, client);
}

/* With close: a FIN after all that was asked for, or the ACK of ours. */
static void take_end(struct clients *clients, struct client *client, const struct wire_tcp *tcp)
{
    if (client->finished) {
        if (be32(tcp->ack) == client->seq)
            closed(clients, client);
    } else if ((tcp->flags & TCP_FIN) != 0) {
        if (client->received - 1 != client->target->response->stream_bytes)
            clients->mismatches++;
        client->ack++;
        client->finishing = true;
        enqueue(clients, client);
    }
}

void clients_hear(struct clients *clients, const struct nmio_tx *tx, const struct nmio_tx_desc *desc)
{
    const struct wire_tcp *tcp = (const struct wire_tcp *)(desc->head + desc->l4_offset);
    const struct wire_ipv4 *ip = (const struct wire_ipv4 *)(desc->head + desc->l3_offset);
    if (desc->l4_offset == 0) { /* a small frame says nothing of its layers; ours are IPv4 and TCP */
        ip = (const struct wire_ipv4 *)(desc->head + sizeof(struct wire_eth));
        tcp = (const struct wire_tcp *)(ip + 1);
    }
    uint32_t host = (uint32_t)ip->destination[2] << 8 | ip->destination[3];
    uint32_t number = host * CLIENT_PORTS + be16(tcp->destination_port) - CLIENT_PORT_FIRST;
    struct client *client = &clients->client[number - clients->first_number];
    uint32_t header_bytes = (uint32_t)(tcp->offset >> 4) * 4;
    const uint8_t *data = (const uint8_t *)tcp + header_bytes;
    if ((tcp->flags & TCP_RST) != 0) {
        clients->mismatches++;
        return;
    }
    if (!client->connected) {
        client->connected = true;
        client->ack = client->said = be32(tcp->seq) + 1;
        memcpy(&client->ts_echo, (const uint8_t *)tcp + sizeof(*tcp) + 8, 4);
        client->ts_echo = be32(client->ts_echo);
        enqueue(clients, client);
        return;
    }
    memcpy(&client->ts_echo, (const uint8_t *)(tcp + 1) + 4, 4);
    client->ts_echo = be32(client->ts_echo);
    uint32_t bytes = desc->piece_count > 0 ? 0 : (uint32_t)(desc->head + desc->head_bytes - data);
    if ((bytes > 0 || desc->piece_count > 0) && (be32(tcp->seq) != client->ack || client->target == NULL)) {
        clients->mismatches++; /* nothing is ever lost here, so nothing may come twice or early */
        return;
    }
    uint32_t segments = desc->gso_bytes > 0 ? 0 : 1;
    if (bytes > 0)
        take_payload(clients, client, data, bytes);
    for (uint32_t i = 0; i < desc->piece_count; i++) {
        const struct nmio_piece *piece = &tx->piece[desc->first_piece + i];
        take_payload(clients, client, piece->data, piece->len_bytes);
        segments += desc->gso_bytes > 0;
    }
    clients->segments += segments;
    client->unacked = (uint16_t)(client->unacked + segments);
    if (client->unacked >= ACK_EVERY)
        enqueue(clients, client);
    if (clients->close && client->target != NULL)
        take_end(clients, client, tcp);
}
