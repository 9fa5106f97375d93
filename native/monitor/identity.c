/* Who the process is: the user looked up in the container's files, ids, capabilities. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "child.h"
#include "kernel.h"
#include "lookup.h"

#ifndef PR_CAP_AMBIENT
#define PR_CAP_AMBIENT 47
#define PR_CAP_AMBIENT_RAISE 2
#define PR_CAP_AMBIENT_CLEAR_ALL 4
#endif

static gid_t found_groups[MAX_GROUPS];

/* A fifo would hold us for ever and a device could do anything (CVE-2024-9676), so the kind is known before the file
 * is opened, and checked again after. */
static int open_regular(struct child *child, const char *path)
{
	cleanup_close int fd = open_below(child_root(child), path, O_PATH);
	struct stat before, after;

	if (fd < 0 || fstat(fd, &before) < 0)
		return -1;
	if (!S_ISREG(before.st_mode)) {
		errno = EINVAL;
		return explain(child, "/%s is not a regular file", path);
	}
	close(fd);
	fd = open_below(child->root, path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 || fstat(fd, &after) < 0)
		return -1;
	if (before.st_dev != after.st_dev || before.st_ino != after.st_ino) {
		errno = EAGAIN;
		return explain(child, "/%s was exchanged meanwhile", path);
	}
	return take(&fd);
}

/* Reads at most LOOKUP_MAX_FILE. A missing file is an empty one. The bytes are also appended to `copy` if >= 0. */
static int read_lines(struct child *child, const char *path, struct lookup *lookup, lookup_line *line)
{
	cleanup_close int fd = open_regular(child, path);
	char chunk[4096];
	size_t total = 0;
	ssize_t length = 0;

	if (fd < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0 : -1;
	while (total < LOOKUP_MAX_FILE && (length = read(fd, chunk, sizeof(chunk))) > 0) {
		lookup_feed(lookup, chunk, (size_t)length, line);
		total += (size_t)length;
	}
	lookup_end(lookup, line);
	return length < 0 ? -1 : 0;
}

static int write_all(int fd, const char *bytes, size_t length)
{
	for (size_t done = 0; done < length;) {
		ssize_t now = write(fd, bytes + done, length - done);

		if (now < 0)
			return -1;
		done += (size_t)now;
	}
	return 0;
}

static int copy_passwd(int from, int to, const char *line, size_t line_length)
{
	char chunk[4096], last = '\n';
	size_t total = 0;
	ssize_t length = 0;

	while (total < LOOKUP_MAX_FILE && (length = read(from, chunk, sizeof(chunk))) > 0) {
		if (write_all(to, chunk, (size_t)length) < 0)
			return -1;
		last = chunk[length - 1];
		total += (size_t)length;
	}
	if (length < 0 || (last != '\n' && write_all(to, "\n", 1) < 0))
		return -1;
	return write_all(to, line, line_length);
}

/* The file that is written, and a mount of it. */
int open_passwd(const char *path, int *mount)
{
	cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);

	if (fd < 0)
		return -1;
	*mount = sys_open_tree(AT_FDCWD, path, OPEN_TREE_CLONE);
	return *mount < 0 ? -1 : take(&fd);
}

