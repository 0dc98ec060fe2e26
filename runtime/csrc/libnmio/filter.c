#define _GNU_SOURCE
#include "filter.h"

#include <errno.h>

#ifdef SANDSTORM_AFXDP

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_link.h>
#include <string.h>
#include <unistd.h>

#include "filter_config.h"
#include "region.h"

/* BPF_TCX_INGRESS of linux/bpf.h from Linux 6.6, which is not every system's. */
#define TCX_INGRESS ((enum bpf_attach_type)46)

/* The compiled filter.bpf.c, put into the extension by ffi_build.py. */
extern const unsigned char filter_object[];
extern const unsigned int filter_object_bytes;

struct nmio_filter {
    struct bpf_object *object;
    int link_fd, sockets_fd, ipv4_fd, ipv6_fd;
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

static int fill_maps(struct nmio_filter *filter, uint16_t tcp_port, bool own_address)
{
    uint32_t zero = 0;
    struct filter_config config = {tcp_port, own_address};
    int configs_fd = bpf_object__find_map_fd_by_name(filter->object, "filter_configs");
    filter->sockets_fd = bpf_object__find_map_fd_by_name(filter->object, "filter_sockets");
    filter->ipv4_fd = bpf_object__find_map_fd_by_name(filter->object, "filter_ipv4");
    filter->ipv6_fd = bpf_object__find_map_fd_by_name(filter->object, "filter_ipv6");
    return bpf_map_update_elem(configs_fd, &zero, &config, BPF_ANY) < 0 ? -errno : 0;
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
    return error == 0 ? fill_maps(filter, tcp_port, own_address) : error;
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

static int attach(struct nmio_filter *filter, const char *name, int ifindex, bool *native)
{
    int program_fd = bpf_program__fd(bpf_object__find_program_by_name(filter->object, name));
    if (native != NULL)
        return attach_xdp(filter, program_fd, ifindex, native);
    filter->link_fd = bpf_link_create(program_fd, ifindex, TCX_INGRESS, NULL);
    return filter->link_fd < 0 ? -errno : 0;
}

/* native: of XDP; without it tcx. */
static int open_filter(struct nmio_filter **result, int ifindex, uint16_t tcp_port, bool own_address, bool *native)
{
    const char *name = native != NULL ? "filter_xdp" : "filter_tcx";
    struct nmio_filter *filter = nmio_alloc(sizeof(*filter));
    if (filter == NULL)
        return -ENOMEM;
    filter->link_fd = -1;
    int error = load(filter, name, tcp_port, own_address);
    if (error == 0)
        error = attach(filter, name, ifindex, native);
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

int nmio_filter_address(struct nmio_filter *filter, const uint8_t *address, uint32_t len_bytes)
{
    uint8_t present = 1;
    int fd = len_bytes == 4 ? filter->ipv4_fd : filter->ipv6_fd;
    return bpf_map_update_elem(fd, address, &present, BPF_ANY) < 0 ? -errno : 0;
}

int nmio_filter_forget(struct nmio_filter *filter, const uint8_t *address, uint32_t len_bytes)
{
    int fd = len_bytes == 4 ? filter->ipv4_fd : filter->ipv6_fd;
    return bpf_map_delete_elem(fd, address) < 0 && errno != ENOENT ? -errno : 0;
}

int nmio_filter_socket(struct nmio_filter *filter, uint32_t queue, int socket_fd)
{
    return bpf_map_update_elem(filter->sockets_fd, &queue, &socket_fd, BPF_ANY) < 0 ? -errno : 0;
}

void nmio_filter_close(struct nmio_filter *filter)
{
    if (filter->link_fd >= 0)
        close(filter->link_fd);
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
