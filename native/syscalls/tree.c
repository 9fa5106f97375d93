/* Removing trees that a container wrote: of any depth, with directories that refuse to be entered or written.
 *
 * A container can nest directories deeper than there are descriptors or stack. So the descent is bounded: what lies
 * deeper is renamed up to the top of the tree, and removed from there in a further round. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tree.cdef"

enum { DEPTH = 64, PATIENCE = 100 };

struct tree {
	int top;       /* what is too deep is moved in here */
	unsigned moved;
	bool again;
	int crowded;   /* times that somebody put something into a directory that had just been emptied */
};

static int empty_directory(struct tree *tree, DIR *stream, int depth);

/* A directory of mode 000 belongs to its owner all the same. */
static int open_directory(int parent, const char *name)
{
	int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
	int fd = openat(parent, name, flags);

	if (fd >= 0 || errno != EACCES)
		return fd;
	/* fchmodat follows links; a link would have been ENOTDIR or ELOOP above. */
	if (fchmodat(parent, name, 0700, 0) < 0)
		return -1;
	return openat(parent, name, flags);
}

/* Who writes in here may not know yet that it goes. */
static int remove_empty(struct tree *tree, int parent, const char *name)
{
	if (unlinkat(parent, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
		return 0;
	if (errno != ENOTEMPTY || ++tree->crowded > PATIENCE)
		return -errno;
	tree->again = true;
	return 0;
}

static int remove_entry(struct tree *tree, int parent, const char *name, int type, int depth)
{
	char place[32];
	DIR *stream;
	int fd, error;

	if (type != DT_DIR) {
		if (unlinkat(parent, name, 0) == 0 || errno == ENOENT)
			return 0;
		if (errno != EISDIR && errno != EPERM)
			return -errno;
	}
	if (depth >= DEPTH) {
		snprintf(place, sizeof(place), ".pyengine-deep-%u", tree->moved++);
		if (renameat(parent, name, tree->top, place) < 0)
			return -errno;
		tree->again = true;
		return 0;
	}
	fd = open_directory(parent, name);
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	stream = fdopendir(fd);
	if (!stream) {
		error = -errno;
		close(fd);
		return error;
	}
	error = empty_directory(tree, stream, depth + 1);
	closedir(stream);
	if (error < 0)
		return error;
	return remove_empty(tree, parent, name);
}

static int empty_directory(struct tree *tree, DIR *stream, int depth)
{
	bool writable = false;
	struct dirent *entry;
	int error;

	while (errno = 0, (entry = readdir(stream))) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		error = remove_entry(tree, dirfd(stream), entry->d_name, entry->d_type, depth);
		if (error == -EACCES && !writable) {
			writable = true; /* the directory itself may not be changed: once it may */
			if (fchmod(dirfd(stream), 0700) == 0)
				error = remove_entry(tree, dirfd(stream), entry->d_name, entry->d_type, depth);
		}
		if (error < 0)
			return error;
	}
	return -errno;
}

int pe_remove_tree(int directory, const char *name)
{
	struct tree tree = {.top = open_directory(directory, name)};
	DIR *stream;
	int error;

	if (tree.top < 0) {
		if (errno == ENOENT)
			return 0;
		if (errno != ENOTDIR && errno != ELOOP)
			return -errno;
		return unlinkat(directory, name, 0) == 0 || errno == ENOENT ? 0 : -errno;
	}
	stream = fdopendir(tree.top);
	if (!stream) {
		error = -errno;
		close(tree.top);
		return error;
	}
	do {
		tree.again = false;
		rewinddir(stream);
		error = empty_directory(&tree, stream, 0);
		if (error == 0 && !tree.again)
			error = remove_empty(&tree, directory, name);
	} while (error == 0 && tree.again);
	closedir(stream);
	return error;
}
