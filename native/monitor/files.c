/* Files below the root: directories, links, devices, and the copy of a directory into a new tmpfs. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "child.h"
#include "kernel.h"

#define MAX_DEPTH 64 /* of a copied tree: the stack is not the container's to exhaust */

int do_make_directory(struct child *child, const struct field *fields)
{
	cleanup_close int fd = ensure_directory(child->root, fields[MAKE_DIRECTORY_PATH].data,
						(mode_t)fields[MAKE_DIRECTORY_MODE].number);

	return fd < 0 ? -1 : 0;
}

int do_symlink(struct child *child, const struct field *fields)
{
	char name[NAME_MAX + 1], there[PATH_MAX];
	cleanup_close int parent = open_parent(child->root, fields[SYMLINK_PATH].data, name, sizeof(name));
	ssize_t length;

	if (parent < 0)
		return -1;
	if (symlinkat(fields[SYMLINK_TARGET].data, parent, name) == 0)
		return 0;
	if (errno != EEXIST)
		return -1;
	length = readlinkat(parent, name, there, sizeof(there));
	if (length == fields[SYMLINK_TARGET].number && memcmp(there, fields[SYMLINK_TARGET].data, (size_t)length) == 0)
		return 0;
	errno = EEXIST;
	return explain(child, "something else is there");
}

int do_device(struct child *child, const struct field *fields)
{
	mode_t mode = (mode_t)fields[DEVICE_MODE].number;
	dev_t number = makedev((unsigned int)fields[DEVICE_MAJOR].number, (unsigned int)fields[DEVICE_MINOR].number);
	char name[NAME_MAX + 1];
	cleanup_close int parent = open_parent(child->root, fields[DEVICE_PATH].data, name, sizeof(name)), node = -1;
	struct stat status;

	if (parent < 0)
		return -1;
	if (S_ISFIFO(mode))
		number = 0;
	if (mknodat(parent, name, mode, number) < 0 && errno != EEXIST)
		return -1;
	node = openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (node < 0 || fstat(node, &status) < 0)
		return -1;
	if ((status.st_mode & S_IFMT) != (mode & S_IFMT) || (!S_ISFIFO(mode) && status.st_rdev != number)) {
		errno = EEXIST;
		return explain(child, "something else is there");
	}
	if ((status.st_mode & 07777) != (mode & 07777)) {
		errno = EEXIST;
		return explain(child, "it is there with mode %o", (unsigned int)status.st_mode & 07777);
	}
	return fchownat(node, "", (uid_t)fields[DEVICE_UID].number, (gid_t)fields[DEVICE_GID].number, AT_EMPTY_PATH);
}

struct entry {
	uint64_t inode;
	int64_t offset;
	unsigned short length;
	unsigned char type;
	char name[];
};

static int copy_file(int source, const char *name, int target, const struct stat *status)
{
	static char buffer[16384];
	cleanup_close int from = openat(source, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC), to = -1;
	struct stat opened;
	ssize_t length;

	if (from < 0 || fstat(from, &opened) < 0)
		return -1;
	if (!S_ISREG(opened.st_mode)) {
		errno = EAGAIN; /* exchanged since it was looked at */
		return -1;
	}
	to = openat(target, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (to < 0)
		return -1;
	while ((length = read(from, buffer, sizeof(buffer))) > 0)
		for (ssize_t done = 0, now; done < length; done += now)
			if ((now = write(to, buffer + done, (size_t)(length - done))) < 0)
				return -1;
	if (length < 0 || fchown(to, status->st_uid, status->st_gid) < 0)
		return -1;
	return fchmod(to, status->st_mode & 07777);
}

static int copy_link(int source, const char *name, int target)
{
	char link[PATH_MAX];
	ssize_t length = readlinkat(source, name, link, sizeof(link) - 1);

	if (length < 0)
		return -1;
	link[length] = 0;
	return symlinkat(link, target, name);
}

static int copy_tree(int source, int target, int depth);

static int copy_directory(int source, const char *name, int target, const struct stat *status, int depth)
{
	cleanup_close int from = openat(source, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), to = -1;

	if (from < 0 || mkdirat(target, name, 0700) < 0)
		return -1;
	to = openat(target, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (to < 0 || copy_tree(from, to, depth + 1) < 0)
		return -1;
	if (fchown(to, status->st_uid, status->st_gid) < 0)
		return -1;
	return fchmod(to, status->st_mode & 07777);
}

static int copy_entry(int source, const char *name, int target, int depth)
{
	struct stat status;

	if (fstatat(source, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
		return -1;
	switch (status.st_mode & S_IFMT) {
	case S_IFREG:
		return copy_file(source, name, target, &status);
	case S_IFDIR:
		return copy_directory(source, name, target, &status, depth);
	case S_IFLNK:
		if (copy_link(source, name, target) < 0)
			return -1;
		break;
	case S_IFIFO:
		if (mknodat(target, name, status.st_mode, 0) < 0)
			return -1;
		break;
	default:
		return 0; /* a device would not work on this tmpfs, a socket has nobody behind it */
	}
	return fchownat(target, name, status.st_uid, status.st_gid, AT_SYMLINK_NOFOLLOW);
}

static int copy_tree(int source, int target, int depth)
{
	_Alignas(8) char buffer[2048];
	long length;

	if (depth > MAX_DEPTH) {
		errno = ELOOP;
		return -1;
	}
	while ((length = syscall(SYS_getdents64, source, buffer, sizeof(buffer))) > 0) {
		for (long at = 0; at < length;) {
			const struct entry *entry = (const struct entry *)(const void *)(buffer + at);

			at += entry->length;
			if (strcmp(entry->name, ".") != 0 && strcmp(entry->name, "..") != 0 &&
			    copy_entry(source, entry->name, target, depth) < 0)
				return -1;
		}
	}
	return length < 0 ? -1 : 0;
}

int copy_up(struct child *child, int source, int target)
{
	return copy_tree(source, target, 0) < 0 ? explain(child, "copy what the root has there") : 0;
}
