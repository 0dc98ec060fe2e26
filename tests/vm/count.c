/* A QEMU plugin that counts the guest's instructions by place: count.so,table=PATH. The file is a table in shared memory, so who
 * reads it twice knows what was executed in between. Iterations of an instruction that repeats itself (rep movsb) are one: how many
 * bytes a copy takes at once is the processor's matter. */
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* qemu-plugin.h is in no package: what is used of it, of version 4. */
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_info_t;
typedef void (*qemu_plugin_vcpu_tb_trans_cb_t)(uint64_t id, struct qemu_plugin_tb *tb);
typedef void (*qemu_plugin_vcpu_udata_cb_t)(unsigned int vcpu, void *data);
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, qemu_plugin_vcpu_tb_trans_cb_t callback);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb, qemu_plugin_vcpu_udata_cb_t callback, int flags,
                                          void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *data, size_t bytes);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);

#define PLACES (1 << 20) /* a power of two */

/* Instructions of a block that begins at an address. */
struct place {
    uint64_t address, executed;
};

/* A block as it was translated. */
struct block {
    struct place *place;
    uint32_t instructions;
    uint64_t first, repeats; /* the first instruction's address, and the last one's if it repeats itself, or 0 */
};

__attribute__((visibility("default"))) int qemu_plugin_version = 4;
__attribute__((visibility("default"))) int qemu_plugin_install(uint64_t id, const struct qemu_info_t *info, int argc,
                                                               char **argv);

static struct place *places;
static uint64_t repeating; /* where the block before ended, if in an instruction that repeats itself */

static struct place *place_at(uint64_t address)
{
    size_t at = (size_t)(address * 0x9e3779b97f4a7c15 >> 44) % PLACES;
    while (places[at].address != 0 && places[at].address != address)
        at = (at + 1) % PLACES;
    places[at].address = address;
    return &places[at];
}

static void executed(unsigned int vcpu, void *data)
{
    const struct block *block = data;
    (void)vcpu;
    block->place->executed += block->instructions - (repeating != 0 && repeating == block->first);
    repeating = block->repeats;
}

/* A string instruction behind a repeat prefix. */
static bool repeats(const struct qemu_plugin_insn *insn)
{
    uint8_t bytes[4] = {0};
    size_t at = 1;
    (void)qemu_plugin_insn_data(insn, bytes, sizeof(bytes));
    if (bytes[0] != 0xf2 && bytes[0] != 0xf3)
        return false;
    if ((bytes[at] & 0xf0) == 0x40) /* REX */
        at++;
    return (bytes[at] >= 0xa4 && bytes[at] <= 0xa7) || (bytes[at] >= 0xaa && bytes[at] <= 0xaf);
}

static void translated(uint64_t id, struct qemu_plugin_tb *tb)
{
    size_t count = qemu_plugin_tb_n_insns(tb);
    const struct qemu_plugin_insn *last = qemu_plugin_tb_get_insn(tb, count - 1);
    struct block *block = malloc(sizeof(*block));
    (void)id;
    if (block == NULL)
        abort();
    uint64_t first = qemu_plugin_insn_vaddr(qemu_plugin_tb_get_insn(tb, 0));
    *block = (struct block){.place = place_at(first),
                            .instructions = (uint32_t)count,
                            .first = first,
                            .repeats = repeats(last) ? qemu_plugin_insn_vaddr(last) : 0};
    qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, 0, block);
}

int qemu_plugin_install(uint64_t id, const struct qemu_info_t *info, int argc, char **argv)
{
    (void)info;
    if (argc != 1 || strncmp(argv[0], "table=", 6) != 0)
        return -1;
    int fd = open(argv[0] + 6, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    size_t bytes = PLACES * sizeof(struct place);
    if (fd < 0 || ftruncate(fd, (off_t)bytes) != 0)
        return -1;
    places = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (places == MAP_FAILED)
        return -1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    return 0;
}
