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
/* A compiler reckons an asm's size by the lines of its text, and these are many, of notes and not of code: a function with a
 * probe would no longer be inlined, which costs more than all of the probes. `inline` says that the asm is short. */
#if defined(__clang__) || __GNUC__ >= 9
#define __volatile__ __volatile__ __inline__
#endif
#endif
#endif

#ifndef PROBE
#define PROBE(name, ...) ((void)0)
#endif

#endif
