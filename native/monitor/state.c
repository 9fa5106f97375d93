/* The facts about the container, in its run directory: each change replaces the file as a whole. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "monitor.h"

static const char *const phases[] = {"created", "created", "running", "restarting", "exited", "failed"};

/* With its start time, in clock ticks since boot, a pid names a process for ever. 0 when it is gone. */
int64_t start_ticks(pid_t pid)
{
	char path[32], text[1024];
	const char *cursor;
	cleanup_close int fd = -1;
	ssize_t length;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	length = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (length <= 0)
		return 0;
	text[length] = 0;
	cursor = strrchr(text, ')'); /* the name may hold anything */
	for (int column = 2; cursor != NULL && column < 22; column++)
		cursor = strchr(cursor + 1, ' ');
	return cursor == NULL ? 0 : strtoll(cursor + 1, NULL, 10);
}

static void replace(const char *name, const char *staged, const char *text, int length)
{
	cleanup_close int fd = open(staged, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd >= 0 && write(fd, text, (size_t)length) == length)
		rename(staged, name);
}

void write_state(void)
{
	bool lives = monitor.child > 0 && !monitor.child_ended;
	char text[512];
	int length;

	length = snprintf(text, sizeof(text),
			  "phase=%s monitor=%d:%lld pid=%d:%lld created=%lld started=%lld finished=%lld code=%d oom=%d "
			  "restarts=%d\n",
			  phases[monitor.phase], (int)getpid(), (long long)monitor.own_ticks,
			  lives ? (int)monitor.child : 0, lives ? (long long)monitor.child_ticks : 0,
			  (long long)monitor.created_at, (long long)monitor.started_at, (long long)monitor.finished_at,
			  monitor.code, monitor.oom, monitor.restarts);
	replace("state", ".state.new", text, length);
	fault(state_written);
}

/* What failed, for somebody who does not have the plan: the detail, and on a line of its own what the step was about
 * (the command, the directory, the user). Sets the kind of the step in the failure. */
size_t failure_text(char *text, size_t size)
{
	const char *cursor = monitor.plan.steps, *subject = "";
	struct record step;

	for (int number = 1; number <= monitor.failure.step && cursor != NULL; number++) {
		if (plan_next(&cursor, monitor.plan.end, &step) < 0)
			break;
		if (number < monitor.failure.step)
			continue;
		monitor.failure.value = (int)step.kind;
		if (step.kind == KIND_EXEC) {
			cursor = step.fields[EXEC_ARGV].data;
			subject = text_next(&cursor);
		} else if (step.kind == KIND_CHDIR || step.kind == KIND_LOOKUP_USER) {
			subject = step.fields[0].data;
		}
	}
	snprintf(text, size, "%s\n%s", monitor.failure.text, subject);
	return strlen(text);
}

/* For engines that come later: why the start failed. */
void write_error(void)
{
	char text[1024], why[900];
	int length;

	failure_text(why, sizeof(why));
	length = snprintf(text, sizeof(text), "%d %d %d %d %s\n", monitor.failure.step, monitor.plan.step_count,
			  monitor.failure.value, monitor.failure.error, why);
	replace("error", ".error.new", text, length);
}
