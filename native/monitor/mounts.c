/* Mounts below the root: made detached, given their attributes while nobody can reach them, then attached by
 * descriptor to a target that was resolved inside the root. No path is resolved twice. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "child.h"
#include "kernel.h"

static int split_option(const char *option, char *key, size_t size, const char **value)
{
	const char *equals = strchr(option, '=');
	size_t length = equals == NULL ? strlen(option) : (size_t)(equals - option);

	if (length == 0 || length >= size) {
		errno = EINVAL;
		return -1;
	}
	memcpy(key, option, length);
	key[length] = 0;
	*value = equals == NULL ? NULL : equals + 1;
	return 0;
}

/* The kernel's own words about a refused option: "e tmpfs: Bad value for 'size'". */
static int explain_context(struct child *child, int context, const char *option)
{
	char text[MAX_DETAIL + 1];
	int saved = errno;
	ssize_t length = read(context, text, sizeof(text) - 1);

	if (length > 2) {
		text[length] = 0;
		text[strcspn(text, "\n")] = 0;
		explain(child, "%s", text + 2);
	} else if (option != NULL) {
		explain(child, "option %s", option);
	}
	errno = saved;
	return -1;
}

/* A detached mount of a new file system. */
static int new_mount(struct child *child, const char *fstype, const char *source, const struct field *data,
		     unsigned int attributes)
{
	cleanup_close int context = sys_fsopen(fstype);
	const char *cursor = data->data, *value;
	char key[64];
	int mount;

	if (context < 0)
		return errno == ENODEV ? explain(child, "the kernel has no file system %s", fstype) : -1;
	if (source[0] != 0 && sys_fsconfig(context, FSCONFIG_SET_STRING, "source", source) < 0)
		return explain_context(child, context, NULL);
	for (int64_t i = 0; i < data->number; i++) {
		const char *option = text_next(&cursor);

		if (split_option(option, key, sizeof(key), &value) < 0 ||
		    sys_fsconfig(context, value == NULL ? FSCONFIG_SET_FLAG : FSCONFIG_SET_STRING, key, value) < 0)
			return explain_context(child, context, option);
	}
	if (sys_fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL) < 0)
		return explain_context(child, context, NULL);
	mount = sys_fsmount(context, attributes);
	if (mount < 0 && errno == EPERM && (strcmp(fstype, "proc") == 0 || strcmp(fstype, "sysfs") == 0))
		return explain(child, "a user namespace may have a new one only where a whole %s is visible", fstype);
	return mount < 0 ? explain_context(child, context, NULL) : mount;
}

static bool has_mode(const struct field *data)
{
	const char *cursor = data->data;

	for (int64_t i = 0; i < data->number; i++)
		if (strncmp(text_next(&cursor), "mode=", 5) == 0)
			return true;
	return false;
}

/* The new file system begins as the directory that it covers. */
static int fill(struct child *child, const char *target, int mount, bool keep_mode)
{
	cleanup_close int source = open_below(child->root, target, O_RDONLY | O_DIRECTORY);
	struct stat status;

	if (source < 0)
		return errno == ENOENT ? 0 : -1;
	if (fstat(source, &status) < 0)
		return -1;
	if (!keep_mode && fchmodat(mount, ".", status.st_mode & 07777, 0) < 0)
		return -1;
	if (fchownat(mount, ".", status.st_uid, status.st_gid, 0) < 0)
		return -1;
	return copy_up(child, source, mount);
}

/* Masks and read-only paths are looked up after the mount: if the image's /proc or /sys is a link, whoever can change it
 * meanwhile (another container on the same files) keeps them off the real one (CVE-2019-19921, CVE-2023-27561). */
static bool is_link(struct child *child, const char *fstype, const char *path)
{
	cleanup_close int fd = -1;

	if (strcmp(fstype, "proc") != 0 && strcmp(fstype, "sysfs") != 0)
		return false;
	fd = sys_openat2(child->root, path, O_PATH | O_CLOEXEC, 0, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS);
	return fd < 0 && errno == ELOOP;
}

