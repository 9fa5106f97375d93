/* The log: `2006-01-02T15:04:05.000000000+00:00 stdout F text` a line, P instead of F where the line goes on.
 *
 * A chunk is what one read gave. Its lines are written where they lie, with the same prefix before each, by as few
 * writev as possible. A disk that is full keeps the chunk here, and so the container waiting, until it is not. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "monitor.h"

static struct {
	int fd;
	int64_t size;
	struct iovec parts[LOG_PARTS];
	int next, count;
	char full[128], partial[128]; /* the prefixes of the chunk under way */
	size_t prefix_length;
} file; /* of a static program: no initial value, so that it is not part of the file either */

#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE 2
#endif

static const char newline[] = "\n";

int log_open(void)
{
	const char *path = monitor.settings[SETTINGS_LOG_PATH].data;
	struct stat status;

	file.fd = -1;
	if (path[0] == 0)
		return 0;
	file.fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (file.fd < 0 || fstat(file.fd, &status) < 0)
		return -1;
	file.size = status.st_size;
	return 0;
}

/* Somebody else has moved the file. Where the new one cannot be opened the old one goes on. */
void log_reopen(void)
{
	int old = file.fd;

	if (old < 0)
		return;
	if (log_open() == 0)
		close(old);
	else
		file.fd = old;
}

/* Between two lines. The new file takes the name from the old one in one step, so that whoever follows the log always
 * finds one. Where that fails (a full disk) the old file goes on: it grows, and nothing is lost. */
static void rotate(void)
{
	const char *path = monitor.settings[SETTINGS_LOG_PATH].data;
	int64_t files = monitor.settings[SETTINGS_LOG_MAX_FILES].number;
	char from[PATH_MAX + 32], to[PATH_MAX + 32], staged[PATH_MAX + 32];
	int fd;

	if (strlen(path) >= PATH_MAX)
		return;
	snprintf(staged, sizeof(staged), "%s.new", path);
	fd = open(staged, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return;
	for (int64_t i = files - 1; i >= 1; i--) {
		snprintf(from, sizeof(from), "%s.%lld", path, (long long)i);
		snprintf(to, sizeof(to), "%s.%lld", path, (long long)i + 1);
		rename(from, to);
	}
	if (syscall(SYS_renameat2, AT_FDCWD, staged, AT_FDCWD, path, RENAME_EXCHANGE) < 0) {
		close(fd);
		unlink(staged);
		return;
	}
	fault(log_rotated);
	snprintf(to, sizeof(to), "%s.1", path);
	if (files > 0)
		rename(staged, to);
	else
		unlink(staged);
	close(file.fd);
	file.fd = fd;
	file.size = 0;
}

/* The civil date of a day since 1970 in the proleptic Gregorian calendar, by eras of 400 years that begin in March. */
static void format_second(char *text, size_t size, time_t time)
{
	int64_t days = time / 86400, second = time % 86400, era, day, year, index;

	days += 719468; /* from 0000-03-01 to 1970-01-01 */
	era = days / 146097;
	day = days % 146097;
	year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
	day -= 365 * year + year / 4 - year / 100;
	index = (5 * day + 2) / 153; /* the month, from March */
	day = day - (153 * index + 2) / 5 + 1;
	year += era * 400 + (index >= 10);
	snprintf(text, size, "%04d-%02d-%02dT%02d:%02d:%02d", (int)year, (int)(index < 10 ? index + 3 : index - 9), (int)day,
		 (int)(second / 3600), (int)(second / 60 % 60), (int)(second % 60));
}

static size_t format_time(char *text, size_t size)
{
	static time_t known = -1;
	static char second[80];
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (now.tv_sec != known) {
		format_second(second, sizeof(second), now.tv_sec);
		known = now.tv_sec;
	}
	return (size_t)snprintf(text, size, "%s.%09ld+00:00 %s F ", second, now.tv_nsec,
				monitor.chunk_stream == 0 ? "stdout" : "stderr");
}

static void add(const char *bytes, size_t length)
{
	file.parts[file.count].iov_base = (void *)(uintptr_t)bytes;
	file.parts[file.count++].iov_len = length;
}

static void next_batch(void)
{
	int64_t most = monitor.settings[SETTINGS_LOG_MAX_SIZE].number, size;

	if (most > 0 && file.size >= most)
		rotate();
	if (monitor.chunk_logged == 0) {
		file.prefix_length = format_time(file.full, sizeof(file.full));
		memcpy(file.partial, file.full, file.prefix_length);
		file.partial[file.prefix_length - 2] = 'P';
	}
	file.next = file.count = 0;
	size = file.size;
	while (monitor.chunk_logged < monitor.chunk_length && file.count + 3 <= LOG_PARTS &&
	       (file.count == 0 || most <= 0 || size < most)) {
		const char *line = monitor.chunk + monitor.chunk_logged;
		size_t left = monitor.chunk_length - monitor.chunk_logged;
		const char *end = memchr(line, '\n', left);
		size_t length = end == NULL ? left : (size_t)(end - line) + 1;

		add(end == NULL ? file.partial : file.full, file.prefix_length);
		add(line, length);
		if (end == NULL)
			add(newline, 1);
		monitor.chunk_logged += length;
		size += (int64_t)(file.prefix_length + length);
	}
}

static void advance(size_t written)
{
	file.size += (int64_t)written;
	while (file.next < file.count && written >= file.parts[file.next].iov_len)
		written -= file.parts[file.next++].iov_len;
	if (file.next < file.count) {
		file.parts[file.next].iov_base = (char *)file.parts[file.next].iov_base + written;
		file.parts[file.next].iov_len -= written;
	}
}

bool log_push(void)
{
	ssize_t written;

	if (file.fd < 0)
		return true;
	if (monitor.log_blocked && now_monotonic_ms() < monitor.log_retry_at)
		return false;
	for (;;) {
		if (file.next == file.count) {
			if (monitor.chunk_logged == monitor.chunk_length)
				break;
			next_batch();
		}
		written = writev(file.fd, file.parts + file.next, file.count - file.next);
		if (written > 0) {
			advance((size_t)written);
			monitor.log_retry_delay = 0;
			continue;
		}
		if (written < 0 && errno == EINTR)
			continue;
		monitor.log_retry_delay *= 2;
		if (monitor.log_retry_delay < LOG_RETRY_MIN_MS)
			monitor.log_retry_delay = LOG_RETRY_MIN_MS;
		if (monitor.log_retry_delay > LOG_RETRY_MAX_MS)
			monitor.log_retry_delay = LOG_RETRY_MAX_MS;
		monitor.log_retry_at = now_monotonic_ms() + monitor.log_retry_delay;
		monitor.log_blocked = true;
		return false;
	}
	monitor.log_blocked = false;
	return true;
}
