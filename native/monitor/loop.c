#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "monitor.h"

#define MAX_POLL (MAX_CLIENTS + MAX_CONTROLS + 16)

int64_t now_realtime_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t now_monotonic_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void give_start(void)
{
	if (!monitor.start_wanted || monitor.start_given || monitor.phase != PHASE_CREATED || monitor.report < 0)
		return;
	monitor.start_given = true;
	(void)!write(monitor.report, "s", 1);
}

void launch(void)
{
	monitor.phase = PHASE_SETUP;
	launch_container();
	if (monitor.child > 0)
		monitor.child_ticks = start_ticks(monitor.child);
}

static struct pollfd polled[MAX_POLL];
static int polled_count;

static void want(int fd, short events)
{
	if (fd >= 0)
		polled[polled_count++] = (struct pollfd){.fd = fd, .events = events};
}

static short seen(int fd)
{
	if (fd >= 0)
		for (int i = 0; i < polled_count; i++)
			if (polled[i].fd == fd)
				return polled[i].revents;
	return 0;
}

static void want_all(void)
{
	bool idle = monitor.chunk_length == 0, more_input = monitor.input_length == 0;
	bool resting = monitor.terminal_retry_at > 0 && now_monotonic_ms() < monitor.terminal_retry_at;
	short reading = idle && !resting ? POLLIN : 0;
	short writing = monitor.input_length > monitor.input_done ? POLLOUT : 0;

	polled_count = 0;
	want(monitor.signals, POLLIN);
	want(monitor.report, POLLIN);
	want(monitor.engine, POLLIN);
	want(monitor.ctl, POLLIN);
	want(monitor.attach, POLLIN);
	want(monitor.control, POLLIN);
	for (int i = 0; i <= MAX_CONTROLS; i++)
		want(monitor.controls[i], POLLIN);
	for (int i = 0; i <= MAX_CLIENTS; i++) {
		const struct client *client = &monitor.clients[i];
		short events = (short)((client->reading && more_input ? POLLIN : 0) |
				       (client->sent < monitor.chunk_length && !client->deaf ? POLLOUT : 0));

		/* One that has gone and left stdin behind says so all the time: its turn comes with that stdin. */
		if (events != 0 || !client->reading)
			want(client->fd, events);
	}
	/* A pipe whose other end is closed reports that whatever is asked for: while it may not be read it is left out. */
	for (int stream = 0; stream < 2; stream++)
		if ((reading | (monitor.out[stream] == monitor.in ? writing : 0)) != 0 && !resting)
			want(monitor.out[stream], (short)(reading | (monitor.out[stream] == monitor.in ? writing : 0)));
	if (monitor.in != monitor.out[0] && writing != 0)
		want(monitor.in, writing);
}

static int sooner(int timeout, int64_t at)
{
	int64_t left = at - now_monotonic_ms();

	if (left < 0)
		left = 0;
	return timeout < 0 || left < timeout ? (int)left : timeout;
}

static int timeout(void)
{
	int result = -1;

	if (monitor.log_blocked)
		result = sooner(result, monitor.log_retry_at);
	if (monitor.phase == PHASE_RESTARTING)
		result = sooner(result, monitor.restart_at);
	if (monitor.terminal_retry_at > 0 && monitor.out[0] >= 0)
		result = sooner(result, monitor.terminal_retry_at);
	for (int i = 0; i <= MAX_CLIENTS; i++)
		if (monitor.clients[i].fd >= 0 && monitor.clients[i].stalled_since > 0)
			result = sooner(result, monitor.clients[i].stalled_since + CLIENT_PATIENCE_MS);
	return result;
}

static void serve(void)
{
	if (seen(monitor.signals))
		reap();
	while (seen(monitor.report) && report_receive())
		;
	if (seen(monitor.engine)) {
		/* die_with_parent: it can happen once. */
		close(monitor.engine);
		monitor.engine = -1;
		monitor.stopping = true;
		kill_container();
	}
	for (int i = 0; i <= MAX_CONTROLS; i++)
		if (seen(monitor.controls[i]))
			control_receive(i);
	if (seen(monitor.control))
		control_accept();
	if (seen(monitor.ctl))
		ctl_receive();
	for (int i = 0; i <= MAX_CLIENTS; i++) {
		short events = seen(monitor.clients[i].fd);

		if (events & (POLLIN | POLLHUP | POLLERR))
			client_receive(&monitor.clients[i], events);
	}
	if (seen(monitor.attach)) {
		int fd = accept4(monitor.attach, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd >= 0)
			client_add(fd, false);
	}
}

