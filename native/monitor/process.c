/* What the process does to itself: namespaces joined, limits, working directory, execve. */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "child.h"
#include "kernel.h"

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define HIGH 100 /* where our own descriptors go, above those that the command keeps */

int do_join(struct child *child, const struct field *fields)
{
	int namespaces = (int)fields[JOIN_NAMESPACE_NAMESPACES].number;

	if (setns(plan_descriptor(child->plan, fields[JOIN_NAMESPACE_DESCRIPTOR].data), namespaces) < 0)
		return -1;
	if ((namespaces & CLONE_NEWUSER) == 0)
		return 0;
	if (become_root(child->plan->settings.fields[SETTINGS_DENY_SETGROUPS].number == 0) == 0)
		return 0;
	if (errno != EPERM)
		return explain(child, "become root in it");
	/* setgroups may be denied in the namespace, or in the one around us. */
	return become_root(false) < 0 ? explain(child, "become root in it") : 0;
}

int do_loopback(void)
{
	cleanup_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq request = {.ifr_name = "lo"};

	if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &request) < 0)
		return -1;
	request.ifr_flags |= IFF_UP;
	return ioctl(fd, SIOCSIFFLAGS, &request);
}

static int write_proc(struct child *child, const char *path, const char *value, size_t length)
{
	unsigned int resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV;
	cleanup_close int fd = sys_openat2(child->proc, path, O_WRONLY | O_CLOEXEC, 0, resolve);
	ssize_t written;

	if (fd < 0)
		return -1;
	written = write(fd, value, length);
	if (written >= 0 && (size_t)written != length)
		errno = EIO;
	return written == (ssize_t)length ? 0 : -1;
}

int do_sysctl(struct child *child, const struct field *fields)
{
	char path[PATH_MAX];

	if (fields[SYSCTL_PATH].number + 5 > (int64_t)sizeof(path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	snprintf(path, sizeof(path), "sys/%s", fields[SYSCTL_PATH].data);
	return write_proc(child, path, fields[SYSCTL_VALUE].data, (size_t)fields[SYSCTL_VALUE].number);
}

int do_oom_score(struct child *child, const struct field *fields)
{
	char path[64], value[32];
	int length = snprintf(value, sizeof(value), "%lld", (long long)fields[OOM_SCORE_VALUE].number), result;

	snprintf(path, sizeof(path), "%d/oom_score_adj", (int)getpid());
	result = write_proc(child, path, value, (size_t)length);
	if (result == 0 || errno != EACCES)
		return result;
	/* In a user namespace the files of a process that is not dumpable belong to somebody outside. For the time of
	 * one write it is dumpable: to look at it a process of the container would need all our capabilities. */
	if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0)
		return -1;
	result = write_proc(child, path, value, (size_t)length);
	length = errno;
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	errno = length;
	return result;
}

int do_rlimit(struct child *child, const struct field *fields)
{
	uint64_t limit[2] = {(uint64_t)fields[RLIMIT_SOFT].number, (uint64_t)fields[RLIMIT_HARD].number};

	(void)child;
	return (int)syscall(SYS_prlimit64, 0, (int)fields[RLIMIT_RESOURCE].number, limit, NULL);
}

/* A directory outside of the root shows as "(unreachable)/…": CVE-2024-21626 was a working directory like that. */
int do_chdir(struct child *child, const struct field *fields)
{
	cleanup_close int fd = open_below(child_root(child), fields[CHDIR_PATH].data, O_PATH | O_DIRECTORY);
	char path[PATH_MAX];

	if (fd < 0 || fchdir(fd) < 0)
		return -1;
	if (syscall(SYS_getcwd, path, sizeof(path)) < 0)
		return -1;
	if (path[0] != '/') {
		errno = ENOENT;
		return explain(child, "it lies outside of the root");
	}
	return 0;
}

/* Everything that the filter might forbid: done before it is loaded. */
static int prepare_exec(struct child *child)
{
	int keep = (int)child->plan->exec.fields[EXEC_KEEP].number;
	struct { /* as the kernel has it */
		void (*handler)(int);
		unsigned long flags;
		void (*restorer)(void);
		uint64_t mask;
	} action = {.handler = SIG_DFL};
	sigset_t none;

	if (child->prepared)
		return 0;
	child->prepared = true;
	if (keep > 0) {
		int report = fcntl(child->report, F_DUPFD_CLOEXEC, HIGH), root = child_root(child);
		char name[2] = "3";

		root = root < 0 ? -1 : fcntl(root, F_DUPFD_CLOEXEC, HIGH);
		if (report < 0 || root < 0)
			return -1;
		child->report = report;
		child->root = root;
		for (int i = 0; i < keep; i++, name[0]++)
			if (dup2(plan_descriptor(child->plan, name), 3 + i) < 0)
				return -1;
	}
	/* The C library keeps a few signals to itself and would refuse them, but they may have been inherited ignored. */
	for (int number = 1; number < NSIG; number++)
		syscall(SYS_rt_sigaction, number, &action, NULL, sizeof(action.mask));
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* CVE-2024-21626, CVE-2016-9962: nothing that is open here stays open in the container. */
	return sys_close_range(3 + (unsigned int)keep, ~0u, CLOSE_RANGE_CLOEXEC_FLAG);
}

int do_seccomp(struct child *child, const struct field *fields)
{
	struct filter_program program = {
		.length = (unsigned short)(fields[SECCOMP_FILTER].number / 8),
		.filter = fields[SECCOMP_FILTER].data,
	};

	if (prepare_exec(child) < 0)
		return explain(child, "prepare the execution");
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER_OPERATION, (unsigned int)fields[SECCOMP_FLAGS].number,
			    &program);
}