/* Programs that ask for the name of their user get one. A root without /etc/passwd is left without. */
static int add_passwd_entry(struct child *child, const char *host_path, const char *home)
{
	cleanup_close int from = open_regular(child, "etc/passwd"), to = -1, mount = -1, target = -1;
	char line[PATH_MAX + 128];
	int length;

	if (from < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0 : -1;
	if (strpbrk(home, ":\n") != NULL)
		home = "/";
	length = snprintf(line, sizeof(line), "%u:x:%u:%u:container user:%s:/bin/sh\n", child->uid, child->uid,
			  child->gid, home);
	if (length < 0 || (size_t)length >= sizeof(line)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	if (child->source >= 0) {
		to = child->source;
		mount = child->source + 1;
	} else {
		to = open_passwd(host_path, &mount);
	}
	if (to < 0 || copy_passwd(from, to, line, (size_t)length) < 0)
		return explain(child, "write %s", host_path);
	target = open_below(child->root, "etc/passwd", O_PATH);
	if (target < 0 || sys_move_mount(mount, target) < 0)
		return explain(child, "bind %s on /etc/passwd", host_path);
	return 0;
}

static int refuse(struct child *child, int error, const char *text)
{
	errno = error;
	return explain(child, "%s", text);
}

int do_lookup_user(struct child *child, const struct field *fields)
{
	static struct lookup lookup;
	const char *wrong;

	lookup.groups = found_groups;
	lookup.max = MAX_GROUPS;
	lookup.extra = fields[LOOKUP_USER_GROUPS].data;
	lookup.extra_count = fields[LOOKUP_USER_GROUPS].number;
	wrong = lookup_begin(&lookup, fields[LOOKUP_USER_USER].data);
	if (wrong != NULL)
		return refuse(child, EINVAL, wrong);
	if (read_lines(child, "etc/passwd", &lookup, lookup_passwd_line) < 0)
		return -1;
	if (!lookup.user_found && lookup.uid < 0)
		return refuse(child, ENOENT, "no such user in the container's /etc/passwd");
	lookup_add_numbers(&lookup);
	if ((lookup.group[0] != 0 || lookup.name[0] != 0 || lookup.extra_count > 0) &&
	    read_lines(child, "etc/group", &lookup, lookup_group_line) < 0)
		return -1;
	if (lookup.group[0] != 0 && !lookup.group_found)
		return refuse(child, ENOENT, "no such group in the container's /etc/group");
	if (lookup.bad_id)
		return refuse(child, ERANGE, "an id in the container's files is not within 0 and 2147483647");
	if (lookup.too_many)
		return refuse(child, E2BIG, "too many groups");
	child->uid = (uid_t)(lookup.uid >= 0 ? lookup.uid : lookup.found_uid);
	child->gid = (gid_t)(lookup.group_given ? lookup.gid : lookup.user_found ? lookup.found_gid : 0);
	child->groups = found_groups;
	child->group_count = lookup.count;
	strcpy(child->home, lookup.home[0] == 0 ? "/" : lookup.home);
	if (fields[LOOKUP_USER_PASSWD].number != 0 && !lookup.user_found)
		return add_passwd_entry(child, fields[LOOKUP_USER_PASSWD].data, fields[LOOKUP_USER_WORKDIR].data);
	return 0;
}

/* The pipes were made as root; the user opens /dev/stdout. Not /dev/null, nor what the engine passed. */
static void give_stdio(uid_t uid)
{
	struct stat status;

	for (int fd = 0; fd <= 2; fd++)
		if (fstat(fd, &status) == 0 &&
		    (S_ISFIFO(status.st_mode) ||
		     (S_ISCHR(status.st_mode) && major(status.st_rdev) >= 136 && major(status.st_rdev) <= 143)))
			(void)!fchown(fd, uid, (gid_t)-1);
}

static int get_capabilities(struct capability_data data[2])
{
	struct capability_header header = {.version = CAPABILITY_VERSION_3};

	return (int)syscall(SYS_capget, &header, data);
}

static int set_capabilities(const struct capability_data data[2])
{
	struct capability_header header = {.version = CAPABILITY_VERSION_3};

	return (int)syscall(SYS_capset, &header, data);
}

/* Leaving uid 0 clears the effective set; what is permitted is still needed until Capabilities. */
int regain_capabilities(void)
{
	struct capability_data data[2];

	if (get_capabilities(data) < 0)
		return -1;
	data[0].effective = data[0].permitted;
	data[1].effective = data[1].permitted;
	return set_capabilities(data);
}

static int set_ids(const gid_t *groups, int count, bool skip_groups, uid_t uid, gid_t gid)
{
	if (!skip_groups && syscall(SYS_setgroups, count, groups) < 0)
		return -1;
	/* The raw calls: the C library's would try to change other threads too. */
	if (syscall(SYS_setresgid, gid, gid, gid) < 0)
		return -1;
	return (int)syscall(SYS_setresuid, uid, uid, uid);
}

/* In a new or a joined user namespace: its root. */
int become_root(bool setgroups_allowed)
{
	return set_ids(NULL, 0, !setgroups_allowed, 0, 0);
}

int do_user(struct child *child, const struct field *fields)
{
	bool looked_up = fields[USER_UID].number < 0;
	uid_t uid = looked_up ? child->uid : (uid_t)fields[USER_UID].number;
	gid_t gid = fields[USER_GID].number < 0 ? child->gid : (gid_t)fields[USER_GID].number;
	bool denied = child->plan->settings.fields[SETTINGS_DENY_SETGROUPS].number != 0;
	const char *cursor = fields[USER_GROUPS].data;
	int count = looked_up ? child->group_count : 0;

	for (int64_t i = 0; i < fields[USER_GROUPS].number; i++) {
		if (count == MAX_GROUPS)
			return refuse(child, E2BIG, "too many groups");
		found_groups[count++] = (gid_t)integer_next(&cursor);
	}
	give_stdio(uid);
	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
		return -1;
	/* Where the namespace denies setgroups nobody has supplementary groups: those of the image's files are left
	 * out, those that were asked for are an error. */
	if (set_ids(found_groups, count, denied && fields[USER_GROUPS].number == 0, uid, gid) < 0)
		return errno == EINVAL ? explain(child, "the id is not mapped into the user namespace") : -1;
	return regain_capabilities();
}

static struct capability_data half(const struct field *fields, int shift)
{
	return (struct capability_data){
		.effective = (uint32_t)((uint64_t)fields[CAPABILITIES_EFFECTIVE].number >> shift),
		.permitted = (uint32_t)((uint64_t)fields[CAPABILITIES_PERMITTED].number >> shift),
		.inheritable = (uint32_t)((uint64_t)fields[CAPABILITIES_INHERITABLE].number >> shift),
	};
}

int do_capabilities(struct child *child, const struct field *fields)
{
	struct capability_data data[2] = {half(fields, 0), half(fields, 32)};
	uint64_t bounding = (uint64_t)fields[CAPABILITIES_BOUNDING].number, all = bounding;
	uint64_t ambient = (uint64_t)fields[CAPABILITIES_AMBIENT].number;

	for (int i = CAPABILITIES_EFFECTIVE; i <= CAPABILITIES_AMBIENT; i++)
		all |= (uint64_t)fields[i].number;
	for (unsigned long bit = 0; bit < 64; bit++) {
		int there = prctl(PR_CAPBSET_READ, bit, 0, 0, 0);

		if (there < 0 && (all >> bit & 1) != 0)
			return explain(child, "the kernel does not know capability %lu", bit);
		if (there == 1 && (bounding >> bit & 1) == 0 && prctl(PR_CAPBSET_DROP, bit, 0, 0, 0) < 0)
			return explain(child, "drop capability %lu from the bounding set", bit);
		if (there == 0 && (bounding >> bit & 1) != 0) {
			errno = EPERM;
			return explain(child, "capability %lu is not there to be kept", bit);
		}
	}
	if (set_capabilities(data) < 0)
		return -1;
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return -1;
	for (unsigned long bit = 0; bit < 64; bit++)
		if ((ambient >> bit & 1) != 0 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, bit, 0, 0) < 0)
			return explain(child, "raise capability %lu into the ambient set", bit);
	return 0;
}
