#include "plan.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "kernel.h"

#define MAX_ID 0x7fffffff /* CVE-2024-40635: an id beyond becomes 0 somewhere down the road */
#define MAX_MAP_LINES 340 /* of the kernel, user_namespaces(7) */
#define MAX_FILTER 4096	  /* BPF_MAXINSNS */
#define ALL_NAMESPACES                                                                                                 \
	(CLONE_NEWTIME | CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID |  \
	 CLONE_NEWNET)
#define SECCOMP_FLAGS_ALLOWED 0x17 /* TSYNC, LOG, SPEC_ALLOW, TSYNC_ESRCH: not NEW_LISTENER, which makes a descriptor */

static const struct {
	int64_t kind;
	const char *types;
} kinds[] = {
#define KIND(name, number, types) {number, types},
	RECORD_KINDS(KIND)
#undef KIND
};

static int invalid(void)
{
	errno = EINVAL;
	return -1;
}

static int read_integer(const char **cursor, const char *end, int64_t *value)
{
	if (end - *cursor < 8)
		return invalid();
	memcpy(value, *cursor, 8);
	*cursor += 8;
	return 0;
}

static int read_bytes(const char **cursor, const char *end, struct field *field, bool text)
{
	int64_t padded;

	if (read_integer(cursor, end, &field->number) < 0)
		return -1;
	if (field->number < 0 || field->number >= end - *cursor)
		return invalid();
	padded = field->number + (8 - field->number % 8);
	if (padded > end - *cursor)
		return invalid();
	field->data = *cursor;
	if (text && memchr(field->data, 0, (size_t)field->number) != NULL)
		return invalid();
	for (int64_t at = field->number; at < padded; at++)
		if (field->data[at] != 0)
			return invalid();
	*cursor += padded;
	return 0;
}

static int read_list(const char **cursor, const char *end, struct field *field, bool text)
{
	struct field element;

	if (read_integer(cursor, end, &field->number) < 0)
		return -1;
	/* An element takes at least 8 bytes, so a count beyond that is a lie, and the loop below is bounded. */
	if (field->number < 0 || field->number > (end - *cursor) / 8)
		return invalid();
	field->data = *cursor;
	for (int64_t i = 0; i < field->number; i++)
		if ((text ? read_bytes(cursor, end, &element, true) : read_integer(cursor, end, &element.number)) < 0)
			return -1;
	return 0;
}

static int read_field(const char **cursor, const char *end, char type, struct field *field)
{
	field->data = NULL;
	switch (type) {
	case 'i':
		return read_integer(cursor, end, &field->number);
	case 'b':
		if (read_integer(cursor, end, &field->number) < 0 || (field->number & ~(int64_t)1) != 0)
			return invalid();
		return 0;
	case 't':
		return read_bytes(cursor, end, field, true);
	case 'y':
		return read_bytes(cursor, end, field, false);
	case 'I':
		return read_list(cursor, end, field, false);
	case 'T':
		return read_list(cursor, end, field, true);
	default:
		return invalid();
	}
}

int plan_next(const char **cursor, const char *end, struct record *record)
{
	const char *types = NULL, *body_end;
	int64_t length;

	if (read_integer(cursor, end, &record->kind) < 0 || read_integer(cursor, end, &length) < 0)
		return -1;
	if (length < 0 || length > end - *cursor)
		return invalid();
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (kinds[i].kind == record->kind)
			types = kinds[i].types;
	if (types == NULL)
		return invalid();
	body_end = *cursor + length;
	for (int i = 0; types[i] != 0; i++)
		if (read_field(cursor, body_end, types[i], &record->fields[i]) < 0)
			return -1;
	return *cursor == body_end ? 0 : invalid();
}

const char *text_next(const char **cursor)
{
	const char *text = *cursor + 8;
	int64_t length;

	memcpy(&length, *cursor, 8);
	*cursor = text + length + (8 - length % 8);
	return text;
}

int64_t integer_next(const char **cursor)
{
	int64_t value;

	memcpy(&value, *cursor, 8);
	*cursor += 8;
	return value;
}

int plan_descriptor(const struct plan *plan, const char *name)
{
	const char *cursor = plan->descriptor_names;

	for (int i = 0; i < plan->descriptor_count; i++)
		if (strcmp(text_next(&cursor), name) == 0)
			return FIRST_DESCRIPTOR + i;
	return -1;
}

static bool within(const struct field *field, int64_t least, int64_t most)
{
	return field->number >= least && field->number <= most;
}

static bool all_within(const struct field *list, int64_t least, int64_t most)
{
	const char *cursor = list->data;

	for (int64_t i = 0; i < list->number; i++) {
		int64_t value = integer_next(&cursor);

		if (value < least || value > most)
			return false;
	}
	return true;
}

