/* Starts a program so that the host program does not notice.
 *
 * Cost: nothing is copied (CLONE_VM | CLONE_VFORK), so it does not grow with the host's memory.
 *
 * Silence: execve resets a child's exit signal to SIGCHLD (execve(2), "the termination signal is reset"), so a direct
 * child that runs a program always raises SIGCHLD in the host and is seen by its os.wait(). Therefore the program is a
 * grandchild: the child in between (see child.c; it never execs, so it keeps the exit signal 0) ends as soon as the
 * program runs, and the program belongs to init. The pidfd is made in the shared descriptor table while the child in
 * between still holds the program as its own, so no number can have been reused. With wait, the child in between stays
 * until the program has ended and takes its status; the calling thread, asleep in vfork, waits with it.
 *
 * (A host that made itself a subreaper, or is pid 1, asked for orphans and gets them.) */
#define _GNU_SOURCE
#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "spawn.cdef"

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif

#define MAX_MAPPED 256
#define STACK (64 * 1024)

struct run {
	struct pe_spawn *spawn;
	int error;
	char *stack;
};

static int fail(struct run *run, int stage)
{
	run->error = -errno;
	run->spawn->failed_at = stage;
	return 1;
}

/* Sources go above all targets first, so that no target overwrites a source that is still needed. */
static int map_descriptors(struct pe_spawn *spawn, int *executable)
{
	int high[MAX_MAPPED], last = 2, sorted[MAX_MAPPED + 4], count = 0;

	for (int i = 0; i < spawn->mapped; i++)
		if (spawn->targets[i] > last)
			last = spawn->targets[i];
	for (int i = 0; i < spawn->mapped; i++) {
		high[i] = fcntl(spawn->sources[i], F_DUPFD_CLOEXEC, last + 1);
		if (high[i] < 0)
			return -1;
	}
	if (spawn->executable >= 0) {
		*executable = fcntl(spawn->executable, F_DUPFD_CLOEXEC, last + 1);
		if (*executable < 0)
			return -1;
	}
	for (int stdio = 0; stdio <= 2; stdio++) {
		int null = open("/dev/null", stdio == 0 ? O_RDONLY : O_WRONLY);

		if (null < 0)
			return -1;
		if (null != stdio && (dup2(null, stdio) < 0 || close(null) < 0))
			return -1;
		sorted[count++] = stdio;
	}
	for (int i = 0; i < spawn->mapped; i++) {
		int target = spawn->targets[i], at = count;

		if (dup2(high[i], target) < 0)
			return -1;
		if (target <= 2)
			continue;
		for (; at > 0 && sorted[at - 1] > target; at--)
			sorted[at] = sorted[at - 1];
		sorted[at] = target;
		count++;
	}
	if (*executable >= 0)
		sorted[count++] = *executable;
	for (int i = 0; i < count; i++) {
		unsigned int first = (unsigned int)sorted[i] + 1;
		unsigned int end = i + 1 < count ? (unsigned int)sorted[i + 1] : ~0u;

		if (first < end && syscall(SYS_close_range, first, end == ~0u ? end : end - 1, 0) < 0)
			return -1;
	}
	return 0;
}

/* The C library keeps signals 32 and 33 to itself and refuses them, but whoever started the host may ignore them. */
static void default_action(int number)
{
	struct {
		void (*handler)(int);
		unsigned long flags;
		void (*restorer)(void);
		uint64_t mask;
	} action = {.handler = SIG_DFL};

	syscall(SYS_rt_sigaction, number, &action, NULL, sizeof(action.mask));
}

static int program(void *argument)
{
	struct run *run = argument;
	struct pe_spawn *spawn = run->spawn;
	sigset_t none;
	int executable = -1;

	if (spawn->new_session)
		setsid();
	if (spawn->directory != NULL && chdir(spawn->directory) < 0) {
		fail(run, PE_SPAWN_DIRECTORY);
	} else if (map_descriptors(spawn, &executable) < 0) {
		fail(run, PE_SPAWN_DESCRIPTORS);
	} else {
		/* Also what the host ignores (Python: SIGPIPE) would be inherited. */
		for (int number = 1; number < NSIG; number++)
			default_action(number);
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		if (executable >= 0)
			syscall(SYS_execveat, executable, "", spawn->arguments, spawn->environment, AT_EMPTY_PATH);
		else
			execve(spawn->path, spawn->arguments, spawn->environment);
		fail(run, PE_SPAWN_EXEC);
	}
	syscall(SYS_exit_group, 127);
	return 0;
}

static int milliseconds_since(const struct timespec *start)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int)((now.tv_sec - start->tv_sec) * 1000 + (now.tv_nsec - start->tv_nsec) / 1000000);
}

static void wait_for_end(struct run *run, const struct timespec *start)
{
	struct pe_spawn *spawn = run->spawn;
	struct pollfd ended = {.fd = spawn->pidfd, .events = POLLIN};
	siginfo_t info;

	while (spawn->timeout >= 0) {
		int left = spawn->timeout - milliseconds_since(start);
		long ready = syscall(SYS_ppoll, &ended, 1,
				     &(struct timespec){.tv_sec = left > 0 ? left / 1000 : 0,
							.tv_nsec = left > 0 ? left % 1000 * 1000000L : 0}, NULL, 0);
		if (ready > 0)
			break;
		if (ready == 0) {
			syscall(SYS_pidfd_send_signal, spawn->pidfd, SIGKILL, NULL, 0);
			spawn->timed_out = 1;
			break;
		}
	}
	memset(&info, 0, sizeof(info));
	if (syscall(SYS_waitid, P_PID, spawn->pid, &info, WEXITED | __WALL, NULL) < 0)
		fail(run, PE_SPAWN_WAIT);
	spawn->code = info.si_code;
	spawn->status = info.si_status;
}

static void between(void *argument)
{
	struct run *run = argument;
	struct pe_spawn *spawn = run->spawn;
	struct sigaction defaults = {.sa_handler = SIG_DFL};
	struct timespec start;
	int pid, error;

	clock_gettime(CLOCK_MONOTONIC, &start);
	/* A host that ignores SIGCHLD has its children reaped by the kernel: the status would be lost. */
	sigaction(SIGCHLD, &defaults, NULL);
	error = pe_join(spawn->namespaces, spawn->joined);
	if (error < 0) {
		run->error = error;
		spawn->failed_at = PE_SPAWN_NAMESPACE;
		return;
	}
	pid = clone(program, run->stack + STACK, CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, run, &spawn->pidfd);
	if (pid < 0) {
		fail(run, PE_SPAWN_CLONE);
		return;
	}
	spawn->pid = pid;
	if (run->error == 0 && spawn->wait)
		wait_for_end(run, &start);
	else if (run->error != 0)
		syscall(SYS_waitid, P_PID, pid, NULL, WEXITED | __WALL, NULL);
	if (run->error != 0 || spawn->wait) {
		close(spawn->pidfd);
		spawn->pidfd = -1;
	}
}

int pe_spawn(struct pe_spawn *spawn)
{
	struct run run = {.spawn = spawn};
	int error;

	spawn->pidfd = -1;
	spawn->pid = spawn->code = spawn->status = spawn->timed_out = 0;
	spawn->failed_at = PE_SPAWN_CLONE;
	if (spawn->mapped > MAX_MAPPED)
		return -E2BIG;
	run.stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	if (run.stack == MAP_FAILED)
		return -errno;
	error = pe_in_child(between, &run, STACK);
	munmap(run.stack, STACK);
	return error < 0 ? error : run.error;
}
