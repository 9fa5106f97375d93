/* Standard streams of the first process: pipes, or a pseudo terminal. They are made inside, so that they belong to
 * the container's user namespace; the monitor's ends travel to it over the report socket. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <termios.h>

#include "child.h"
#include "kernel.h"

#ifndef TIOCGPTPEER
#define TIOCGPTPEER 0x5441
#endif

int child_tell(int report, const struct child_message *message, const int *descriptors, int count)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(3 * sizeof(int))];
	} control = {0};
	struct iovec part = {.iov_base = (void *)(uintptr_t)message, .iov_len = sizeof(*message)};
	struct msghdr packet = {.msg_iov = &part, .msg_iovlen = 1};
	struct cmsghdr *header;

	if (count == 0)
		return write(report, message, sizeof(*message)) == (ssize_t)sizeof(*message) ? 0 : -1;
	packet.msg_control = control.space;
	packet.msg_controllen = (socklen_t)CMSG_SPACE((size_t)count * sizeof(int));
	header = CMSG_FIRSTHDR(&packet);
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = (socklen_t)CMSG_LEN((size_t)count * sizeof(int));
	memcpy(CMSG_DATA(header), descriptors, (size_t)count * sizeof(int));
	return sendmsg(report, &packet, MSG_NOSIGNAL) < 0 ? -1 : 0;
}

/* 0, 1 and 2 are /dev/null already: the monitor's. */
int open_stdio(struct child *child)
{
	const struct field *settings = child->plan->settings.fields;
	struct child_message message = {.kind = CHILD_STDIO};
	int out[2] = {-1, -1}, error[2] = {-1, -1}, in[2] = {-1, -1}, ours[3], count = 2;

	if (settings[SETTINGS_TERMINAL].number)
		return 0;
	if (pipe2(out, O_CLOEXEC) < 0 || pipe2(error, O_CLOEXEC) < 0 || dup2(out[1], 1) < 0 || dup2(error[1], 2) < 0)
		return -1;
	ours[0] = out[0];
	ours[1] = error[0];
	if (settings[SETTINGS_STDIN].number) {
		if (pipe2(in, O_CLOEXEC) < 0 || dup2(in[0], 0) < 0)
			return -1;
		ours[count++] = in[1];
		close(in[0]);
	}
	if (child_tell(child->report, &message, ours, count) < 0)
		return -1;
	for (int i = 0; i < count; i++)
		close(ours[i]);
	close(out[1]);
	close(error[1]);
	return 0;
}

/* CVE-2025-52565: what is bound on /dev/console is the terminal that we hold, and what it covers was not reached
 * through a link in the last place. */
static int bind_console(struct child *child, int slave)
{
	cleanup_close int mount = sys_open_tree(slave, "", AT_EMPTY_PATH | OPEN_TREE_CLONE), target = -1;
	struct stat status;

	if (mount < 0)
		return -1;
	target = ensure_file(child->root, "dev/console", 0600);
	if (target < 0 || fstat(target, &status) < 0)
		return -1;
	close(target);
	target = open_below(child->root, "dev/console", O_PATH | O_NOFOLLOW);
	if (target < 0 || fstat(target, &status) < 0)
		return -1;
	if (S_ISLNK(status.st_mode)) {
		errno = ELOOP;
		return explain(child, "/dev/console is a link");
	}
	return sys_move_mount(mount, target);
}

static int open_master(struct child *child)
{
	cleanup_close int master = open_below(child_root(child), "dev/pts/ptmx", O_RDWR | O_NOCTTY);
	struct statfs system;
	struct stat status;

	if (master < 0)
		return explain(child, "open /dev/pts/ptmx");
	if (fstatfs(master, &system) < 0 || fstat(master, &status) < 0)
		return -1;
	if (system.f_type != DEVPTS_MAGIC || !S_ISCHR(status.st_mode) || status.st_rdev != makedev(5, 2)) {
		errno = ENOTTY;
		return explain(child, "/dev/pts/ptmx is not a pseudo terminal");
	}
	return take(&master);
}

int do_terminal(struct child *child, const struct field *fields)
{
	struct child_message message = {.kind = CHILD_TERMINAL};
	struct winsize size = {.ws_row = (unsigned short)fields[TERMINAL_ROWS].number,
			       .ws_col = (unsigned short)fields[TERMINAL_COLUMNS].number};
	cleanup_close int master = open_master(child), slave = -1;
	int unlocked = 0;

	if (master < 0)
		return -1;
	if (ioctl(master, TIOCSPTLCK, &unlocked) < 0)
		return -1;
	/* The slave of this master, without a path that could lead elsewhere. */
	slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0)
		return -1;
	if ((size.ws_row != 0 || size.ws_col != 0) && ioctl(master, TIOCSWINSZ, &size) < 0)
		return -1;
	if (fields[TERMINAL_CONSOLE].number && bind_console(child, slave) < 0)
		return explain(child, "bind /dev/console");
	if (child_tell(child->report, &message, &master, 1) < 0)
		return -1;
	for (int fd = 0; fd <= 2; fd++)
		if (dup2(slave, fd) < 0)
			return -1;
	if (ioctl(0, TIOCSCTTY, 0) < 0)
		return explain(child, "make it the controlling terminal (needs a new session)");
	return 0;
}