/* What makes sense by itself; what depends on other steps is in check_order. NULL when it does. */
static const char *check_step(const struct plan *plan, const struct record *step)
{
	const struct field *fields = step->fields;
	char name[8] = "3";

	switch (step->kind) {
	case KIND_JOIN_NAMESPACE:
		if (fields[0].number == 0 || (fields[0].number & ~(int64_t)ALL_NAMESPACES) != 0)
			return "not a namespace";
		return plan_descriptor(plan, fields[JOIN_NAMESPACE_DESCRIPTOR].data) < 0 ? "no such descriptor" : NULL;
	case KIND_BIND:
		if (fields[BIND_IDMAP].number != 0 && plan_descriptor(plan, fields[BIND_IDMAP].data) < 0)
			return "no such descriptor";
		return NULL;
	case KIND_MAKE_DIRECTORY:
		return within(&fields[MAKE_DIRECTORY_MODE], 0, 07777) ? NULL : "not a mode";
	case KIND_DEVICE:
		if (!S_ISCHR((mode_t)fields[DEVICE_MODE].number) && !S_ISBLK((mode_t)fields[DEVICE_MODE].number) &&
		    !S_ISFIFO((mode_t)fields[DEVICE_MODE].number))
			return "not a device";
		if (!within(&fields[DEVICE_MODE], 0, 0177777) || !within(&fields[DEVICE_MAJOR], 0, 0xfff) ||
		    !within(&fields[DEVICE_MINOR], 0, 0xfffff))
			return "not a device number";
		if (!within(&fields[DEVICE_UID], 0, MAX_ID) || !within(&fields[DEVICE_GID], 0, MAX_ID))
			return "id out of range";
		return NULL;
	case KIND_RLIMIT:
		return within(&fields[RLIMIT_RESOURCE], 0, 63) ? NULL : "not a limit";
	case KIND_OOM_SCORE:
		return within(&fields[OOM_SCORE_VALUE], -1000, 1000) ? NULL : "not within -1000 and 1000";
	case KIND_TERMINAL:
		return within(&fields[0], 0, 0xffff) && within(&fields[1], 0, 0xffff) ? NULL : "not a size";
	case KIND_USER:
		if (!within(&fields[USER_UID], -1, MAX_ID) || !within(&fields[USER_GID], -1, MAX_ID) ||
		    !all_within(&fields[USER_GROUPS], 0, MAX_ID))
			return "id out of range";
		if (fields[USER_GROUPS].number > 65536)
			return "too many groups";
		return within(&fields[USER_UMASK], -1, 0777) ? NULL : "not a umask";
	case KIND_SECCOMP:
		if (fields[SECCOMP_FILTER].number == 0 || fields[SECCOMP_FILTER].number % 8 != 0 ||
		    fields[SECCOMP_FILTER].number > MAX_FILTER * 8)
			return "not a filter";
		return (fields[SECCOMP_FLAGS].number & ~(int64_t)SECCOMP_FLAGS_ALLOWED) == 0 ? NULL : "unknown flags";
	case KIND_EXEC:
		if (fields[EXEC_ARGV].number == 0)
			return "nothing to execute";
		if (!within(&fields[EXEC_KEEP], 0, 6))
			return "more descriptors than can be kept";
		for (int64_t i = 0; i < fields[EXEC_KEEP].number; i++) {
			name[0] = (char)('3' + i);
			if (plan_descriptor(plan, name) < 0)
				return "no such descriptor";
		}
		return NULL;
	default:
		return NULL;
	}
}

static bool mounts(const struct record *step)
{
	switch (step->kind) {
	case KIND_PROPAGATION:
	case KIND_OVERLAY:
	case KIND_BIND_ROOT:
	case KIND_MOUNT:
	case KIND_BIND:
	case KIND_MASK_PATH:
	case KIND_READONLY_PATH:
	case KIND_READONLY_ROOT:
	case KIND_PIVOT_ROOT:
		return true;
	case KIND_TERMINAL:
		return step->fields[TERMINAL_CONSOLE].number != 0;
	case KIND_LOOKUP_USER:
		return step->fields[LOOKUP_USER_PASSWD].number != 0;
	default:
		return false;
	}
}

struct order {
	int64_t joined; /* kinds of namespaces */
	bool root, pivoted, looked_up, ended;
};

