/* Least privilege: what a process gives up for good before it looks at what strangers send. Each function is for a process that has one
 * thread; the threads that it starts later are bound as well. All return 0 or -errno. */
#ifndef SANDSTORM_CONFINE_H
#define SANDSTORM_CONFINE_H

#include <stdbool.h>
#include <stdint.h>

/* Becomes that user and group, without others (change_user), and has no capability any more and can't come by one: not by executing a
 * program either. Nobody but root may look into its memory. */
int confine_identity(bool change_user, uint32_t uid, uint32_t gid);
/* No file, folder or device can be opened, no TCP port bound or connected to, no process outside be signalled (Landlock, as far as this
 * kernel has it). -ENOSYS, -EOPNOTSUPP: the kernel has none. */
int confine_files(void);
/* Of all threads: no system calls but those that serving takes, of a table; others fail with EPERM (seccomp). May be called when
 * threads run already. -ENOSYS: not made for this processor. */
int confine_calls(void);

#endif