/* A bounded number of chunks, then the others have their turn. */
static void pump(void)
{
	if (monitor.input_length > monitor.input_done)
		input_push();
	if (monitor.terminal_retry_at > 0 && now_monotonic_ms() >= monitor.terminal_retry_at)
		monitor.terminal_retry_at = 0;
	for (int round = 0; round < 16; round++) {
		bool read = false;

		for (int stream = 0; stream < 2; stream++) {
			if (!chunk_push())
				return;
			if (monitor.out[stream] < 0)
				continue;
			if (monitor.child_ended ? monitor.drain[stream] <= 0 : seen(monitor.out[stream]) == 0)
				continue;
			chunk_read(stream);
			read = read || monitor.chunk_length > 0;
		}
		if (!chunk_push() || !read)
			return;
	}
}

static bool drained(void)
{
	return monitor.chunk_length == 0 && (monitor.out[0] < 0 || monitor.drain[0] <= 0) &&
	       (monitor.out[1] < 0 || monitor.drain[1] <= 0);
}

static void end_of_failed(void)
{
	if (monitor.finished_at == 0)
		monitor.finished_at = now_realtime_ns();
	monitor.phase = PHASE_FAILED;
	monitor.code = monitor.failure.error == ENOENT ? 127 : 126;
	write_error();
	write_state();
	control_say(SAY_FAILED);
	if (monitor.controls[0] >= 0)
		monitor.released = true; /* the engine that started this knows */
	kill_container();
	finish();
}

/* Where things stand after what has been heard. */
static void decide(void)
{
	if (monitor.failed) {
		if (monitor.child > 0 && !monitor.child_ended && !monitor.killed) {
			kill(monitor.child, SIGKILL);
			monitor.killed = true;
		}
		if (monitor.starter == 0 && (monitor.child == 0 || monitor.child_ended))
			end_of_failed();
		return;
	}
	if (monitor.starter == 0 && (monitor.child_ended || monitor.child == 0) && monitor.phase < PHASE_RUNNING) {
		monitor.failed = true;
		monitor.failure = (struct child_message){.error = ECHILD};
		strcpy(monitor.failure.text, "the first process was killed before it could start");
		end_of_failed();
	}
	if (monitor.phase == PHASE_RUNNING && monitor.child_ended) {
		if (!monitor.killed) {
			monitor.killed = true;
			kill_container();
			monitor.oom = read_oom_kills() > monitor.oom_before;
			monitor.code = WIFEXITED(monitor.status) ? WEXITSTATUS(monitor.status) : 128 + WTERMSIG(monitor.status);
			pump();
		}
		if (drained() || monitor.chunk_length > 0)
			run_ended();
	}
	if (monitor.phase == PHASE_EXITED && drained()) {
		for (int i = 0; i <= MAX_CLIENTS; i++)
			if (monitor.clients[i].fd >= 0)
				client_drop(&monitor.clients[i]);
		close_run();
		if (monitor.settings[SETTINGS_CLEANUP].number == 0 || monitor.released || monitor.controls[0] < 0)
			finish();
	}
	if (monitor.phase == PHASE_EXITED && monitor.released && monitor.log_blocked)
		finish(); /* what is left of the log goes with the container */
	if (monitor.phase == PHASE_RESTARTING) {
		if (monitor.stopping || monitor.released) {
			monitor.phase = PHASE_RUNNING;
			monitor.child_ended = monitor.killed = true;
			run_ended();
			decide();
		} else if (now_monotonic_ms() >= monitor.restart_at) {
			monitor.killed = false;
			launch();
			decide();
		}
	}
}

void supervise(void)
{
	launch();
	decide();
	for (;;) {
		want_all();
		if (poll(polled, (nfds_t)polled_count, timeout()) < 0)
			polled_count = 0;
		serve();
		pump();
		decide();
	}
}
