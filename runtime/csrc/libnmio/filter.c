#define _GNU_SOURCE
#include "filter.h"

#include <errno.h>

#ifdef SANDSTORM_AFXDP

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_link.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "filter_config.h"
#include "region.h"

/* BPF_TCX_INGRESS of linux/bpf.h from Linux 6.6, which is not every system's. */
#define TCX_INGRESS ((enum bpf_attach_type)46)
#define LINK_TYPE_TCX 11 /* BPF_LINK_TYPE_TCX */

/* The compiled filter.bpf.c, put into the extension by ffi_build.py. */
extern const unsigned char filter_object[];
extern const unsigned int filter_object_bytes;

struct nmio_filter {
    struct bpf_object *object;
    int link_fd, sockets_fd;
    int replaced_fd; /* the link whose program it is to replace */
    const char *program;
    struct filter_config *config; /* the programs' own; NULL: not there yet */
};

bool nmio_filter_built(void)
{
    return true;
}

/* libbpf's own messages are for its developers; ours say what to do. */
static int say_nothing(enum libbpf_print_level level, const char *format, va_list arguments)
{
    (void)level;
    (void)format;
    (void)arguments;
    return 0;
}

/* The programs' global variables are a map, whose name is the object's and the section's. */
static struct bpf_map *globals(const struct bpf_object *object)
{
    struct bpf_map *map = bpf_object__next_map(object, NULL);
    while (map != NULL && (!bpf_map__is_internal(map) || strstr(bpf_map__name(map), ".bss") == NULL))
        map = bpf_object__next_map(object, map);
    return map;
}

static int map_config(struct nmio_filter *filter, uint16_t tcp_port, bool own_address)
{
    const struct bpf_map *map = globals(filter->object);
    if (map == NULL || bpf_map__value_size(map) != sizeof(struct filter_config))
        return -EINVAL;
    void *memory = mmap(NULL, sizeof(struct filter_config), PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(map), 0);
    if (memory == MAP_FAILED)
        return -errno;
    filter->config = memory;
    filter->config->tcp_port = htons(tcp_port);
    filter->config->own_address = own_address;
    filter->sockets_fd = bpf_object__find_map_fd_by_name(filter->object, "filter_sockets");
    return 0;
}

/* One of the object's programs is given to the kernel, the others are not: an older one may not know them. */
static int load(struct nmio_filter *filter, const char *name, uint16_t tcp_port, bool own_address)
{
    struct bpf_program *program;
    libbpf_set_print(say_nothing);
    filter->object = bpf_object__open_mem(filter_object, filter_object_bytes, NULL);
    if (filter->object == NULL)
        return -errno;
    bpf_object__for_each_program(program, filter->object)
        bpf_program__set_autoload(program, strcmp(bpf_program__name(program), name) == 0);
    int error = bpf_object__load(filter->object);
    return error == 0 ? map_config(filter, tcp_port, own_address) : error;
}

static int attach_xdp(struct nmio_filter *filter, int program_fd, int ifindex, bool *native)
{
    const uint32_t modes[2] = {XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE};
    int error = 0;
    for (int i = 0; i < 2; i++) {
        LIBBPF_OPTS(bpf_link_create_opts, options, .flags = modes[i]);
        filter->link_fd = bpf_link_create(program_fd, ifindex, BPF_XDP, &options);
        *native = i == 0;
        if (filter->link_fd >= 0)
            return 0;
        error = -errno;
        if (error == -EBUSY || error == -EEXIST)
            return -EBUSY;
    }
    return error;
}

static int program_of(const struct nmio_filter *filter)
{
    return bpf_program__fd(bpf_object__find_program_by_name(filter->object, filter->program));
}

static int attach(struct nmio_filter *filter, int ifindex, bool *native)
{
    int program_fd = program_of(filter);
    if (native != NULL)
        return attach_xdp(filter, program_fd, ifindex, native);
    filter->link_fd = bpf_link_create(program_fd, ifindex, TCX_INGRESS, NULL);
    return filter->link_fd < 0 ? -errno : 0;
}

