/* Frames as they come. The first byte says how the core comes by its addresses, ETH_ACD_*; then
 * | flags:8 | length:16 | bytes | and again. flags: bit 0 the transport checksum is taken for good, bit 1 the
 * destination is made ours, bits 2 to 7 so many times 40 ms pass before. */
#include "harness.h"

/* Our addresses as destination, and a good IPv4 header checksum: bytes that no mutation would guess. */
static void make_ours(uint8_t *frame, uint32_t len)
{
    if (len < 34)
        return;
    memcpy(frame, (const uint8_t[6]){2, 0, 0, 0, 0, 1}, 6);
    if (get16(frame + 12) == 0x0800) {
        memcpy(frame + 30, (const uint8_t[4]){192, 0, 2, 1}, 4);
        uint32_t header = (frame[14] & 15u) * 4;
        if (header < 20 || len < 14 + header)
            return;
        put16(frame + 24, 0);
        put16(frame + 24, (uint16_t)~ones_sum(frame + 14, header, 0));
    } else if (len >= 54) {
        memcpy(frame + 38, (const uint8_t[16]){0x20, 1, 0x0d, 0xb8, [15] = 1}, 16);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t frame[65536];
    struct host host = {0};
    struct image image;
    CHECK(fuzz_image_open(&image, &fuzz_image) == 0);
    if (size > 0) {
        host.acd = data[0] % (ETH_ACD_FOLLOW + 1);
        data++;
        size--;
    }
    host_start(&host, &image, 1);
    while (size >= 3) {
        uint8_t flags = data[0];
        uint32_t len = get16(data + 1);
        data += 3;
        size -= 3;
        len = len < size ? len : (uint32_t)size;
        memcpy(frame, data, len);
        data += len;
        size -= len;
        host_advance(&host, (flags >> 2) * 40u);
        if ((flags & 2) != 0)
            make_ours(frame, len);
        host_input(&host, frame, len, (flags & 1) != 0);
        host_run(&host);
    }
    host_end(&host);
    return 0;
}
