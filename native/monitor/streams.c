/* What the container writes, to the log and to attached clients; what clients send, to its stdin.
 *
 * One chunk is under way at a time. It is read when the one before has reached everybody: nothing is dropped, and a
 * slow reader is felt by the container as a full pipe. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "monitor.h"

void client_add(int fd, bool lossless)
{
	for (int i = lossless ? 0 : 1; i <= MAX_CLIENTS; i++) {
		struct client *client = &monitor.clients[i];

		if (client->fd >= 0)
			continue;
		/* It sees what comes from now on, not the rest of a chunk. */
		*client = (struct client){.fd = fd, .lossless = lossless, .reading = true, .sent = monitor.chunk_length};
		return;
	}
	close(fd);
}

void client_drop(struct client *client)
{
	close(client->fd);
	client->fd = -1;
	if (monitor.settings[SETTINGS_STDIN_ONCE].number)
		input_close();
}

static bool client_push(struct client *client)
{
	if (client->deaf)
		client->sent = monitor.chunk_length;
	while (client->sent < monitor.chunk_length) {
		char stream = monitor.chunk_stream == 0 ? 2 : 3;
		size_t left = monitor.chunk_length - client->sent, length = left < ATTACH_PACKET ? left : ATTACH_PACKET;
		struct iovec parts[2] = {{.iov_base = &stream, .iov_len = 1},
					 {.iov_base = monitor.chunk + client->sent, .iov_len = length}};
		struct msghdr packet = {.msg_iov = parts, .msg_iovlen = 2};

		if (sendmsg(client->fd, &packet, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) {
			client->sent += length;
			client->stalled_since = 0;
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN) {
			/* It has gone; what it sent before may still be waiting for the container. */
			if (client->reading)
				client->deaf = true;
			else
				client_drop(client);
			return true;
		}
		if (client->lossless)
			return false;
		if (client->stalled_since == 0)
			client->stalled_since = now_monotonic_ms();
		if (now_monotonic_ms() - client->stalled_since < CLIENT_PATIENCE_MS)
			return false;
		client_drop(client);
		return true;
	}
	return true;
}

bool chunk_push(void)
{
	bool done;

	if (monitor.chunk_length == 0)
		return true;
	done = log_push();
	for (int i = 0; i <= MAX_CLIENTS; i++)
		if (monitor.clients[i].fd >= 0 && !client_push(&monitor.clients[i]))
			done = false;
	if (!done)
		return false;
	monitor.chunk_length = monitor.chunk_logged = 0;
	for (int i = 0; i <= MAX_CLIENTS; i++)
		monitor.clients[i].sent = 0;
	return true;
}

void chunk_read(int stream)
{
	ssize_t length;

	do
		length = read(monitor.out[stream], monitor.chunk, CHUNK);
	while (length < 0 && errno == EINTR);
	if (length > 0) {
		monitor.chunk_stream = stream;
		monitor.chunk_length = (size_t)length;
		monitor.drain[stream] -= length;
		return;
	}
	if (length < 0 && errno == EAGAIN) {
		monitor.drain[stream] = 0;
		return;
	}
	/* The end of a pipe; EIO from a terminal that nobody has open. While the first process runs it can open its
	 * terminal again, so that stays, and is looked at from time to time. */
	monitor.drain[stream] = 0;
	if (monitor.settings[SETTINGS_TERMINAL].number && !monitor.child_ended) {
		monitor.terminal_retry_at = now_monotonic_ms() + TERMINAL_RETRY_MS;
		return;
	}
	if (monitor.in == monitor.out[stream])
		monitor.in = -1;
	close(monitor.out[stream]);
	monitor.out[stream] = -1;
}

void input_close(void)
{
	monitor.input_ends = true;
	input_push();
}

void input_push(void)
{
	while (monitor.in >= 0 && monitor.input_done < monitor.input_length) {
		ssize_t length = write(monitor.in, monitor.input + monitor.input_done,
				       monitor.input_length - monitor.input_done);

		if (length >= 0) {
			monitor.input_done += (size_t)length;
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno == EAGAIN)
			return;
		monitor.input_ends = true; /* nobody reads it any more */
		monitor.input_length = 0;
		break;
	}
	if (monitor.in < 0 && (!monitor.child_ended && monitor.phase < PHASE_RUNNING))
		return; /* not there yet */
	monitor.input_length = monitor.input_done = 0;
	if (monitor.input_ends && monitor.in >= 0 && !monitor.settings[SETTINGS_TERMINAL].number) {
		close(monitor.in);
		monitor.in = -1;
	}
}

void client_receive(struct client *client, short events)
{
	ssize_t length;

	if (!client->reading) {
		if (events & (POLLHUP | POLLERR))
			client_drop(client);
		return;
	}
	if (monitor.input_length > 0)
		return; /* its turn comes when the container has read what is there */
	length = recv(client->fd, monitor.input, STDIN_BUFFER, MSG_DONTWAIT);
	if (length < 0) {
		/* It hung up without reading all that it got. That is said once, before what it had sent. */
		if (errno != EAGAIN && errno != EINTR && errno != ECONNRESET)
			client_drop(client);
		return;
	}
	if (length == 0) {
		/* A closed socket hangs up; a client that only shut down its sending side says: end of stdin. */
		if (events & (POLLHUP | POLLERR)) {
			client_drop(client);
			return;
		}
		client->reading = false;
		input_close();
		return;
	}
	if (monitor.input_ends || !(monitor.settings[SETTINGS_STDIN].number || monitor.settings[SETTINGS_TERMINAL].number))
		return; /* there is no stdin */
	monitor.input_length = (size_t)length;
	monitor.input_done = 0;
	input_push();
}