int do_mount(struct child *child, const struct field *fields)
{
	const char *target_path = fields[MOUNT_TARGET].data;
	struct mount_attributes attributes = {.propagation = (uint64_t)fields[MOUNT_PROPAGATION].number};
	bool read_only_later = fields[MOUNT_COPY_UP].number && (fields[MOUNT_ATTRIBUTES].number & MOUNT_ATTR_RDONLY);
	unsigned int wanted = (unsigned int)fields[MOUNT_ATTRIBUTES].number;
	cleanup_close int mount = -1, target = -1;

	mount = new_mount(child, fields[MOUNT_FSTYPE].data, fields[MOUNT_SOURCE].data, &fields[MOUNT_DATA],
			  read_only_later ? wanted & ~(unsigned int)MOUNT_ATTR_RDONLY : wanted);
	if (mount < 0)
		return -1;
	if (is_link(child, fields[MOUNT_FSTYPE].data, target_path))
		return explain(child, "it is a symbolic link in the image");
	if (fields[MOUNT_COPY_UP].number && fill(child, target_path, mount, has_mode(&fields[MOUNT_DATA])) < 0)
		return -1;
	if (read_only_later)
		attributes.set = MOUNT_ATTR_RDONLY;
	if ((attributes.propagation != 0 || attributes.set != 0) && sys_mount_setattr(mount, 0, &attributes) < 0)
		return -1;
	target = ensure_directory(child->root, target_path, 0755);
	if (target < 0)
		return -1;
	return sys_move_mount(mount, target);
}

static int change_bind(struct child *child, int mount, const struct field *fields)
{
	struct mount_attributes one = {.set = (uint64_t)fields[BIND_SET].number,
				       .clear = (uint64_t)fields[BIND_CLEAR].number};
	struct mount_attributes tree = {.set = (uint64_t)fields[BIND_SET_RECURSIVE].number,
					.clear = (uint64_t)fields[BIND_CLEAR_RECURSIVE].number};
	struct mount_attributes propagation = {.propagation = (uint64_t)fields[BIND_PROPAGATION].number};
	struct mount_attributes idmap = {.set = MOUNT_ATTR_IDMAP};

	if (fields[BIND_IDMAP].number != 0) {
		idmap.userns = (uint64_t)plan_descriptor(child->plan, fields[BIND_IDMAP].data);
		if (sys_mount_setattr(mount, fields[BIND_RECURSIVE].number ? AT_RECURSIVE : 0, &idmap) < 0)
			return explain(child, "the file system does not do id-mapped mounts, or not for us");
	}
	if ((one.set | one.clear) != 0 && sys_mount_setattr(mount, 0, &one) < 0)
		return -1;
	if ((tree.set | tree.clear) != 0 && sys_mount_setattr(mount, AT_RECURSIVE, &tree) < 0)
		return -1;
	if (propagation.propagation != 0 &&
	    sys_mount_setattr(mount, fields[BIND_PROPAGATION_RECURSIVE].number ? AT_RECURSIVE : 0, &propagation) < 0)
		return -1;
	return 0;
}

/* The source as a detached mount with its attributes. */
int open_bind(struct child *child, const struct field *fields)
{
	unsigned int recursive = fields[BIND_RECURSIVE].number ? AT_RECURSIVE : 0;
	cleanup_close int mount = sys_open_tree(AT_FDCWD, fields[BIND_SOURCE].data, OPEN_TREE_CLONE | recursive);

	return mount < 0 || change_bind(child, mount, fields) < 0 ? -1 : take(&mount);
}

int do_bind(struct child *child, const struct field *fields)
{
	cleanup_close int mount = child->source >= 0 ? child->source : open_bind(child, fields), target = -1;
	struct stat status;

	if (mount < 0 || fstat(mount, &status) < 0)
		return -1;
	target = S_ISDIR(status.st_mode) ? ensure_directory(child->root, fields[BIND_TARGET].data, 0755)
					 : ensure_file(child->root, fields[BIND_TARGET].data, 0644);
	if (target < 0)
		return explain(child, "make the target");
	if (!S_ISDIR(status.st_mode) && fstat(target, &status) == 0 && S_ISDIR(status.st_mode)) {
		errno = EISDIR; /* the kernel's word for it is EINVAL */
		return -1;
	}
	return sys_move_mount(mount, target);
}