/* One that is attached nowhere yet; xdp: of XDP, else of tcx. */
static int make_filter(struct nmio_filter **result, bool xdp, uint16_t tcp_port, bool own_address)
{
    struct nmio_filter *filter = nmio_alloc(sizeof(*filter));
    if (filter == NULL)
        return -ENOMEM;
    filter->link_fd = -1;
    filter->program = xdp ? "filter_xdp" : "filter_tcx";
    int error = load(filter, filter->program, tcp_port, own_address);
    if (error != 0) {
        nmio_filter_close(filter);
        return error;
    }
    *result = filter;
    return 0;
}

/* native: of XDP; without it tcx. */
static int open_filter(struct nmio_filter **result, int ifindex, uint16_t tcp_port, bool own_address, bool *native)
{
    struct nmio_filter *filter;
    int error = make_filter(&filter, native != NULL, tcp_port, own_address);
    if (error != 0)
        return error;
    error = attach(filter, ifindex, native);
    if (error != 0) {
        nmio_filter_close(filter);
        return error;
    }
    *result = filter;
    return 0;
}

int nmio_filter_xdp(struct nmio_filter **filter, int ifindex, uint16_t tcp_port, bool own_address, bool *native)
{
    return open_filter(filter, ifindex, tcp_port, own_address, native);
}

int nmio_filter_tcx(struct nmio_filter **filter, int ifindex, uint16_t tcp_port, bool own_address)
{
    return open_filter(filter, ifindex, tcp_port, own_address, NULL);
}

/* Is a link of that kind on that interface? Where the kernel says which is the same for both, and older headers know the one. */
static bool is_link_of(int link_fd, bool xdp, int ifindex)
{
    struct bpf_link_info info = {0};
    uint32_t bytes = sizeof(info), type = xdp ? BPF_LINK_TYPE_XDP : LINK_TYPE_TCX;
    return bpf_obj_get_info_by_fd(link_fd, &info, &bytes) == 0 && info.type == type &&
           info.xdp.ifindex == (uint32_t)ifindex;
}

int nmio_filter_replace(struct nmio_filter **result, int link_fd, bool xdp, int ifindex, uint16_t tcp_port,
                        bool own_address)
{
    if (!is_link_of(link_fd, xdp, ifindex))
        return -EBADF;
    int error = make_filter(result, xdp, tcp_port, own_address);
    if (error == 0)
        (*result)->replaced_fd = link_fd;
    return error;
}

int nmio_filter_attach(struct nmio_filter *filter)
{
    if (bpf_link_update(filter->replaced_fd, program_of(filter), NULL) < 0)
        return -errno;
    filter->link_fd = filter->replaced_fd;
    return 0;
}

int nmio_filter_link(const struct nmio_filter *filter)
{
    return filter->link_fd;
}

#define IPV6_WORDS 4

/* The places of addresses of so many words, and how many have been taken so far. */
static uint32_t *places_of(struct filter_config *config, uint32_t words, uint32_t **count)
{
    *count = words == 1 ? &config->ipv4_places : &config->ipv6_places;
    return words == 1 ? config->ipv4 : config->ipv6[0].words;
}

/* The place of an address, or of all zeros the first that is empty; FILTER_ADDRESSES: there is none. */
static uint32_t find_place(const uint32_t *places, uint32_t words, const uint32_t *address)
{
    uint32_t place = 0;
    while (place < FILTER_ADDRESSES && memcmp(&places[(size_t)place * words], address, words * sizeof(*address)) != 0)
        place++;
    return place;
}

/* While a program looks at it: what it sees in between is part of the address, and zeros. */
static void set_place(uint32_t *place, uint32_t words, const uint32_t *address)
{
    for (uint32_t i = 0; i < words; i++)
        __atomic_store_n(&place[i], address[i], __ATOMIC_RELEASE);
}