/* A plan without namespaces of its own must not change those of the host: this is the last place to notice. */
static const char *check_order(struct plan *plan, const struct record *step, struct order *order)
{
	int64_t own = plan->settings.fields[SETTINGS_NAMESPACES].number;

	if (order->ended)
		return "a step after the last";
	if (mounts(step) && (own & CLONE_NEWNS) == 0)
		return "needs a mount namespace of its own";
	switch (step->kind) {
	case KIND_OPEN_SOURCES:
		if ((own & CLONE_NEWNS) == 0)
			return "needs a mount namespace of its own";
		break;
	case KIND_JOIN_NAMESPACE:
		order->joined |= step->fields[0].number;
		break;
	case KIND_OVERLAY:
	case KIND_BIND_ROOT:
		if (order->root)
			return "a second root";
		order->root = true;
		break;
	case KIND_MOUNT:
	case KIND_BIND:
	case KIND_MASK_PATH:
	case KIND_READONLY_PATH:
	case KIND_READONLY_ROOT:
	case KIND_MAKE_DIRECTORY:
	case KIND_SYMLINK:
	case KIND_DEVICE:
		if (!order->root)
			return "needs a root first";
		break;
	case KIND_PIVOT_ROOT:
		if (!order->root || order->pivoted)
			return "needs a root first";
		order->pivoted = true;
		break;
	case KIND_LOOPBACK:
		return ((own | order->joined) & CLONE_NEWNET) == 0 ? "needs a network namespace" : NULL;
	case KIND_SET_HOSTNAME:
	case KIND_SET_DOMAINNAME:
		return ((own | order->joined) & CLONE_NEWUTS) == 0 ? "needs a uts namespace" : NULL;
	case KIND_SYSCTL:
	case KIND_OOM_SCORE:
		plan->needs_proc = true;
		break;
	case KIND_TERMINAL:
		plan->has_terminal = true;
		break;
	case KIND_AWAIT_START:
		plan->has_await = true;
		break;
	case KIND_LOOKUP_USER:
		if (step->fields[LOOKUP_USER_PASSWD].number != 0 && (!order->root || order->pivoted))
			return "the host's file is out of reach";
		order->looked_up = true;
		break;
	case KIND_USER:
		if ((step->fields[USER_UID].number < 0 || step->fields[USER_GID].number < 0) && !order->looked_up)
			return "no user was looked up";
		break;
	case KIND_EXEC:
		order->ended = true;
		plan->exec = *step;
		break;
	default:
		break;
	}
	return NULL;
}

static const char *check_settings(const struct record *settings)
{
	const struct field *fields = settings->fields, *maps[] = {&fields[SETTINGS_UID_MAP], &fields[SETTINGS_GID_MAP]};
	bool user = (fields[SETTINGS_NAMESPACES].number & CLONE_NEWUSER) != 0;

	if (settings->kind != KIND_SETTINGS)
		return "no settings";
	if ((fields[SETTINGS_NAMESPACES].number & ~(int64_t)ALL_NAMESPACES) != 0)
		return "not a namespace";
	for (int i = 0; i < 2; i++) {
		if (maps[i]->number % 3 != 0 || maps[i]->number > 3 * MAX_MAP_LINES || (maps[i]->number != 0) != user)
			return "not an id map";
		if (!all_within(maps[i], 0, UINT32_MAX))
			return "id out of range";
	}
	if (fields[SETTINGS_LOG_MAX_SIZE].number < 0 || !within(&fields[SETTINGS_LOG_MAX_FILES], 0, 1000))
		return "not a size of the log";
	if (!within(&fields[SETTINGS_RESTART], 0, 2) || !within(&fields[SETTINGS_RESTART_RETRIES], 0, INT32_MAX))
		return "not a restart policy";
	return NULL;
}

static int refuse(const char **why, const char *text)
{
	*why = text;
	return invalid();
}

int plan_open(struct plan *plan, const void *data, size_t length, const char **why, int *step_number)
{
	const char *cursor = data, *end = cursor + length;
	struct order order = {0};
	struct field names;
	struct record step;
	int64_t body, count;

	memset(plan, 0, sizeof(*plan));
	*step_number = 0;
	plan->end = end;
	if (length < 16 || length > MAX_PLAN || memcmp(cursor, "PYPLAN1", 8) != 0)
		return refuse(why, "not a plan");
	cursor += 8;
	if (read_integer(&cursor, end, &body) < 0 || body != end - cursor)
		return refuse(why, "the length is wrong");
	if (plan_next(&cursor, end, &plan->settings) < 0)
		return refuse(why, "the settings do not parse");
	if ((*why = check_settings(&plan->settings)) != NULL)
		return invalid();
	if (read_list(&cursor, end, &names, true) < 0 || names.number > MAX_DESCRIPTORS)
		return refuse(why, "the names of the descriptors do not parse");
	plan->descriptor_names = names.data;
	plan->descriptor_count = (int)names.number;
	if (read_integer(&cursor, end, &count) < 0 || count < 1 || count > MAX_STEPS)
		return refuse(why, "the number of steps is wrong");
	plan->step_count = (int)count;
	plan->steps = cursor;
	for (int i = 0; i < plan->step_count; i++) {
		*step_number = i + 1;
		if (plan_next(&cursor, end, &step) < 0 || step.kind == KIND_SETTINGS)
			return refuse(why, "the step does not parse");
		if (step.kind == KIND_OPEN_SOURCES) {
			plan->opens_sources = true;
			if (i != 0)
				return refuse(why, "sources are opened before anything else");
		}
		if ((step.kind == KIND_OPEN_SOURCES || step.kind == KIND_JOIN_NAMESPACE) && i != plan->joins++)
			return refuse(why, "namespaces are joined before anything else");
		if ((*why = check_step(plan, &step)) != NULL || (*why = check_order(plan, &step, &order)) != NULL)
			return invalid();
	}
	*step_number = 0;
	if (cursor != end)
		return refuse(why, "bytes after the last step");
	if (!order.ended)
		return refuse(why, "a plan ends with Exec");
	if (plan->has_terminal != (plan->settings.fields[SETTINGS_TERMINAL].number != 0))
		return refuse(why, "the settings and the steps disagree about the terminal");
	return 0;
}
