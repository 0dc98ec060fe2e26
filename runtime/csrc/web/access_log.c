#include "access_log.h"

#include <string.h>

#include "head_patch.h"
#include "state.h"

_Static_assert(WEB_FOLLOWED_MAX < SLICE_NUMBERS_MAX, "a slice has room for each number");

static uint32_t power_of_two(uint32_t least)
{
    uint32_t power = 1;
    while (power < least)
        power *= 2;
    return power;
}

static void ring_lay_out(struct access_ring *ring, struct layout *layout, uint32_t count)
{
    ring->mask = power_of_two(count) - 1;
    ring->numbers = layout_take(layout, ((size_t)ring->mask + 1) * sizeof(*ring->numbers));
}

void access_log_lay_out(struct access_log *log, struct layout *layout, const struct web_config *config)
{
    log->entries = layout_take(layout, (size_t)config->followed_max * sizeof(*log->entries));
    index_pool_lay_out(&log->pool, layout, config->followed_max);
    log->sites = layout_take(layout, WEB_SITE_PLACES * sizeof(*log->sites));
    log->latencies = layout_take(layout, WEB_LATENCIES * sizeof(*log->latencies));
    ring_lay_out(&log->ended, layout, config->followed_max);
    ring_lay_out(&log->returned, layout, config->followed_max);
}

void access_log_init(struct access_log *log, const struct web_config *config)
{
    log->read = config->log_read;
    log->heads = config->log_heads;
    log->resumes = ACCESS_NONE;
    /* The first that are taken are the first in memory; those that come back are taken next, so that few are ever touched. */
    for (uint32_t i = 0; i < log->pool.count; i++)
        log->pool.free[i] = log->pool.count - 1 - i;
    log->pool.free_count = log->pool.count;
}

static void describe_responses(struct access_response *responses, const struct image *image)
{
    for (uint32_t i = 0; i < image->header->response_count; i++) {
        const struct ssi_response *response = &image->responses[i];
        uint32_t status_class = response->status / 100u;
        responses[i] =
            (struct access_response){.head_bytes = response->head_bytes,
                                     .status = response->status,
                                     .status_class = status_class < WEB_STATUS_CLASSES ? (uint8_t)status_class : 0,
                                     .encoding = SSI_ENCODING_COUNT,
                                     .is_rare = status_class != 2 || response->status == 206};
    }
    for (uint32_t i = 0; i < image->header->variant_count; i++)
        responses[image->variants[i].get_response].encoding = (uint8_t)image->variants[i].encoding;
}

struct access_tables *access_tables_lay_out(struct layout *layout, const struct image *image)
{
    struct access_tables *tables = layout_take(layout, sizeof(*tables));
    struct access_response *responses = layout_take(layout, image->header->response_count * sizeof(*responses));
    uint32_t *site_places = layout_take(layout, image->header->site_count * sizeof(*site_places));
    if (tables == NULL)
        return NULL;
    describe_responses(responses, image);
    *tables = (struct access_tables){responses, site_places};
    return tables;
}

void access_log_swapped(struct access_log *log, const struct image *image, struct access_tables *tables)
{
    for (uint32_t i = 0; i < image->header->site_count; i++)
        tables->site_places[i] = SSI_NONE;
    for (const struct ssi_host *host = image->hosts; host < image->hosts + image->header->host_count; host++) {
        uint32_t *place = &tables->site_places[host->site];
        if (*place == SSI_NONE)
            *place = web_site_place(&log->places, image->strings + host->name_offset, host->name_bytes);
    }
    for (uint32_t i = 0; i < image->header->site_count; i++)
        if (tables->site_places[i] == SSI_NONE)
            tables->site_places[i] = WEB_SITES_OTHER;
    log->image = image;
    log->responses = tables->responses;
    log->site_places = tables->site_places;
}

static void ring_write(struct access_ring *ring, uint32_t number)
{
    uint32_t written = atomic_load_explicit(&ring->written, memory_order_relaxed);
    ring->numbers[written & ring->mask] = number;
    atomic_store_explicit(&ring->written, written + 1, memory_order_release);
}

void access_log_take_back(struct access_log *log)
{
    struct access_ring *ring = &log->returned;
    uint32_t written = atomic_load_explicit(&ring->written, memory_order_acquire);
    uint32_t *free = log->pool.free + log->pool.free_count;
    log->pool.free_count += written - ring->read;
    for (uint32_t read = ring->read; read != written; read++)
        *free++ = ring->numbers[read & ring->mask];
    ring->read = written;
}

