/* The end of a run: what is left in the cgroup, the restart policy, the cleanup command. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernel.h"
#include "monitor.h"

#define MAX_CGROUP_DEPTH 32
#define CGROUP_TRIES 100 /* … of 10 ms */

/* 0 where the cgroup has no memory controller. */
int64_t read_oom_kills(void)
{
	cleanup_close int fd = monitor.cgroup < 0 ? -1 : openat(monitor.cgroup, "memory.events", O_RDONLY | O_CLOEXEC);
	char text[512];
	const char *line;
	ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (length <= 0)
		return 0;
	text[length] = 0;
	line = strstr(text, "\noom_kill ");
	return line == NULL ? 0 : strtoll(line + 10, NULL, 10);
}

struct entry {
	uint64_t inode;
	int64_t offset;
	unsigned short length;
	unsigned char type;
	char name[];
};

static void kill_whole(int group)
{
	cleanup_close int fd = openat(group, "cgroup.kill", O_WRONLY | O_CLOEXEC);

	if (fd >= 0)
		(void)!write(fd, "1", 1);
}

static void kill_below(int group)
{
	_Alignas(8) char buffer[1024];
	cleanup_close int listing = openat(group, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	long length;

	while (listing >= 0 && (length = syscall(SYS_getdents64, listing, buffer, sizeof(buffer))) > 0) {
		for (long at = 0; at < length;) {
			const struct entry *entry = (const struct entry *)(const void *)(buffer + at);
			cleanup_close int below = -1;

			at += entry->length;
			if (entry->type != DT_DIR || strcmp(entry->name, ".") == 0 || strcmp(entry->name, "..") == 0)
				continue;
			below = openat(group, entry->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
			if (below >= 0)
				kill_whole(below);
		}
	}
}

/* Whether there was somebody to kill. */
static bool kill_members(int group)
{
	cleanup_close int fd = openat(group, "cgroup.procs", O_RDONLY | O_CLOEXEC);
	char text[4096];
	ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	char *cursor = text;
	bool found = false;

	if (length <= 0)
		return false;
	text[length] = 0;
	while (*cursor != 0) {
		char *end;
		long pid = strtol(cursor, &end, 10);

		/* A number that the end of the buffer cut off is not a pid; 0 is one that cannot be seen from here. */
		if (end == cursor || *end != '\n')
			break;
		if (pid > 0)
			found = kill((pid_t)pid, SIGKILL) == 0 || found;
		cursor = end + 1;
	}
	return found;
}

/* Where the container is to be started again, its group must not be killed as a whole: since Linux 6.14 a process that
 * is cloned into a group that ever was dies at once (cgroup_css_set_fork() takes the kill_seq to compare with from the
 * group of the parent, not from that of CLONE_INTO_CGROUP). */
static void kill_cgroup(void)
{
	bool again = monitor.settings[SETTINGS_RESTART].number != 0 && !monitor.stopping && !monitor.released;

	if (monitor.cgroup < 0 || monitor.settings[SETTINGS_SESSION].number)
		return;
	if (!again) {
		kill_whole(monitor.cgroup);
		return;
	}
	kill_below(monitor.cgroup);
	for (int i = 0; i < CGROUP_TRIES && kill_members(monitor.cgroup); i++)
		poll(NULL, 0, i < 10 ? 1 : 10);
}

void kill_container(void)
{
	if (monitor.child > 0 && !monitor.child_ended)
		kill(monitor.child, SIGKILL);
	kill_cgroup();
}

static bool wants_restart(void)
{
	int64_t policy = monitor.settings[SETTINGS_RESTART].number, most = monitor.settings[SETTINGS_RESTART_RETRIES].number;

	if (monitor.stopping || monitor.released || policy == 0)
		return false;
	if (policy == 1)
		return monitor.code != 0 && (most == 0 || monitor.restarts < most);
	return true;
}

static void reset_run(void)
{
	close_run();
	monitor.child = 0;
	monitor.child_ended = monitor.waiting = monitor.executing = monitor.report_ended = monitor.start_given = false;
	monitor.input_ends = false;
	monitor.input_length = monitor.input_done = 0;
}

static void restart_later(void)
{
	int64_t now = now_monotonic_ms();

	if (now - monitor.run_since >= RESTART_RESET_MS)
		monitor.restart_delay = 0;
	monitor.restart_delay = monitor.restart_delay == 0 ? RESTART_DELAY_MIN_MS : monitor.restart_delay * 2;
	if (monitor.restart_delay > RESTART_DELAY_MAX_MS)
		monitor.restart_delay = RESTART_DELAY_MAX_MS;
	monitor.restart_at = now + monitor.restart_delay;
	monitor.restarts++;
	reset_run();
	monitor.start_wanted = true;
	monitor.phase = PHASE_RESTARTING;
	write_state();
	control_say(SAY_RESTARTING);
}

/* The first process is gone and reaped. */
void run_ended(void)
{
	if (wants_restart()) {
		if (chunk_push())
			restart_later();
		return; /* else again when the output is through */
	}
	if (!monitor.published) {
		monitor.phase = PHASE_EXITED;
		write_state();
		control_say(SAY_EXITED);
		monitor.published = true;
		fault(exit_published);
	}
}

static char **pointers(const struct field *list)
{
	size_t size = ((size_t)list->number + 1) * sizeof(char *);
	char **array = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	const char *cursor = list->data;

	if (array == MAP_FAILED)
		_exit(125);
	for (int64_t i = 0; i < list->number; i++)
		array[i] = (char *)(uintptr_t)text_next(&cursor); /* execve does not write there */
	return array;
}

static void run_cleanup(void)
{
	struct clone_arguments arguments = {.exit_signal = SIGCHLD};
	pid_t pid = (pid_t)syscall(SYS_clone3, &arguments, sizeof(arguments));

	if (pid == 0) {
		struct sigaction defaults = {.sa_handler = SIG_DFL};
		char **argv = pointers(&monitor.settings[SETTINGS_CLEANUP]);
		char **environment = pointers(&monitor.settings[SETTINGS_CLEANUP_ENV]);
		sigset_t none;

		for (int number = 1; number < NSIG; number++)
			sigaction(number, &defaults, NULL);
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		sys_close_range(3, ~0u, CLOSE_RANGE_CLOEXEC_FLAG);
		(void)!chdir("/");
		umask(022);
		execve(argv[0], argv, environment);
		_exit(127);
	}
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

/* A container that manages cgroups leaves some below its own. */
static bool remove_cgroup(int parent, const char *name, int depth)
{
	_Alignas(8) char buffer[1024];
	cleanup_close int directory = -1;
	long length;

	if (unlinkat(parent, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
		return true;
	if (depth == MAX_CGROUP_DEPTH)
		return false;
	directory = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	while (directory >= 0 && (length = syscall(SYS_getdents64, directory, buffer, sizeof(buffer))) > 0) {
		for (long at = 0; at < length;) {
			const struct entry *entry = (const struct entry *)(const void *)(buffer + at);

			at += entry->length;
			if (entry->type == DT_DIR && strcmp(entry->name, ".") != 0 && strcmp(entry->name, "..") != 0)
				remove_cgroup(directory, entry->name, depth + 1);
		}
	}
	return unlinkat(parent, name, AT_REMOVEDIR) == 0 || errno == ENOENT;
}

/* The end of the monitor. */
void finish(void)
{
	fault(before_cleanup);
	if (monitor.settings[SETTINGS_CLEANUP].number > 0 && !monitor.released)
		run_cleanup();
	if (monitor.settings[SETTINGS_CGROUP].number > 0) {
		kill_cgroup();
		/* What was killed leaves the cgroup a moment later. */
		for (int i = 0; i < CGROUP_TRIES; i++) {
			if (remove_cgroup(AT_FDCWD, monitor.settings[SETTINGS_CGROUP].data, 0))
				break;
			poll(NULL, 0, i < 10 ? 1 : 10);
		}
	}
	fault(cgroup_removed);
	_exit(0);
}
