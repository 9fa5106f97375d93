#include "child.h"

#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel.h"

int explain(struct child *child, const char *format, ...)
{
	int saved = errno;
	va_list arguments;

	if (child->detail[0] == 0) { /* the innermost knows best */
		va_start(arguments, format);
		vsnprintf(child->detail, sizeof(child->detail), format, arguments);
		va_end(arguments);
	}
	errno = saved;
	return -1;
}

void child_fail(struct child *child, int step)
{
	struct child_message message = {.kind = CHILD_FAILED, .step = step, .error = errno};

	memcpy(message.text, child->detail, sizeof(message.text));
	child_tell(child->report, &message, NULL, 0);
}

static int await_start(struct child *child)
{
	struct child_message message = {.kind = CHILD_READY};
	char go;

	if (child_tell(child->report, &message, NULL, 0) < 0)
		return -1;
	if (read(child->report, &go, 1) == 1)
		return 0;
	errno = EPIPE;
	return explain(child, "the monitor is gone");
}

static int do_step(struct child *child, const struct record *step)
{
	const struct field *fields = step->fields;

	switch (step->kind) {
	case KIND_UNSHARE_CGROUP:
		return unshare(CLONE_NEWCGROUP);
	case KIND_LOOPBACK:
		return do_loopback();
	case KIND_PROPAGATION:
		return do_propagation(child, fields);
	case KIND_OVERLAY:
		return child->source >= 0 ? attach_root(child) : do_overlay(child, fields);
	case KIND_BIND_ROOT:
		return child->source >= 0 ? attach_root(child) : do_bind_root(child, fields);
	case KIND_MOUNT:
		return do_mount(child, fields);
	case KIND_BIND:
		return do_bind(child, fields);
	case KIND_MAKE_DIRECTORY:
		return do_make_directory(child, fields);
	case KIND_SYMLINK:
		return do_symlink(child, fields);
	case KIND_DEVICE:
		return do_device(child, fields);
	case KIND_MASK_PATH:
		return do_mask_path(child, fields);
	case KIND_READONLY_PATH:
		return do_readonly_path(child, fields);
	case KIND_READONLY_ROOT:
		return do_readonly_root(child);
	case KIND_PIVOT_ROOT:
		return do_pivot_root(child, fields);
	case KIND_SET_HOSTNAME:
		return sethostname(fields[0].data, (size_t)fields[0].number);
	case KIND_SET_DOMAINNAME:
		return setdomainname(fields[0].data, (size_t)fields[0].number);
	case KIND_SYSCTL:
		return do_sysctl(child, fields);
	case KIND_RLIMIT:
		return do_rlimit(child, fields);
	case KIND_OOM_SCORE:
		return do_oom_score(child, fields);
	case KIND_NEW_SESSION:
		return setsid() < 0 ? -1 : 0;
	case KIND_TERMINAL:
		return do_terminal(child, fields);
	case KIND_LOOKUP_USER:
		return do_lookup_user(child, fields);
	case KIND_AWAIT_START:
		return await_start(child);
	case KIND_USER:
		return do_user(child, fields);
	case KIND_CAPABILITIES:
		return do_capabilities(child, fields);
	case KIND_NO_NEW_PRIVILEGES:
		return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	case KIND_SECCOMP:
		return do_seccomp(child, fields);
	case KIND_CHDIR:
		return do_chdir(child, fields);
	case KIND_EXEC:
		return do_exec(child, fields);
	default:
		errno = EINVAL;
		return explain(child, "unknown kind of step");
	}
}

void child_run(struct child *child)
{
	const char *cursor = child->plan->steps;
	struct record step;

	child->root = child->null = child->empty = child->proc = -1;
	child->source = child->plan->opens_sources ? FIRST_DESCRIPTOR + child->plan->descriptor_count : -1;
	umask(0); /* modes are as the plan says */
	if (open_stdio(child) < 0) {
		explain(child, "make the standard streams");
		child_fail(child, 0);
		return;
	}
	/* Before anything masks the procfs that a user namespace needs to see for a new one. */
	if (child->plan->needs_proc && open_private_proc(child) < 0) {
		explain(child, "mount a private procfs");
		child_fail(child, 0);
		return;
	}
	for (int number = 1; number <= child->plan->step_count; number++) {
		if (plan_next(&cursor, child->plan->end, &step) < 0) {
			child_fail(child, number);
			return;
		}
		if (number <= child->plan->joins)
			continue; /* done before this process was made */
		child->detail[0] = 0;
		if (step.kind == KIND_USER && step.fields[USER_UMASK].number >= 0) {
			umask((mode_t)step.fields[USER_UMASK].number);
			child->umask_set = true;
		}
		if (step.kind == KIND_EXEC && !child->umask_set)
			umask(022);
		if (do_step(child, &step) < 0) {
			child_fail(child, number);
			return;
		}
		if (child->source >= 0)
			child->source += sources_of(&step);
	}
}