static void latency_add(struct access_latency *latency, uint64_t us)
{
    latency->counts[63 - __builtin_clzll(us | 1)]++;
    latency->sum_us += us;
}

/* How far an answer has come, now that its connection has nothing of it in its queue. */
static void measure(const struct web *web, const struct tcb *tcb, struct access_entry *entry)
{
    bool all = tcb->snd_una >= entry->end;
    uint64_t end = all ? entry->end : tcb->snd_una;
    entry->acked_bytes = end > entry->start ? end - entry->start : 0;
    entry->ended_us = web->tcpip->now_us;
    entry->resent_segments = tcb->resent_segments - entry->resent_before;
    entry->rtt_us = tcb->srtt_us;
    entry->whole = all && !entry->incomplete;
}

/* It ends so: it is the reader's, or free. Always inline: each answer goes through it once. */
__attribute__((always_inline)) static inline void conclude(struct web *web, struct access_entry *entry)
{
    struct access_log *log = web->log;
    COUNT(web, log_records);
    log->sites[entry->site].acked_bytes += entry->acked_bytes;
    if (entry->first_sent_us != 0)
        latency_add(&log->latencies[WEB_LATENCY_FIRST_BYTE], entry->first_sent_us - entry->begun_us);
    if (entry->whole && entry->status != 0)
        latency_add(&log->latencies[WEB_LATENCY_LAST_ACK], entry->ended_us - entry->begun_us);
    entry->in_use = false;
    if (log->read)
        ring_write(&log->ended, entry->number);
    else
        log->pool.free[log->pool.free_count++] = entry->number;
}

/* Of an answer in many slices all that were written may have arrived before the next are; then it is gone on with at once. One
 * that is not has lost its connection just then. */
__attribute__((noinline, cold)) static void resumes_set(struct web *web, uint32_t number)
{
    if (web->log->resumes != ACCESS_NONE)
        conclude(web, &web->log->entries[web->log->resumes]);
    web->log->resumes = number;
}

void access_log_slice_end(struct tcpip *tcpip, const struct tcb *tcb, uint32_t number)
{
    struct web *web = tcpip->app_state;
    struct access_entry *entry = &web->log->entries[number];
    if (--entry->slices > 0)
        return;
    measure(web, tcb, entry);
    if (entry->incomplete && tcb->snd_una >= entry->end)
        resumes_set(web, number);
    else
        conclude(web, entry);
}

/* Of a multipart answer the head ends within what the image has of it (struct ssi_variant). */
static uint32_t multipart_head_bytes(const struct image *image, const struct ssi_variant *variant)
{
    uint64_t type = image->responses[image->header->multipart_type_response].stream_bytes;
    return (uint32_t)(image->responses[variant->partial_response].stream_bytes - variant->swap_bytes + type);
}

/* Of an answer that its response does not say all of: how long its head is, and which variant it is of. */
__attribute__((noinline, cold)) static void describe_rare(const struct access_log *log, struct access_entry *entry,
                                                          const struct response_slice *slice)
{
    const struct image *image = log->image;
    const struct head_values *values = head_values_of(slice);
    uint64_t bytes = slice->end - slice->start, stream_bytes = image->responses[values->response].stream_bytes;
    if ((slice->at_end & SLICE_COMPOSED) != 0) /* what of the request is in it is in its head */
        entry->response_head_bytes += (uint32_t)(bytes - stream_bytes);
    if ((entry->status != 206 && entry->status != 304) || values->variant >= image->header->variant_count)
        return;
    const struct ssi_variant *variant = &image->variants[values->variant];
    entry->encoding = (uint8_t)variant->encoding;
    if (entry->status == 206 && bytes < stream_bytes)
        entry->response_head_bytes = multipart_head_bytes(image, variant);
}

/* An entry for an answer that begins at a position; NULL: there is none left. */
static inline struct access_entry *begin(struct web *web, const struct tcb *tcb, const struct access_request *request,
                                         const struct access_response *response, uint64_t start)
{
    struct access_log *log = web->log;
    uint32_t site = web->site != SSI_NONE ? log->site_places[web->site] : WEB_SITES_NONE;
    log->sites[site].answers[response->status_class]++;
    if (log->pool.free_count == 0) {
        COUNT(web, log_dropped);
        return NULL;
    }
    uint32_t number = log->pool.free[--log->pool.free_count];
    struct access_entry *entry = &log->entries[number];
    entry->number = number;
    entry->begun_us = web->tcpip->now_us;
    entry->first_sent_us = 0;
    entry->start = start;
    entry->status = response->status;
    entry->response_head_bytes = response->head_bytes;
    entry->encoding = response->encoding;
    entry->site = site;
    entry->resent_before = tcb->resent_segments;
    entry->request_bytes = request->head_bytes;
    entry->flow = tcb->flow;
    entry->slices = 0;
    entry->in_use = true;
    entry->head_bytes = log->heads ? (uint16_t)access_head_keep(entry->head, request->head, request->head_bytes) : 0;
    return entry;
}

