/* Makes the container's first process.
 *
 * It is always a child of the monitor. Where namespaces are joined, a process in between does that and clones with
 * CLONE_PARENT, so that the monitor never changes its own. Neither of them is dumpable: a process of a container that
 * is joined can look into the newcomer before it is done, and take what it has open (CVE-2016-9962). */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kernel.h"
#include "monitor.h"

static struct child child;
static int sources;	   /* how many descriptors OpenSources left behind those of the plan */
static bool between_in_group; /* whether the process in between is in the container's cgroup */

static int write_file(int directory, const char *path, const char *text, size_t length)
{
	cleanup_close int fd = openat(directory, path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -1;
	return write(fd, text, length) == (ssize_t)length ? 0 : -1;
}

static int write_map(int proc, pid_t pid, const char *name, const struct field *map)
{
	static char text[340 * 36];
	const char *cursor = map->data;
	char path[64];
	int length = 0;

	for (int64_t i = 0; i < map->number; i++)
		length += snprintf(text + length, sizeof(text) - (size_t)length, "%llu%c",
				   (unsigned long long)integer_next(&cursor), i % 3 == 2 ? '\n' : ' ');
	snprintf(path, sizeof(path), "%d/%s", (int)pid, name);
	return write_file(proc, path, text, (size_t)length);
}

static int write_maps(int proc, pid_t pid)
{
	const struct field *settings = monitor.settings;
	char path[64];

	snprintf(path, sizeof(path), "%d/setgroups", (int)pid);
	if (settings[SETTINGS_DENY_SETGROUPS].number && write_file(proc, path, "deny", 4) < 0)
		return explain(&child, "deny setgroups in the user namespace");
	if (write_map(proc, pid, "uid_map", &settings[SETTINGS_UID_MAP]) < 0)
		return explain(&child, "write the uid map of the user namespace");
	if (write_map(proc, pid, "gid_map", &settings[SETTINGS_GID_MAP]) < 0)
		return explain(&child, "write the gid map of the user namespace");
	return 0;
}

/* The new process: keeps only what steps may name. */
static void begin(int mapped)
{
	static const char *const ours[] = {"cgroup", "engine", "client"};
	int report = fcntl(child.report, F_DUPFD_CLOEXEC, 100);
	int wait = mapped < 0 ? -1 : fcntl(mapped, F_DUPFD_CLOEXEC, report + 1);
	char go;

	if (report < 0 || (mapped >= 0 && wait < 0))
		_exit(1);
	/* First of all: while it waits for its maps it is dumpable, and root of the namespace around it has all
	 * capabilities over it. */
	sys_close_range(3, FIRST_DESCRIPTOR - 1, 0);
	sys_close_range((unsigned int)(FIRST_DESCRIPTOR + monitor.plan.descriptor_count + sources),
			(unsigned int)report - 1, 0);
	sys_close_range((unsigned int)report + 1, wait < 0 ? ~0u : (unsigned int)wait - 1, 0);
	if (wait >= 0)
		sys_close_range((unsigned int)wait + 1, ~0u, 0);
	for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
		if (plan_descriptor(&monitor.plan, ours[i]) >= 0)
			close(plan_descriptor(&monitor.plan, ours[i]));
	if (wait >= 0 && read(wait, &go, 1) != 1)
		_exit(1); /* whoever should have written the maps has said what went wrong */
	if (wait >= 0)
		close(wait);
	child.report = report;
	prctl(PR_SET_NAME, "pyengine-child");
	if (mapped >= 0) {
		prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
		if (become_root(monitor.settings[SETTINGS_DENY_SETGROUPS].number == 0) < 0) {
			explain(&child, "become root in the user namespace");
			child_fail(&child, 0);
			_exit(1);
		}
	}
	child_run(&child);
	_exit(1);
}

/* Where cgroup namespaces delegate (the nsdelegate of cgroup2, which systemd mounts), no process gets across the border
 * of its own: from inside of the joined one, our group is out of sight and the clone gets ENOENT. And root of a user
 * namespace may not write to the group of a container of root. Then the process in between is made in the group
 * already, and costs one of its pids for a moment. */
static bool joins(int64_t kind)
{
	const char *cursor = monitor.plan.steps;
	struct record step;

	for (int number = 1; number <= monitor.plan.joins; number++)
		if (plan_next(&cursor, monitor.plan.end, &step) == 0 &&
		    step.kind == KIND_JOIN_NAMESPACE && (step.fields[JOIN_NAMESPACE_NAMESPACES].number & kind) != 0)
			return true;
	return false;
}

static pid_t clone_container(int proc, bool between)
{
	uint64_t namespaces = (uint64_t)monitor.settings[SETTINGS_NAMESPACES].number;
	struct clone_arguments arguments = {.flags = namespaces, .exit_signal = SIGCHLD};
	bool user = (namespaces & CLONE_NEWUSER) != 0;
	int mapped[2] = {-1, -1};
	pid_t pid;

	if (between) {
		arguments.flags |= CLONE_PARENT;
		arguments.exit_signal = 0; /* it is that of the process in between */
	}
	if (monitor.cgroup >= 0 && !(between && between_in_group)) {
		arguments.flags |= CLONE_INTO_CGROUP_64;
		arguments.cgroup = (uint64_t)monitor.cgroup;
	}
	if (user && pipe2(mapped, O_CLOEXEC) < 0)
		return -1;
	/* The maps in /proc belong to root outside while the process is not dumpable, which the user whose namespace
	 * this is need not be. The new process waits meanwhile; a stranger would need capabilities in its namespace. */
	if (user)
		prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
	pid = (pid_t)syscall(SYS_clone3, &arguments, sizeof(arguments));
	if (pid == 0) {
		begin(mapped[0]);
	}
	if (pid < 0)
		explain(&child, "clone");
	if (user) {
		int saved;

		if (pid > 0 && between) {
			struct child_message message = {.kind = CHILD_PID, .value = pid};

			child_tell(child.report, &message, NULL, 0);
		}
		if (pid > 0 && write_maps(proc, pid) == 0)
			(void)!write(mapped[1], "m", 1);
		else if (pid > 0)
			pid = -pid;
		saved = errno;
		close(mapped[0]);
		close(mapped[1]);
		prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
		errno = saved;
	} else if (pid > 0 && between) {
		struct child_message message = {.kind = CHILD_PID, .value = pid};

		child_tell(child.report, &message, NULL, 0);
	}
	return pid;
}

static void close_joined(void)
{
	const char *cursor = monitor.plan.steps;
	struct record step;

	for (int number = 1; number <= monitor.plan.joins; number++)
		if (plan_next(&cursor, monitor.plan.end, &step) == 0 && step.kind == KIND_JOIN_NAMESPACE)
			close(plan_descriptor(&monitor.plan, step.fields[JOIN_NAMESPACE_DESCRIPTOR].data));
}

/* What is opened lies behind the descriptors of the plan, without a gap: so nothing else may be there, and there has to
 * be room before them for what is open for a moment. The monitor's own are no use here. */
static int make_room(int *proc)
{
	child.report = dup3(child.report, FIRST_DESCRIPTOR - 1, O_CLOEXEC);
	if (*proc >= 0)
		*proc = dup3(*proc, FIRST_DESCRIPTOR - 2, O_CLOEXEC);
	if (child.report < 0)
		return -1;
	sys_close_range(3, FIRST_DESCRIPTOR - 3, 0);
	return sys_close_range((unsigned int)(FIRST_DESCRIPTOR + monitor.plan.descriptor_count), ~0u, 0);
}

static void raise_limit(const struct record *step)
{
	uint64_t limit[2], hard = (uint64_t)step->fields[RLIMIT_HARD].number;
	int resource = (int)step->fields[RLIMIT_RESOURCE].number;

	if (syscall(SYS_prlimit64, 0, resource, NULL, limit) < 0 || hard <= limit[1])
		return;
	limit[1] = hard;
	syscall(SYS_prlimit64, 0, resource, limit, NULL);
}

/* What takes CAP_SYS_RESOURCE takes that of the host, which ends where a user namespace is joined. Where it is not
 * there either, the steps themselves say so: to them it is no rise any more, or still one. */
static void use_host_rights(void)
{
	const char *cursor = monitor.plan.steps;
	struct record step;
	char score[24];
	int length;

	for (int number = 1; number <= monitor.plan.step_count; number++) {
		if (plan_next(&cursor, monitor.plan.end, &step) < 0)
			return;
		if (step.kind == KIND_RLIMIT)
			raise_limit(&step);
		if (step.kind != KIND_OOM_SCORE)
			continue;
		length = snprintf(score, sizeof(score), "%lld", (long long)step.fields[OOM_SCORE_VALUE].number);
		(void)!write_file(AT_FDCWD, "/proc/self/oom_score_adj", score, (size_t)length);
	}
}

/* The process in between. */
static void join_and_clone(int proc)
{
	const char *cursor = monitor.plan.steps;
	struct record step;

	prctl(PR_SET_NAME, "pyengine-join");
	if (joins(CLONE_NEWUSER))
		use_host_rights();
	for (int number = 1; number <= monitor.plan.joins; number++) {
		if (plan_next(&cursor, monitor.plan.end, &step) < 0)
			_exit(1);
		if (step.kind == KIND_OPEN_SOURCES) {
			sources = make_room(&proc) < 0 ? -1 : open_sources(&child);
			if (sources < 0)
				_exit(1); /* it has said which step could not be done */
			continue;
		}
		if (do_join(&child, step.fields) < 0) {
			child_fail(&child, number);
			_exit(1);
		}
		prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	}
	close_joined();
	if (clone_container(proc, true) < 0)
		child_fail(&child, 0);
	_exit(0);
}

static int fail_here(const char *what)
{
	explain(&child, "%s", what);
	monitor.failure = (struct child_message){.kind = CHILD_FAILED, .error = errno};
	memcpy(monitor.failure.text, child.detail, sizeof(monitor.failure.text));
	monitor.failed = true;
	return -1;
}

int launch_container(void)
{
	bool user = (monitor.settings[SETTINGS_NAMESPACES].number & CLONE_NEWUSER) != 0;
	cleanup_close int proc = -1;
	int report[2];
	pid_t pid;

	memset(&child, 0, sizeof(child));
	child.plan = &monitor.plan;
	if (user && (proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC)) < 0)
		return fail_here("open /proc");
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, report) < 0)
		return fail_here("make a socket");
	child.report = report[1];
	monitor.report = report[0];
	monitor.oom_before = read_oom_kills();
	fault(before_clone);
	if (monitor.plan.joins > 0) {
		struct clone_arguments arguments = {.exit_signal = SIGCHLD};

		between_in_group = joins(CLONE_NEWCGROUP) || (geteuid() == 0 && joins(CLONE_NEWUSER));
		if (monitor.cgroup >= 0 && between_in_group) {
			arguments.flags = CLONE_INTO_CGROUP_64;
			arguments.cgroup = (uint64_t)monitor.cgroup;
		}
		pid = (pid_t)syscall(SYS_clone3, &arguments, sizeof(arguments));
		if (pid == 0)
			join_and_clone(proc);
		if (pid > 0)
			monitor.starter = pid;
	} else {
		pid = clone_container(proc, false);
		monitor.child = pid < 0 ? -pid : pid;
		if (pid == -1)
			monitor.child = 0;
	}
	close(report[1]);
	fault(after_clone);
	if (pid < 0) {
		if (monitor.child > 0)
			kill(monitor.child, SIGKILL);
		return fail_here("clone");
	}
	fcntl(monitor.report, F_SETFL, O_NONBLOCK);
	return 0;
}

