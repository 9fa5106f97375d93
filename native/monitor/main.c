/* The monitor: executes a plan in a new container, then supervises it. See README.md in this directory. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel.h"
#include "monitor.h"

#ifndef PR_SET_CHILD_SUBREAPER
#define PR_SET_CHILD_SUBREAPER 36
#endif

enum { PLAN = 3, LEASE = 4, RUN_DIRECTORY = 5 };

struct monitor monitor;

static struct {
	int point; /* -1: none */
	long left;
} chosen = {.point = -1};

int fault_choose(const char *argument)
{
	static const char *const names[] = {
#define FAULT(name) #name,
		FAULT_POINTS(FAULT)
#undef FAULT
	};
	size_t length = strcspn(argument, ":");

	chosen.left = argument[length] == ':' ? strtol(argument + length + 1, NULL, 10) : 1;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strlen(names[i]) == length && strncmp(names[i], argument, length) == 0)
			chosen.point = (int)i;
	return chosen.point;
}

void fault_passed(enum fault_point point)
{
	if ((int)point == chosen.point && --chosen.left == 0)
		kill(getpid(), SIGKILL);
}

/* Before there is anything to clean up. */
static void refuse(int step, const char *text)
{
	monitor.failed = true;
	monitor.failure.error = errno;
	monitor.failure.step = step;
	snprintf(monitor.failure.text, sizeof(monitor.failure.text), "%s", text);
	monitor.finished_at = now_realtime_ns();
	monitor.phase = PHASE_FAILED;
	monitor.code = 126;
	write_error();
	write_state();
	control_say(SAY_FAILED);
	_exit(1);
}

static void open_nothing(void)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		_exit(1);
	for (int stdio = 0; stdio <= 2; stdio++)
		if (fd != stdio && dup2(fd, stdio) < 0)
			_exit(1);
	if (fd > 2)
		close(fd);
}

static void *read_plan(size_t *length)
{
	int seals = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK;
	struct stat status;
	void *data;

	/* What could change after it was checked would not be worth checking. */
	if ((fcntl(PLAN, F_GET_SEALS) & seals) != seals || fstat(PLAN, &status) < 0 || status.st_size <= 0 ||
	    status.st_size > MAX_PLAN) {
		errno = EINVAL;
		refuse(0, "the plan is not sealed, or not of a possible size");
	}
	*length = (size_t)status.st_size;
	data = mmap(NULL, *length, PROT_READ, MAP_SHARED, PLAN, 0);
	if (data == MAP_FAILED)
		refuse(0, "map the plan");
	close(PLAN);
	return data;
}

static void set_up_process(void)
{
	struct sigaction ignore = {.sa_handler = SIG_IGN};
	sigset_t all, child;

	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	prctl(PR_SET_NAME, "pyengine-mon");
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	setsid();
	umask(077);
	sigaction(SIGPIPE, &ignore, NULL);
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	monitor.signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void adopt_descriptors(void)
{
	int client;

	sys_close_range(FIRST_DESCRIPTOR + (unsigned int)monitor.plan.descriptor_count, ~0u, 0);
	for (int i = 0; i < monitor.plan.descriptor_count; i++)
		if (fcntl(FIRST_DESCRIPTOR + i, F_SETFD, FD_CLOEXEC) < 0)
			refuse(0, "a descriptor that the plan names was not passed");
	monitor.cgroup = plan_descriptor(&monitor.plan, "cgroup");
	if (monitor.settings[SETTINGS_DIE_WITH_PARENT].number) {
		monitor.engine = plan_descriptor(&monitor.plan, "engine");
		if (monitor.engine < 0) {
			errno = EINVAL;
			refuse(0, "die_with_parent needs the descriptor \"engine\"");
		}
	}
	client = plan_descriptor(&monitor.plan, "client");
	if (client >= 0) {
		fcntl(client, F_SETFL, fcntl(client, F_GETFL) | O_NONBLOCK);
		client_add(client, true);
	}
}

static void forget_everything(void)
{
	monitor.signals = monitor.report = monitor.cgroup = monitor.engine = monitor.ctl = -1;
	monitor.attach = monitor.control = monitor.out[0] = monitor.out[1] = monitor.in = -1;
	for (int i = 0; i <= MAX_CLIENTS; i++)
		monitor.clients[i].fd = -1;
	for (int i = 0; i <= MAX_CONTROLS; i++)
		monitor.controls[i] = -1;
}

int main(int argc, char **argv)
{
	const char *why = "";
	size_t length;
	void *data;
	int step;

	forget_everything();
	if (argc > 2 && (strncmp(argv[2], "fault=", 6) != 0 || fault_choose(argv[2] + 6) < 0))
		return 2;
	if (fchdir(RUN_DIRECTORY) < 0)
		return 2; /* not started by an engine */
	monitor.controls[0] = LEASE;
	fcntl(LEASE, F_SETFD, FD_CLOEXEC);
	fcntl(RUN_DIRECTORY, F_SETFD, FD_CLOEXEC); /* kept: the engine's lock on it is ours as long as we live */
	sys_close_range(RUN_DIRECTORY + 1, FIRST_DESCRIPTOR - 1, 0);
	open_nothing();
	set_up_process();
	monitor.own_ticks = start_ticks(getpid());
	data = read_plan(&length);
	if (plan_open(&monitor.plan, data, length, &why, &step) < 0) {
		monitor.plan.steps = NULL; /* not to be read again */
		refuse(step, why);
	}
	monitor.plan_data = data;
	monitor.plan_length = length;
	monitor.settings = monitor.plan.settings.fields;
	fault(plan_read);
	adopt_descriptors();
	if (monitor.signals < 0)
		refuse(0, "make a signalfd");
	if (control_open() < 0)
		refuse(0, "make the sockets in the run directory");
	if (log_open() < 0)
		refuse(0, "open the log");
	fault(sockets_made);
	supervise();
}