/* Of the answer that is in a connection's queue from a slice on. */
static inline struct access_entry *begin_answer(struct web *web, const struct tcb *tcb,
                                                const struct access_request *request)
{
    const struct response_slice *slice = tcb_slice(tcb, request->slices);
    const struct access_response *response = &web->log->responses[head_values_of(slice)->response];
    struct access_entry *entry = begin(web, tcb, request, response, slice->start);
    if (response->is_rare && entry != NULL)
        describe_rare(web->log, entry, slice);
    return entry;
}

/* The connection is closed instead of an answer. */
__attribute__((noinline, cold)) static void note_close(struct web *web, const struct tcb *tcb,
                                                       const struct access_request *request)
{
    static const struct access_response none = {.encoding = SSI_ENCODING_COUNT};
    struct access_entry *entry = begin(web, tcb, request, &none, tcb->snd_end);
    if (entry == NULL)
        return;
    entry->end = tcb->snd_end;
    entry->incomplete = false;
    measure(web, tcb, entry);
    conclude(web, entry);
}

/* The entry of an answer that was begun before. */
__attribute__((noinline, cold)) static struct access_entry *resume(struct access_log *log, const struct tcb *tcb,
                                                                   const struct access_request *request)
{
    if (request->slices > 0) {
        uint32_t at_end = tcb_slice(tcb, request->slices - 1)->at_end;
        return (at_end & SLICE_FOLLOWED) != 0 ? &log->entries[at_end >> SLICE_NUMBER_SHIFT] : NULL;
    }
    if (log->resumes == ACCESS_NONE)
        return NULL;
    struct access_entry *entry = &log->entries[log->resumes];
    if (memcmp(&entry->flow, &tcb->flow, sizeof(tcb->flow)) != 0)
        return NULL;
    log->resumes = ACCESS_NONE;
    return entry;
}

void access_log_answer(struct web *web, struct tcb *tcb, const struct access_request *request)
{
    uint32_t slices = tcb->slice_count - request->slices;
    if (slices == 0) { /* there is no answer yet, or will be none */
        if (tcb->fin_queued && !request->resumed)
            note_close(web, tcb, request);
        return;
    }
    struct access_entry *entry = request->resumed ? resume(web->log, tcb, request) : begin_answer(web, tcb, request);
    if (entry == NULL)
        return;
    for (uint32_t i = 0; i < slices; i++)
        slice_follow(tcb_slice(tcb, request->slices + i), entry->number);
    entry->slices = (uint16_t)(entry->slices + slices);
    entry->end = tcb->snd_end;
    entry->incomplete = !request->complete;
}

struct access_log *web_access_log(void *state)
{
    return ((struct web *)state)->log;
}

void web_followed_open(struct web_followed *followed, const void *state)
{
    const struct access_log *log = ((const struct web *)state)->log;
    *followed = (struct web_followed){&log->places, log->sites, log->latencies};
}

bool web_site_at(const struct web_followed *followed, uint32_t place, uint64_t *hash)
{
    if (place >= WEB_SITES_MAX || place >= followed->places->count)
        return false;
    *hash = followed->places->hashes[place];
    return true;
}

uint64_t web_site_answers(const struct web_followed *followed, uint32_t site, uint32_t status_class)
{
    return followed->sites[site].answers[status_class];
}

uint64_t web_site_bytes(const struct web_followed *followed, uint32_t site)
{
    return followed->sites[site].acked_bytes;
}

uint64_t web_latency_count(const struct web_followed *followed, uint32_t latency, uint32_t bucket)
{
    const uint64_t *counts = followed->latencies[latency].counts;
    uint64_t count = counts[bucket];
    for (uint32_t i = WEB_LATENCY_BUCKETS; bucket == WEB_LATENCY_BUCKETS - 1 && i < 64; i++)
        count += counts[i];
    return count;
}

uint64_t web_latency_sum_us(const struct web_followed *followed, uint32_t latency)
{
    return followed->latencies[latency].sum_us;
}