/* When there is no other run, the plan is through: what its steps named is let go, so that nobody's namespace lives on
 * because of us, and its pages are given back (what is still read of it comes back by itself). */
void forget_plan(void)
{
	static const char *const kept[] = {"cgroup", "engine", "client"};
	const char *cursor = monitor.plan.descriptor_names;

	if (monitor.settings[SETTINGS_RESTART].number != 0)
		return;
	for (int i = 0; i < monitor.plan.descriptor_count; i++) {
		const char *name = text_next(&cursor);
		bool ours = false;

		for (size_t j = 0; j < sizeof(kept) / sizeof(kept[0]); j++)
			ours = ours || strcmp(name, kept[j]) == 0;
		if (!ours)
			close(FIRST_DESCRIPTOR + i);
	}
	madvise(monitor.plan_data, monitor.plan_length, MADV_DONTNEED);
}

/* What belonged to one run of the container. */
void close_run(void)
{
	int *descriptors[] = {&monitor.report, &monitor.out[1], &monitor.in, &monitor.out[0]};

	if (monitor.in == monitor.out[0])
		monitor.in = -1;
	for (size_t i = 0; i < sizeof(descriptors) / sizeof(descriptors[0]); i++) {
		close_descriptor(descriptors[i]);
		*descriptors[i] = -1;
	}
}
