/*
 * Preloaded into User Mode Linux on CPUs with AMX.
 *
 * UML before Linux 6.14 keeps 2,696 bytes of a process's extended CPU state. The host's kernel takes back the
 * whole state or none (EFAULT): on a CPU with AMX that is 11,008 bytes, and the guest panics with "ptrace set fp
 * regs failed, errno = 14". Here what UML gives is laid over what the process has, so the size is right. What
 * lies beyond belongs to the process anyway: UML's processes are the host's.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* not on the stack: UML calls from its kernel stacks; not locked: one UML thread calls ptrace */
static unsigned char state[65536];

long ptrace(enum __ptrace_request request, ...)
{
	va_list arguments;
	va_start(arguments, request);
	pid_t pid = va_arg(arguments, pid_t);
	void *address = va_arg(arguments, void *);
	void *data = va_arg(arguments, void *);
	va_end(arguments);

	/* the system call stores the word where libc's function returns it */
	if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER) {
		long word;
		if (syscall(SYS_ptrace, request, pid, address, &word) < 0)
			return -1;
		errno = 0;
		return word;
	}
	if (request == PTRACE_SETREGSET && (unsigned long)address == NT_X86_XSTATE) {
		struct iovec *given = data;
		struct iovec whole = {state, sizeof state};
		if (syscall(SYS_ptrace, PTRACE_GETREGSET, pid, address, &whole) < 0)
			return -1;
		if (given->iov_len < whole.iov_len) {
			memcpy(state, given->iov_base, given->iov_len);
			return syscall(SYS_ptrace, request, pid, address, &whole);
		}
	}
	return syscall(SYS_ptrace, request, pid, address, data);
}