static const uint32_t no_address[IPV6_WORDS];

int nmio_filter_address(struct nmio_filter *filter, const uint8_t *address, uint32_t len_bytes)
{
    uint32_t wanted[IPV6_WORDS], *count, words = len_bytes / (uint32_t)sizeof(*wanted);
    uint32_t *places = places_of(filter->config, words, &count);
    memcpy(wanted, address, len_bytes);
    if (find_place(places, words, wanted) < FILTER_ADDRESSES)
        return 0;
    uint32_t place = find_place(places, words, no_address);
    if (place == FILTER_ADDRESSES)
        return -ENOSPC;
    set_place(&places[(size_t)place * words], words, wanted);
    if (place >= *count)
        __atomic_store_n(count, place + 1, __ATOMIC_RELEASE);
    return 0;
}

int nmio_filter_forget(struct nmio_filter *filter, const uint8_t *address, uint32_t len_bytes)
{
    uint32_t wanted[IPV6_WORDS], *count, words = len_bytes / (uint32_t)sizeof(*wanted);
    uint32_t *places = places_of(filter->config, words, &count);
    memcpy(wanted, address, len_bytes);
    uint32_t place = find_place(places, words, wanted);
    if (place < FILTER_ADDRESSES)
        set_place(&places[(size_t)place * words], words, no_address);
    return 0;
}

int nmio_filter_socket(struct nmio_filter *filter, uint32_t queue, int socket_fd)
{
    return bpf_map_update_elem(filter->sockets_fd, &queue, &socket_fd, BPF_ANY) < 0 ? -errno : 0;
}

void nmio_filter_close(struct nmio_filter *filter)
{
    if (filter->link_fd >= 0)
        close(filter->link_fd);
    if (filter->config != NULL)
        munmap(filter->config, sizeof(*filter->config));
    if (filter->object != NULL)
        bpf_object__close(filter->object);
    nmio_free(filter);
}

#else /* built without libxdp, libbpf or clang */

bool nmio_filter_built(void)
{
    return false;
}

int nmio_filter_xdp(struct nmio_filter **filter, int ifindex, uint16_t tcp_port, bool own_address, bool *native)
{
    (void)filter, (void)ifindex, (void)tcp_port, (void)own_address, (void)native;
    return -ENOSYS;
}

int nmio_filter_tcx(struct nmio_filter **filter, int ifindex, uint16_t tcp_port, bool own_address)
{
    (void)filter, (void)ifindex, (void)tcp_port, (void)own_address;
    return -ENOSYS;
}

int nmio_filter_replace(struct nmio_filter **filter, int link_fd, bool xdp, int ifindex, uint16_t tcp_port,
                        bool own_address)
{
    (void)filter, (void)link_fd, (void)xdp, (void)ifindex, (void)tcp_port, (void)own_address;
    return -ENOSYS;
}

int nmio_filter_attach(struct nmio_filter *filter)
{
    (void)filter;
    return -ENOSYS;
}

int nmio_filter_link(const struct nmio_filter *filter)
{
    (void)filter;
    return -1;
}

int nmio_filter_address(struct nmio_filter *filter, const uint8_t *address, uint32_t len_bytes)
{
    (void)filter, (void)address, (void)len_bytes;
    return -ENOSYS;
}

int nmio_filter_forget(struct nmio_filter *filter, const uint8_t *address, uint32_t len_bytes)
{
    (void)filter, (void)address, (void)len_bytes;
    return -ENOSYS;
}

int nmio_filter_socket(struct nmio_filter *filter, uint32_t queue, int socket_fd)
{
    (void)filter, (void)queue, (void)socket_fd;
    return -ENOSYS;
}

void nmio_filter_close(struct nmio_filter *filter)
{
    (void)filter;
}

#endif
