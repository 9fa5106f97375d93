/* What engines say and hear: the lease (a socket pair with the engine that started us), the socket `control` for those
 * that come later, and the FIFO `ctl` with conmon's lines. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "monitor.h"

/* By its name in the working directory: the path of a run directory may be longer than sun_path. Never an abstract
 * name, which any process in the network namespace could connect to (CVE-2020-15257). */
int listen_at(const char *name)
{
	cleanup_close int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	strcpy(address.sun_path, name);
	unlink(name);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 16) < 0)
		return -1;
	return take(&fd);
}

int control_open(void)
{
	monitor.attach = listen_at("attach");
	monitor.control = listen_at("control");
	unlink("ctl");
	if (monitor.attach < 0 || monitor.control < 0 || mkfifo("ctl", 0600) < 0)
		return -1;
	/* Open for writing too: it never ends when a writer leaves. */
	monitor.ctl = open("ctl", O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
	return monitor.ctl < 0 ? -1 : 0;
}

static void hang_up(int index)
{
	close(monitor.controls[index]);
	monitor.controls[index] = -1;
}

static size_t compose(struct control_message *message, enum control_kind kind)
{
	size_t length = 0;

	memset(message, 0, CONTROL_HEADER);
	message->kind = kind;
	switch (kind) {
	case SAY_CREATED:
		message->value = monitor.child;
		message->extra = monitor.child_ticks;
		message->time = monitor.created_at;
		break;
	case SAY_STARTED:
		message->time = monitor.started_at;
		break;
	case SAY_FAILED:
		length = failure_text(message->text, sizeof(message->text));
		message->step = (uint32_t)monitor.failure.step;
		message->error = monitor.failure.error;
		message->time = monitor.finished_at;
		message->value = (int32_t)monitor.failure.value;
		message->extra = monitor.plan.step_count;
		break;
	case SAY_EXITED:
		message->value = monitor.code;
		message->extra = monitor.oom;
		message->time = monitor.finished_at;
		break;
	case SAY_RESTARTING:
		message->value = monitor.restarts;
		message->extra = monitor.code;
		message->time = monitor.finished_at;
		break;
	}
	return CONTROL_HEADER + length;
}

static void say_to(int index, const struct control_message *message, size_t length)
{
	if (send(monitor.controls[index], message, length, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
		return;
	/* Whoever does not read a hundred kilobytes of these is not there any more. Whoever said something and left at
	 * once is heard first: the end of the connection comes behind it. The lease is only as good as who holds it. */
	if (index == 0 || errno != EPIPE)
		hang_up(index);
}

void control_say(enum control_kind kind)
{
	struct control_message message;
	size_t length = compose(&message, kind);

	for (int i = 0; i <= MAX_CONTROLS; i++)
		if (monitor.controls[i] >= 0)
			say_to(i, &message, length);
}

static void say_present(int index)
{
	enum control_kind kinds[3];
	struct control_message message;
	int count = 0;

	switch (monitor.phase) {
	case PHASE_SETUP:
		break;
	case PHASE_CREATED:
		kinds[count++] = SAY_CREATED;
		break;
	case PHASE_RUNNING:
		kinds[count++] = SAY_CREATED;
		kinds[count++] = SAY_STARTED;
		break;
	case PHASE_RESTARTING:
		kinds[count++] = SAY_RESTARTING;
		break;
	case PHASE_EXITED:
		kinds[count++] = SAY_CREATED;
		kinds[count++] = SAY_STARTED;
		kinds[count++] = SAY_EXITED;
		break;
	case PHASE_FAILED:
		kinds[count++] = SAY_FAILED;
		break;
	}
	for (int i = 0; i < count && monitor.controls[index] >= 0; i++)
		say_to(index, &message, compose(&message, kinds[i]));
}

void control_accept(void)
{
	int fd = accept4(monitor.control, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	for (int i = 1; i <= MAX_CONTROLS; i++) {
		if (monitor.controls[i] < 0) {
			monitor.controls[i] = fd;
			say_present(i);
			return;
		}
	}
	close(fd);
}

void control_receive(int index)
{
	struct control_message message;
	ssize_t length = recv(monitor.controls[index], &message, sizeof(message), MSG_DONTWAIT);

	/* It hung up without reading all that it got. That is said once, before what it had sent. */
	if (length < 0 && errno == ECONNRESET)
		length = recv(monitor.controls[index], &message, sizeof(message), MSG_DONTWAIT);
	if (length < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (length < (ssize_t)sizeof(message.kind)) {
		hang_up(index);
		return;
	}
	switch (message.kind) {
	case HEAR_START:
		fault(start_requested);
		monitor.start_wanted = true;
		give_start();
		break;
	case HEAR_RELEASE:
		monitor.released = true;
		break;
	case HEAR_STOPPING:
		monitor.stopping = true;
		break;
	case HEAR_ALLOW_RESTART:
		monitor.stopping = false;
		break;
	default:
		break; /* of an engine that is newer than we are */
	}
}

static void ctl_line(const char *line)
{
	struct winsize size = {0};
	long numbers[3], kind, rows, columns;
	char *end;

	for (int i = 0; i < 3; i++, line = end) {
		numbers[i] = strtol(line, &end, 10);
		if (end == line)
			return;
	}
	kind = numbers[0];
	rows = numbers[1];
	columns = numbers[2];
	if (kind == 2)
		log_reopen();
	if (kind != 1 || rows < 0 || rows > 0xffff || columns < 0 || columns > 0xffff)
		return;
	size.ws_row = (unsigned short)rows;
	size.ws_col = (unsigned short)columns;
	if (monitor.settings[SETTINGS_TERMINAL].number && monitor.out[0] >= 0)
		ioctl(monitor.out[0], TIOCSWINSZ, &size);
}

void ctl_receive(void)
{
	static char line[64];
	static size_t length;
	char bytes[256];
	ssize_t count = read(monitor.ctl, bytes, sizeof(bytes));

	for (ssize_t i = 0; i < count; i++) {
		if (bytes[i] == '\n') {
			line[length < sizeof(line) ? length : 0] = 0; /* too long is garbage */
			ctl_line(line);
			length = 0;
		} else if (length < sizeof(line)) {
			line[length++] = bytes[i];
		}
	}
}
