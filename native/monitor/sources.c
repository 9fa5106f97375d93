/* OpenSources: what is mounted, as root of the host sees it, before a user namespace is entered.
 *
 * All of it happens in the process in between, in a mount namespace of its own that ends with it. What is handed on are
 * detached mounts, one behind the other after the descriptors of the plan; the container's process attaches them. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "child.h"
#include "kernel.h"

int sources_of(const struct record *step)
{
	switch (step->kind) {
	case KIND_OVERLAY:
	case KIND_BIND_ROOT:
	case KIND_BIND:
		return 1;
	case KIND_LOOKUP_USER:
		return step->fields[LOOKUP_USER_PASSWD].number != 0 ? 2 : 0;
	default:
		return 0;
	}
}

/* Moves the descriptor to its place, the next that is free there. */
static int keep(struct child *child, int fd)
{
	cleanup_close int from = fd;
	int kept;

	if (from < 0)
		return -1;
	kept = fcntl(from, F_DUPFD_CLOEXEC, FIRST_DESCRIPTOR + child->plan->descriptor_count);
	return kept < 0 ? explain(child, "more mounts than open files: see ulimit -n") : 0;
}

static int own_mounts(struct child *child)
{
	if (unshare(CLONE_NEWNS) < 0)
		return explain(child, "make a mount namespace");
	return mount("", "/", NULL, MS_SLAVE | MS_REC, NULL);
}

/* The files of the store belong to id 0, who is nobody in the user namespace: here they get its ids. */
static int map_store(struct child *child, const struct field *fields)
{
	struct mount_attributes idmap = {.set = MOUNT_ATTR_IDMAP};
	const char *store = fields[OPEN_SOURCES_STORE].data;
	cleanup_close int mount = sys_open_tree(AT_FDCWD, store, OPEN_TREE_CLONE), target = -1;

	if (mount < 0)
		return explain(child, "open %s", store);
	idmap.userns = (uint64_t)plan_descriptor(child->plan, fields[OPEN_SOURCES_IDMAP].data);
	if (sys_mount_setattr(mount, 0, &idmap) < 0)
		return explain(child, "the file system of %s does not do id-mapped mounts, or not for us", store);
	target = open(store, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return target < 0 ? -1 : sys_move_mount(mount, target);
}

/* overlayfs makes things in the working directory as whoever mounted it: that has to be somebody whom the mapped mount
 * has a number for. All capabilities stay, which setfsuid takes half away. */
static int become_owner(const char *path)
{
	struct stat status;

	if (stat(path, &status) < 0)
		return -1;
	setfsgid(status.st_gid);
	setfsuid(status.st_uid);
	if ((uid_t)setfsuid((uid_t)-1) != status.st_uid || (gid_t)setfsgid((gid_t)-1) != status.st_gid) {
		errno = EPERM;
		return -1;
	}
	return regain_capabilities();
}

static int mount_overlay(struct child *child, const struct field *store, const struct field *fields)
{
	cleanup_close int root = -1, clone = -1;
	int result;

	if (map_store(child, store) < 0)
		return -1;
	if (fields[OVERLAY_WORK].number != 0 && become_owner(fields[OVERLAY_WORK].data) < 0)
		return explain(child, "act for the owner of %s", fields[OVERLAY_WORK].data);
	result = do_overlay(child, fields);
	if (result < 0 && errno == EINVAL)
		explain(child, "overlays of id-mapped layers need Linux 5.19");
	setfsuid(0);
	setfsgid(0);
	if (result < 0)
		return -1;
	root = child->root;
	child->root = -1;
	clone = sys_open_tree(root, "", AT_EMPTY_PATH | OPEN_TREE_CLONE);
	/* With the overlay on it: a bind of what is around the store is to show the host's. */
	if (clone < 0 || umount2(store[OPEN_SOURCES_STORE].data, MNT_DETACH) < 0)
		return -1;
	return take(&clone);
}

static int open_step(struct child *child, const struct field *store, const struct record *step)
{
	const struct field *fields = step->fields;
	int mount, fd;

	switch (step->kind) {
	case KIND_OVERLAY:
		return keep(child, mount_overlay(child, store, fields));
	case KIND_BIND_ROOT:
		return keep(child, sys_open_tree(AT_FDCWD, fields[BIND_ROOT_SOURCE].data,
						 OPEN_TREE_CLONE |
							 (fields[BIND_ROOT_RECURSIVE].number ? AT_RECURSIVE : 0u)));
	case KIND_BIND:
		return keep(child, open_bind(child, fields));
	case KIND_LOOKUP_USER:
		if (sources_of(step) == 0)
			return 0;
		fd = open_passwd(fields[LOOKUP_USER_PASSWD].data, &mount);
		if (fd < 0)
			return explain(child, "open %s", fields[LOOKUP_USER_PASSWD].data);
		return keep(child, fd) < 0 ? -1 : keep(child, mount);
	default:
		return 0;
	}
}

int open_sources(struct child *child)
{
	const char *cursor = child->plan->steps;
	struct record first, step;
	int count = 0;

	child->root = child->source = -1;
	if (plan_next(&cursor, child->plan->end, &first) < 0 || own_mounts(child) < 0) {
		child_fail(child, 1);
		return -1;
	}
	for (int number = 2; number <= child->plan->step_count; number++) {
		if (plan_next(&cursor, child->plan->end, &step) < 0 || open_step(child, first.fields, &step) < 0) {
			child_fail(child, number);
			return -1;
		}
		count += sources_of(&step);
	}
	return count;
}
