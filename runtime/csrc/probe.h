/* Static probes (USDT) for perf, bpftrace and gdb: PROBE(name, up to 12 integers or pointers). Where <sys/sdt.h> is (Debian:
 * systemtap-sdt-dev), a probe is a nop and a note in the object that says where its arguments are: in a register, in
 * memory or a constant. Elsewhere it is nothing. So arguments should be what is at hand at that place. There are no
 * semaphores: nothing is tested, nothing is written. docs/profiling.md lists all of them. */
#ifndef SANDSTORM_PROBE_H
#define SANDSTORM_PROBE_H

#if defined(__has_include) && !defined(__cppcheck__) /* cppcheck takes no include in a condition */
#if __has_include(<sys/sdt.h>)
#define SDT_USE_VARIADIC
#include <sys/sdt.h>
#define PROBE(name, ...) STAP_PROBEV(sandstorm, name, __VA_ARGS__)
#endif
#endif

#ifndef PROBE
#define PROBE(name, ...) ((void)0)
#endif

#endif
