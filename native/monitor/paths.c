/* Paths below a root whose files are not to be trusted.
 *
 * Every one is resolved by the kernel with RESOLVE_IN_ROOT: symbolic links and `..` stay below the root even while
 * another container that shares a volume exchanges directories for links (CVE-2021-30465), and magic links such as
 * /proc/self/fd/7 are refused (CVE-2024-21626). What is made is made with *at calls of one component, which do not
 * follow a link in the last place. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "child.h"
#include "kernel.h"

#define MAX_LINKS 40   /* as many as the kernel follows */
#define MAX_RACES 1000 /* openat2 gives EAGAIN when a directory moves under a `..`; mkdir may lose to another process */

int open_below(int root, const char *path, int flags)
{
	int fd = -1;

	if (path[0] == 0)
		path = ".";
	for (int i = 0; i < MAX_RACES; i++) {
		fd = sys_openat2(root, path, flags | O_CLOEXEC, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
		if (fd >= 0 || (errno != EAGAIN && errno != EINTR))
			break;
	}
	return fd;
}

static int create(int parent, const char *name, bool directory, mode_t mode)
{
	int fd;

	if (directory)
		return mkdirat(parent, name, mode);
	fd = openat(parent, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY | O_CLOEXEC, mode);
	if (fd < 0)
		return -1;
	close(fd);
	return 0;
}

/* The missing component is a link to something missing: what it points to is to be made, below the root. Writes the
 * path to go on with over `path`. 0; 1 if it is no link; -1. */
static int expand_link(int parent, char *path, size_t start, size_t end)
{
	char target[PATH_MAX], name[NAME_MAX + 1], joined[PATH_MAX];
	size_t length, rest = strlen(path + end);
	ssize_t read;

	length = end - start;
	if (length > NAME_MAX) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(name, path + start, length);
	name[length] = 0;
	read = readlinkat(parent, name, target, sizeof(target));
	if (read < 0)
		return errno == EINVAL || errno == ENOENT ? 1 : -1;
	length = target[0] == '/' ? 0 : start;
	if ((size_t)read >= sizeof(target) || length + (size_t)read + rest >= sizeof(joined)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(joined, path, length);
	memcpy(joined + length, target, (size_t)read);
	memcpy(joined + length + (size_t)read, path + end, rest + 1);
	strcpy(path, joined);
	return 0;
}

/* Goes through the components and makes what is missing. An O_PATH descriptor; -2: a link was expanded, again. */
static int walk(int root, char *path, bool directory, mode_t mode, int *races)
{
	cleanup_close int parent = open_below(root, "/", O_PATH | O_DIRECTORY);
	size_t start = 0, end;

	if (parent < 0)
		return -1;
	for (;;) {
		bool last;
		char saved;
		int fd, expanded;

		while (path[start] == '/')
			start++;
		if (path[start] == 0)
			return take(&parent);
		end = start + strcspn(path + start, "/");
		last = path[end + strspn(path + end, "/")] == 0;
		saved = path[end];
		path[end] = 0;
		fd = open_below(root, path, O_PATH | (last ? 0 : O_DIRECTORY));
		if (fd < 0 && errno == ENOENT) {
			path[end] = saved;
			expanded = expand_link(parent, path, start, end);
			if (expanded <= 0)
				return expanded < 0 ? -1 : -2;
			path[end] = 0;
			if (create(parent, path + start, !last || directory, last ? mode : 0755) < 0 && errno != EEXIST) {
				path[end] = saved;
				return -1;
			}
			path[end] = saved;
			if (++*races > MAX_RACES) {
				errno = EAGAIN;
				return -1;
			}
			continue;
		}
		path[end] = saved;
		if (fd < 0)
			return -1;
		close(parent);
		parent = fd;
		start = end;
	}
}

static int ensure(int root, const char *wanted, bool directory, mode_t mode)
{
	char path[PATH_MAX];
	int fd, races = 0;

	fd = open_below(root, wanted, O_PATH | (directory ? O_DIRECTORY : 0));
	if (fd >= 0 || errno != ENOENT)
		return fd;
	if (strlen(wanted) >= sizeof(path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(path, wanted);
	for (int links = 0; links < MAX_LINKS; links++) {
		fd = walk(root, path, directory, mode, &races);
		if (fd != -2)
			return fd;
	}
	errno = ELOOP;
	return -1;
}

int ensure_directory(int root, const char *path, mode_t mode)
{
	return ensure(root, path, true, mode);
}

int ensure_file(int root, const char *path, mode_t mode)
{
	return ensure(root, path, false, mode);
}

int open_parent(int root, const char *path, char *name, size_t size)
{
	char parent[PATH_MAX];
	size_t length = strlen(path), start;

	while (length > 0 && path[length - 1] == '/')
		length--;
	start = length;
	while (start > 0 && path[start - 1] != '/')
		start--;
	if (length >= sizeof(parent) || length - start >= size) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(name, path + start, length - start);
	name[length - start] = 0;
	if (name[0] == 0 || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
		errno = EINVAL;
		return -1;
	}
	memcpy(parent, path, start);
	parent[start] = 0;
	return ensure_directory(root, parent, 0755);
}

/* Before there is a new root, and in a joined mount namespace, it is the root that the process has. */
int child_root(struct child *child)
{
	if (child->root < 0)
		child->root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	return child->root;
}
