/* How far the container's first process has come: what it reports until its execve, and its end. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "monitor.h"

static void became_created(void)
{
	if (monitor.phase != PHASE_SETUP)
		return;
	if (monitor.created_at == 0)
		monitor.created_at = now_realtime_ns();
	monitor.phase = PHASE_CREATED;
	write_state();
	control_say(SAY_CREATED);
	fault(created);
}

static void became_running(void)
{
	became_created();
	monitor.started_at = now_realtime_ns();
	monitor.run_since = now_monotonic_ms();
	monitor.phase = PHASE_RUNNING;
	write_state();
	control_say(SAY_STARTED);
	forget_plan();
	fault(started);
}

static void take_descriptors(const struct child_message *message, const int *descriptors, int count)
{
	for (int i = 0; i < count; i++)
		fcntl(descriptors[i], F_SETFL, fcntl(descriptors[i], F_GETFL) | O_NONBLOCK);
	if (message->kind == CHILD_TERMINAL && count == 1) {
		monitor.out[0] = monitor.in = descriptors[0];
	} else if (message->kind == CHILD_STDIO && count >= 2) {
		monitor.out[0] = descriptors[0];
		monitor.out[1] = descriptors[1];
		monitor.in = count > 2 ? descriptors[2] : -1;
	}
	input_push();
}

/* The sender is our own code, but it runs in the container's namespaces. */
bool report_receive(void)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(3 * sizeof(int))];
	} control;
	struct child_message message;
	struct iovec part = {.iov_base = &message, .iov_len = sizeof(message)};
	struct msghdr packet = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
				.msg_controllen = sizeof(control)};
	struct cmsghdr *header;
	int descriptors[3], count = 0;
	ssize_t length;

	if (monitor.report < 0)
		return false;
	length = recvmsg(monitor.report, &packet, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (length < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (length != (ssize_t)sizeof(message)) {
		close(monitor.report);
		monitor.report = -1;
		monitor.report_ended = true;
		if (monitor.executing && !monitor.failed)
			became_running(); /* before anything of its output is touched */
		return false;
	}
	header = CMSG_FIRSTHDR(&packet);
	if (header != NULL && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
		count = (int)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(descriptors, CMSG_DATA(header), (size_t)count * sizeof(int));
	}
	message.text[MAX_DETAIL] = 0;
	switch (message.kind) {
	case CHILD_PID:
		monitor.child = message.value;
		monitor.child_ticks = start_ticks(monitor.child);
		/* The process may have been faster than the one in between, which knows its pid. */
		if (monitor.waiting || monitor.executing)
			became_created();
		if (monitor.waiting)
			give_start();
		break;
	case CHILD_STDIO:
	case CHILD_TERMINAL:
		take_descriptors(&message, descriptors, count);
		break;
	case CHILD_READY:
		monitor.waiting = true;
		if (monitor.child > 0) {
			became_created();
			give_start();
		}
		break;
	case CHILD_EXECUTING:
		monitor.executing = true;
		if (monitor.child > 0)
			became_created();
		break;
	case CHILD_FAILED:
		if (!monitor.failed)
			monitor.failure = message;
		monitor.failed = true;
		break;
	default:
		break;
	}
	return true;
}

/* We are a subreaper: what the container orphans outside of its pid namespace comes here too. */
void reap(void)
{
	struct signalfd_siginfo info;
	int status;
	pid_t pid;

	while (read(monitor.signals, &info, sizeof(info)) > 0)
		;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == monitor.starter) {
			/* What it said comes before its end: without that its child would be taken for a stranger. */
			while (report_receive())
				;
			monitor.starter = 0;
		}
		if (pid == monitor.child) {
			while (report_receive())
				;
			monitor.child_ended = true;
			monitor.status = status;
			monitor.drain[0] = monitor.drain[1] = DRAIN_BUDGET;
			monitor.finished_at = now_realtime_ns();
			fault(reaped);
		} else if (monitor.child == 0 && monitor.orphan == 0) {
			monitor.orphan = pid; /* perhaps the container's, which was faster than the word of its pid */
			monitor.orphan_status = status;
		}
	}
	while (report_receive())
		;
	if (monitor.orphan > 0 && monitor.orphan == monitor.child && !monitor.child_ended) {
		monitor.child_ended = true;
		monitor.status = monitor.orphan_status;
		monitor.drain[0] = monitor.drain[1] = DRAIN_BUDGET;
		monitor.finished_at = now_realtime_ns();
	}
}
