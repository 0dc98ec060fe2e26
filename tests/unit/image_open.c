/* Opens an image that says that each of its COUNT responses consists of all its COUNT frames: image_open COUNT. What that takes
 * is for callgrind to say. */
#include "image/image.h"

#include <stdio.h>
#include <stdlib.h>

#define SEGMENT_BYTES 1428

int main(int argc, char **argv)
{
    static struct ssi_site site;
    static struct ssi_route route;
    static uint32_t bucket;
    uint32_t count = argc == 2 ? (uint32_t)strtoul(argv[1], NULL, 10) : 0;
    struct ssi_header header = {.version = SSI_VERSION,
                                .header_bytes = sizeof(header),
                                .slot_bytes = 2048,
                                .segment_bytes = SEGMENT_BYTES,
                                .mtu_bytes = 1500,
                                .families = SSI_FAMILY_IPV4,
                                .site_count = 1,
                                .route_table_len = 1,
                                .bucket_count = 1,
                                .response_count = count,
                                .frame_count = count,
                                .slot_count = 1,
                                .multipart_type_response = SSI_NONE,
                                .multipart_end_response = SSI_NONE};
    struct ssi_response *responses = calloc(count + 1, sizeof(*responses));
    struct ssi_frame *frames = calloc(count + 1, sizeof(*frames));
    uint32_t *work = malloc((count + 1) * sizeof(*work));
    if (responses == NULL || frames == NULL || work == NULL)
        return 2;
    for (uint32_t i = 0; i < count; i++) {
        responses[i] = (struct ssi_response){.status = 200, .head_bytes = 1};
        responses[i].stream_bytes = (uint64_t)count * SEGMENT_BYTES;
        frames[i] = (struct ssi_frame){.payload_bytes = SEGMENT_BYTES, .copies = 1};
    }
    struct image_sections sections = {.header = &header,
                                      .header_bytes = sizeof(header),
                                      .sites = &site,
                                      .sites_bytes = sizeof(site),
                                      .buckets = &bucket,
                                      .buckets_bytes = sizeof(bucket),
                                      .routes = &route,
                                      .routes_bytes = sizeof(route),
                                      .responses = responses,
                                      .responses_bytes = count * sizeof(*responses),
                                      .frames = frames,
                                      .frames_bytes = count * sizeof(*frames),
                                      .slots_bytes = header.slot_bytes};
    struct image image;
    char text[100];
    int error = image_open(&image, &sections, work);
    image_error_text(error, text, sizeof(text));
    puts(text);
    free(work);
    free(frames);
    free(responses);
    return error == 0 ? 0 : 1;
}
