/* The new root: overlay or bind, and the pivot into it. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "child.h"
#include "kernel.h"

#define OPTION_PAGE 4096

int do_propagation(struct child *child, const struct field *fields)
{
	(void)child;
	return mount("", "/", NULL, (unsigned long)fields[PROPAGATION_FLAGS].number | MS_REC, NULL);
}

struct options {
	char text[OPTION_PAGE];
	size_t length;
	bool overflow;
};

static void append(struct options *options, const char *text, const char *escaped)
{
	for (; *text != 0; text++) {
		bool escape = strchr(escaped, *text) != NULL;

		if (options->length + 3 > sizeof(options->text)) {
			options->overflow = true;
			return;
		}
		if (escape)
			options->text[options->length++] = '\\';
		options->text[options->length++] = *text;
	}
	options->text[options->length] = 0;
}

/* mount(2), not fsconfig: that carries 255 bytes a value before Linux 6.5. Lower directories relative to the working
 * directory keep a hundred of them within the page of options. */
int do_overlay(struct child *child, const struct field *fields)
{
	static struct options options;
	const char *cursor = fields[OVERLAY_LOWER].data;

	if (chdir(fields[OVERLAY_BASE].data) < 0)
		return explain(child, "change into %s", fields[OVERLAY_BASE].data);
	append(&options, "lowerdir=", "");
	for (int64_t i = 0; i < fields[OVERLAY_LOWER].number; i++) {
		if (i > 0)
			append(&options, ":", "");
		append(&options, text_next(&cursor), "\\:,");
	}
	if (fields[OVERLAY_UPPER].number != 0) {
		append(&options, ",upperdir=", "");
		append(&options, fields[OVERLAY_UPPER].data, "\\,");
		append(&options, ",workdir=", "");
		append(&options, fields[OVERLAY_WORK].data, "\\,");
	}
	if (fields[OVERLAY_OPTIONS].number != 0) {
		append(&options, ",", "");
		append(&options, fields[OVERLAY_OPTIONS].data, "");
	}
	if (options.overflow) {
		errno = E2BIG;
		return explain(child, "the options take more than a page");
	}
	if (mount("overlay", fields[OVERLAY_TARGET].data, "overlay", 0, options.text) < 0)
		return -1;
	child->root = open(fields[OVERLAY_TARGET].data, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return child->root < 0 ? -1 : chdir("/");
}

int do_bind_root(struct child *child, const struct field *fields)
{
	unsigned int recursive = fields[BIND_ROOT_RECURSIVE].number ? AT_RECURSIVE : 0;
	cleanup_close int mount = -1, target = -1;

	mount = sys_open_tree(AT_FDCWD, fields[BIND_ROOT_SOURCE].data, OPEN_TREE_CLONE | recursive);
	if (mount < 0)
		return -1;
	target = open(fields[BIND_ROOT_TARGET].data, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (target < 0)
		return explain(child, "open %s", fields[BIND_ROOT_TARGET].data);
	if (sys_move_mount(mount, target) < 0)
		return -1;
	/* The descriptor of open_tree refers to the mount itself, which is attached now. */
	child->root = take(&mount);
	return 0;
}

/* On top of the root that the process has: of all directories of the host the one that is always in reach. What is
 * looked up from there does not see it. */
int attach_root(struct child *child)
{
	cleanup_close int target = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (target < 0 || sys_move_mount(child->source, target) < 0)
		return -1;
	child->root = child->source;
	return 0;
}

int do_readonly_root(struct child *child)
{
	struct mount_attributes attributes = {.set = MOUNT_ATTR_RDONLY};

	return sys_mount_setattr(child->root, 0, &attributes);
}

/* pivot_root(".", ".") puts the old root on top of the new one, where it is detached at once: no directory for it is
 * needed in a root that may be read-only. */
int do_pivot_root(struct child *child, const struct field *fields)
{
	if (fchdir(child->root) < 0)
		return -1;
	if (sys_pivot_root(".", ".") < 0)
		return errno == EINVAL ? explain(child, "the host's root may be an initramfs, which cannot be left") : -1;
	if (umount2(".", MNT_DETACH) < 0)
		return explain(child, "detach the host's root");
	if (chdir("/") < 0)
		return -1;
	if (fields[PIVOT_ROOT_PROPAGATION].number != 0 &&
	    mount("", "/", NULL, (unsigned long)fields[PIVOT_ROOT_PROPAGATION].number, NULL) < 0)
		return explain(child, "set the propagation of the root");
	close(child->root);
	child->root = -1;
	child->pivoted = true;
	if (child->null >= 0)
		close(child->null); /* its mount has gone with the host's root */
	child->null = -1;
	return child_root(child) < 0 ? -1 : 0;
}