static const char *find_variable(const struct field *list, const char *name)
{
	size_t length = strlen(name);
	const char *cursor = list->data;

	for (int64_t i = 0; i < list->number; i++) {
		const char *variable = text_next(&cursor);

		if (strncmp(variable, name, length) == 0 && variable[length] == '=')
			return variable + length + 1;
	}
	return NULL;
}

/* As execvp(3) goes through PATH, without its fallback to a shell: a file without a format is an error. */
static int search(const char *file, const char *path, char *const *arguments, char *const *environment)
{
	char candidate[PATH_MAX];
	bool denied = false;

	for (;;) {
		size_t length = strcspn(path, ":");

		if (length + strlen(file) + 2 <= sizeof(candidate)) {
			memcpy(candidate, path, length);
			if (length > 0)
				candidate[length++] = '/';
			strcpy(candidate + length, file);
			length -= length > 0;
			execve(candidate, arguments, environment);
			if (errno == EACCES)
				denied = true;
			else if (errno != ENOENT && errno != ENOTDIR)
				return -1;
		}
		if (path[length] == 0)
			break;
		path += length + 1;
	}
	errno = denied ? EACCES : ENOENT;
	return -1;
}

static char **pointers(const struct field *list, int64_t more)
{
	size_t size = ((size_t)list->number + (size_t)more + 1) * sizeof(char *);
	char **array = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	const char *cursor = list->data;

	if (array == MAP_FAILED)
		return NULL;
	for (int64_t i = 0; i < list->number; i++)
		array[i] = (char *)(uintptr_t)text_next(&cursor); /* execve does not write there */
	return array;
}

int do_exec(struct child *child, const struct field *fields)
{
	static char home[PATH_MAX + 8];
	struct child_message message = {.kind = CHILD_EXECUTING};
	char **arguments = pointers(&fields[EXEC_ARGV], 0), **environment = pointers(&fields[EXEC_ENV], 1);
	const char *path = find_variable(&fields[EXEC_ENV], "PATH");

	if (arguments == NULL || environment == NULL || prepare_exec(child) < 0)
		return explain(child, "prepare the execution");
	if (child->home[0] != 0 && find_variable(&fields[EXEC_ENV], "HOME") == NULL) {
		snprintf(home, sizeof(home), "HOME=%s", child->home);
		environment[fields[EXEC_ENV].number] = home;
	}
	if (child_tell(child->report, &message, NULL, 0) < 0)
		return explain(child, "report to the monitor");
	if (strchr(arguments[0], '/') != NULL)
		execve(arguments[0], arguments, environment);
	else if (arguments[0][0] == 0)
		errno = ENOENT;
	else
		search(arguments[0], path == NULL ? DEFAULT_PATH : path, arguments, environment);
	if (errno == ENOENT && strchr(arguments[0], '/') != NULL && faccessat(AT_FDCWD, arguments[0], F_OK, 0) == 0) {
		errno = ENOENT;
		return explain(child, "the file is there, but not the interpreter or loader that it names");
	}
	return -1;
}