static bool is_null_device(int fd)
{
	struct stat status;

	return fstat(fd, &status) == 0 && S_ISCHR(status.st_mode) && status.st_rdev == makedev(1, 3);
}

/* CVE-2025-31133: an image whose /dev/null is a link made runc bind something else over the path to be masked. What
 * is bound is the descriptor that was looked at. */
static int null_device(struct child *child)
{
	if (child->null >= 0)
		return child->null;
	child->null = child->pivoted ? open_below(child_root(child), "dev/null", O_PATH | O_NOFOLLOW)
				     : open("/dev/null", O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (child->null < 0)
		return explain(child, "open /dev/null");
	if (!is_null_device(child->null)) {
		errno = ENODEV;
		return explain(child, "/dev/null is not the null device");
	}
	return child->null;
}

static int mask_directory(struct child *child, int target)
{
	static const struct field none;
	cleanup_close int mount = -1;

	/* One file system for all of them: cloning a mount is an order of magnitude cheaper than making one. */
	if (child->empty >= 0)
		mount = sys_open_tree(child->empty, "", AT_EMPTY_PATH | OPEN_TREE_CLONE);
	else
		mount = new_mount(child, "tmpfs", "tmpfs", &none,
				  MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
	if (mount < 0 || sys_move_mount(mount, target) < 0)
		return -1;
	if (child->empty < 0)
		child->empty = take(&mount);
	return 0;
}

int do_mask_path(struct child *child, const struct field *fields)
{
	cleanup_close int target = open_below(child_root(child), fields[MASK_PATH_PATH].data, O_PATH), mount = -1;
	struct stat status;
	int null;

	if (target < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0 : -1;
	if (fstat(target, &status) < 0)
		return -1;
	if (S_ISDIR(status.st_mode))
		return mask_directory(child, target);
	null = null_device(child);
	if (null < 0)
		return -1;
	mount = sys_open_tree(null, "", AT_EMPTY_PATH | OPEN_TREE_CLONE);
	return mount < 0 ? -1 : sys_move_mount(mount, target);
}

int do_readonly_path(struct child *child, const struct field *fields)
{
	struct mount_attributes attributes = {.set = MOUNT_ATTR_RDONLY};
	cleanup_close int target = open_below(child_root(child), fields[READONLY_PATH_PATH].data, O_PATH), mount = -1;

	if (target < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0 : -1;
	mount = sys_open_tree(target, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | AT_RECURSIVE);
	if (mount < 0 || sys_mount_setattr(mount, AT_RECURSIVE, &attributes) < 0)
		return -1;
	return sys_move_mount(mount, target);
}

/* CVE-2019-16884, 2019-19921, 2025-52881: a root in which /proc is something else must not make us write elsewhere. A
 * detached procfs has no name that anybody could replace, and nothing is mounted in it. */
int open_private_proc(struct child *child)
{
	static const struct field none;
	struct statfs system;
	struct stat status;

	child->proc = new_mount(child, "proc", "proc", &none, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
	if (child->proc >= 0 || errno != EPERM)
		return child->proc < 0 ? -1 : 0;
	/* In a user namespace whose procfs is masked (exec in a container) there is no new one. Then it is the one that
	 * is there, if it is the root of a procfs: files are opened in it without crossing any mount. */
	child->detail[0] = 0;
	child->proc = open_below(child_root(child), "proc", O_PATH | O_DIRECTORY | O_NOFOLLOW);
	if (child->proc < 0)
		return -1;
	if (fstatfs(child->proc, &system) < 0 || fstat(child->proc, &status) < 0)
		return -1;
	if (system.f_type != PROC_MAGIC || status.st_ino != 1) {
		errno = EXDEV;
		return explain(child, "/proc is not the root of a procfs");
	}
	return 0;
}
