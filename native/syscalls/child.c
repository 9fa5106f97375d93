/* A process that is neither a thread nor a fork.
 *
 * To enter a user namespace a task must be the only thread of its process, and to enter a mount namespace it must not
 * share its root and working directory with others: a thread of the host program can do neither. A fork costs the copy
 * of the host's page tables and runs atfork handlers. clone(CLONE_VM | CLONE_VFORK | CLONE_FILES) costs some 50 µs at
 * any size of the host: the new process borrows memory and the descriptor table, the calling thread sleeps until it is
 * gone, and what it opened stays open for the caller.
 *
 * What that process may not do: return from its function with locks held, allocate, or let a signal handler of the
 * host run (so all signals are blocked; the handler table is its own, CLONE_SIGHAND is not given).
 *
 * Its exit signal is 0, so no SIGCHLD arrives and wait() without __WALL does not see it. */
#define _GNU_SOURCE
#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "child.cdef"

struct work {
	void (*function)(void *);
	void *argument;
	volatile int finished;
};

static int child(void *argument)
{
	struct work *work = argument;

	work->function(work->argument);
	work->finished = 1;
	syscall(SYS_exit_group, 0); /* not _exit: that is for the process that owns this memory */
	return 0;
}

int pe_in_child(void (*function)(void *), void *argument, size_t stack_size)
{
	struct work work = {.function = function, .argument = argument};
	sigset_t all, before;
	int error = 0;
	int dumpable = prctl(PR_GET_DUMPABLE);
	char *stack = mmap(NULL, stack_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	int pid;

	if (stack == MAP_FAILED)
		return -errno;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	pid = clone(child, stack + stack_size, CLONE_VM | CLONE_VFORK | CLONE_FILES, &work);
	if (pid < 0) {
		error = -errno;
	} else {
		siginfo_t info;

		while (syscall(SYS_waitid, P_PID, pid, &info, WEXITED | __WALL, NULL) < 0 && errno == EINTR)
			continue;
		if (!work.finished)
			error = -EOWNERDEAD; /* killed from outside */
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	munmap(stack, stack_size);
	/* Joining a namespace of another owner changes credentials, and with them the "dumpable" of the memory that
	 * was only borrowed. */
	if (dumpable == 1 && prctl(PR_GET_DUMPABLE) != 1)
		prctl(PR_SET_DUMPABLE, 1);
	return error;
}

int pe_join(const int *namespaces, int count)
{
	for (int i = 0; i < count; i++)
		if (setns(namespaces[i], 0) < 0)
			return -errno;
	return 0;
}

enum verb { OPEN, OPEN_TREE, MOVE_MOUNT, SOCKET, NEW_NAMESPACE };

struct inside {
	enum verb verb;
	const int *namespaces;
	int count;
	const char *path;
	int flags, mode, family, type, protocol, tree;
	int result;
};

static int checked(long returned)
{
	return returned < 0 ? -errno : (int)returned;
}

static int loopback_up(void)
{
	struct ifreq request;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int error = 0;

	if (fd < 0)
		return -errno;
	memset(&request, 0, sizeof(request));
	memcpy(request.ifr_name, "lo", 3);
	request.ifr_flags = IFF_UP | IFF_LOOPBACK | IFF_RUNNING;
	if (ioctl(fd, SIOCSIFFLAGS, &request) < 0)
		error = -errno;
	close(fd);
	return error;
}

static int new_namespace(const struct inside *inside)
{
	char path[64] = "/proc/self/ns/";
	size_t length = strlen(path);
	int error;

	if (strlen(inside->path) >= sizeof(path) - length)
		return -EINVAL;
	memcpy(path + length, inside->path, strlen(inside->path) + 1);
	if (unshare(inside->flags) < 0)
		return -errno;
	if (inside->flags & CLONE_NEWNET) {
		error = loopback_up();
		if (error < 0)
			return error;
	}
	return checked(open(path, O_RDONLY | O_CLOEXEC));
}

static void work_inside(void *argument)
{
	struct inside *inside = argument;
	int returned = pe_join(inside->namespaces, inside->count);

	if (returned < 0) {
		inside->result = returned;
		return;
	}
	switch (inside->verb) {
	case OPEN:
		inside->result = checked(open(inside->path, inside->flags | O_CLOEXEC, inside->mode));
		break;
	case OPEN_TREE:
		inside->result = checked(syscall(SYS_open_tree, AT_FDCWD, inside->path,
						 (unsigned int)inside->flags | OPEN_TREE_CLOEXEC));
		break;
	case MOVE_MOUNT:
		inside->result = checked(syscall(SYS_move_mount, inside->tree, "", AT_FDCWD, inside->path,
						 MOVE_MOUNT_F_EMPTY_PATH));
		break;
	case SOCKET:
		inside->result = checked(socket(inside->family, inside->type | SOCK_CLOEXEC, inside->protocol));
		break;
	case NEW_NAMESPACE:
		inside->result = new_namespace(inside);
		break;
	}
}

static int run_inside(struct inside *inside)
{
	int error = pe_in_child(work_inside, inside, 64 * 1024);

	return error < 0 ? error : inside->result;
}

int pe_open_inside(const int *namespaces, int count, const char *path, int flags, unsigned int mode)
{
	struct inside inside = {.verb = OPEN, .namespaces = namespaces, .count = count, .path = path,
				.flags = flags, .mode = (int)mode};
	return run_inside(&inside);
}

int pe_open_tree_inside(const int *namespaces, int count, const char *path, unsigned int flags)
{
	struct inside inside = {.verb = OPEN_TREE, .namespaces = namespaces, .count = count, .path = path,
				.flags = (int)flags};
	return run_inside(&inside);
}

int pe_move_mount_inside(const int *namespaces, int count, int tree, const char *path)
{
	struct inside inside = {.verb = MOVE_MOUNT, .namespaces = namespaces, .count = count, .path = path,
				.tree = tree};
	return run_inside(&inside);
}

int pe_socket_inside(const int *namespaces, int count, int family, int type, int protocol)
{
	struct inside inside = {.verb = SOCKET, .namespaces = namespaces, .count = count, .family = family,
				.type = type, .protocol = protocol};
	return run_inside(&inside);
}

int pe_new_namespace_inside(const int *namespaces, int count, int flag, const char *name)
{
	struct inside inside = {.verb = NEW_NAMESPACE, .namespaces = namespaces, .count = count, .path = name,
				.flags = flag};
	return run_inside(&inside);
}
