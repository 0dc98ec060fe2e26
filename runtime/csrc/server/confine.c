#define _GNU_SOURCE
#include "confine.h"

#include <errno.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CAPABILITIES_MAX 64 /* that a kernel can have */

static int drop_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};
    return syscall(SYS_capset, &header, none) < 0 ? -errno : 0;
}

int confine_identity(bool change_user, uint32_t uid, uint32_t gid)
{
    for (unsigned long capability = 0; capability < CAPABILITIES_MAX; capability++)
        prctl(PR_CAPBSET_DROP, capability, 0, 0, 0); /* only who has CAP_SETPCAP may, and others need not */
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (change_user && (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0))
        return -errno;
    int error = drop_capabilities();
    if (error != 0)
        return error;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return -errno;
    return 0;
}

/* linux/landlock.h of the kernel that runs may know more than that of the one we are built with: the bits are by number. */
struct ruleset {
    uint64_t handled_access_fs, handled_access_net, scoped;
};

struct landlock_version {
    uint64_t files, net, scoped;
    size_t bytes; /* of struct ruleset that it knows */
};

/* By the version of the kernel's interface: all that it can forbid. */
static const struct landlock_version landlock_versions[] = {
    {0x1fff, 0, 0, 8}, /* 1: Linux 5.13 */
    {0x3fff, 0, 0, 8}, /* 2: also to move files between folders */
    {0x7fff, 0, 0, 8}, /* 3: to shorten files */
    {0x7fff, 3, 0, 16}, /* 4: to bind and connect TCP */
    {0xffff, 3, 0, 16}, /* 5: ioctl of devices */
    {0xffff, 3, 3, 24}, /* 6: abstract UNIX sockets and signals */
};
#define LANDLOCK_VERSIONS (sizeof(landlock_versions) / sizeof(landlock_versions[0]))

int confine_files(void)
{
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (version < 1)
        return version < 0 ? -errno : -ENOSYS;
    size_t known = (size_t)version < LANDLOCK_VERSIONS ? (size_t)version : LANDLOCK_VERSIONS;
    const struct landlock_version *all = &landlock_versions[known - 1];
    struct ruleset rules = {all->files, all->net, all->scoped};
    int fd = (int)syscall(SYS_landlock_create_ruleset, &rules, all->bytes, 0);
    if (fd < 0)
        return -errno;
    int error = syscall(SYS_landlock_restrict_self, fd, 0) < 0 ? -errno : 0;
    close(fd);
    return error;
}

#if defined(__x86_64__)
#define OUR_ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OUR_ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

#ifdef OUR_ARCHITECTURE

/* What workers call while they serve, and what ending takes. */
static const uint32_t allowed_calls[] = {
    /* ports */
    SYS_read, SYS_readv, SYS_write, SYS_writev, SYS_sendto, SYS_recvfrom, SYS_sendmsg, SYS_recvmsg, SYS_sendmmsg,
    SYS_recvmmsg, SYS_getsockopt, SYS_ppoll,
    /* time, randomness, other threads */
    SYS_clock_gettime, SYS_clock_nanosleep, SYS_nanosleep, SYS_getrandom, SYS_futex, SYS_sched_yield,
    SYS_restart_syscall, SYS_rt_sigreturn, SYS_rt_sigprocmask, SYS_gettid, SYS_getpid,
    /* memory, of which what can be executed is left out below; descriptors that were passed */
    SYS_munmap, SYS_madvise, SYS_close,
    /* the end */
    SYS_exit, SYS_exit_group};
#define ALLOWED_CALLS (sizeof(allowed_calls) / sizeof(allowed_calls[0]))
#define PROGRAM_MAX (ALLOWED_CALLS * 2 + 32)
#define FIELD(name) ((uint32_t)offsetof(struct seccomp_data, name))

struct program {
    struct sock_filter code[PROGRAM_MAX];
    unsigned short count;
};

static void put(struct program *program, struct sock_filter instruction)
{
    program->code[program->count++] = instruction;
}

static void load(struct program *program, uint32_t field)
{
    put(program, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, field));
}

static void answer(struct program *program, uint32_t action)
{
    put(program, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action));
}

/* The next count instructions are for this alone. */
static void if_equal(struct program *program, uint32_t value, uint8_t count)
{
    put(program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, count));
}

/* Memory that can't be executed: calls whose third argument is PROT_*. */
static void allow_memory(struct program *program, uint32_t call)
{
    if_equal(program, call, 4);
    load(program, FIELD(args[2]));
    put(program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 1, 0));
    answer(program, SECCOMP_RET_ALLOW);
    answer(program, SECCOMP_RET_ERRNO | EPERM);
}

/* How exactly timers run, which a worker says of itself, and nothing else of prctl. */
static void allow_timer_slack(struct program *program)
{
    if_equal(program, SYS_prctl, 3);
    load(program, FIELD(args[0]));
    if_equal(program, PR_SET_TIMERSLACK, 1);
    answer(program, SECCOMP_RET_ALLOW);
    answer(program, SECCOMP_RET_ERRNO | EPERM);
}

int confine_calls(void)
{
    struct program program = {.count = 0};
    load(&program, FIELD(arch));
    put(&program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OUR_ARCHITECTURE, 1, 0));
    answer(&program, SECCOMP_RET_KILL_PROCESS); /* numbers mean other calls there */
    load(&program, FIELD(nr));
    for (size_t i = 0; i < ALLOWED_CALLS; i++) {
        if_equal(&program, allowed_calls[i], 1);
        answer(&program, SECCOMP_RET_ALLOW);
    }
    allow_memory(&program, SYS_mmap);
    allow_memory(&program, SYS_mprotect);
    allow_timer_slack(&program);
    answer(&program, SECCOMP_RET_ERRNO | EPERM);
    struct sock_fprog all = {program.count, program.code};
    long other = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &all);
    return other == 0 ? 0 : other > 0 ? -ESRCH : -errno;
}

#else

int confine_calls(void)
{
    return -ENOSYS;
}

#endif
