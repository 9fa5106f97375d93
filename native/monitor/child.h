/* The container's first process, between clone and execve.
 *
 * Everything in here runs in a copy of the monitor that is about to become the container: it may not allocate, it
 * trusts neither the files below the root nor, once the steps for the process are reached, anything it finds by a
 * path. It says what went wrong to the monitor through `report`, and ends. */
#pragma once

#include <limits.h>
#include <sys/types.h>

#include "cleanup.h"
#include "plan.h"

#define MAX_DETAIL 200
#define MAX_GROUPS 65536

enum child_message_kind {
	CHILD_PID,	 /* value: the container's first process, as the monitor sees it */
	CHILD_STDIO,	 /* with the monitor's ends of stdout, stderr and perhaps stdin */
	CHILD_TERMINAL,	 /* with the master */
	CHILD_READY,	 /* it waits at AwaitStart */
	CHILD_EXECUTING, /* all that is left is execve */
	CHILD_FAILED,
};

struct child_message {
	int kind;
	int value;
	int step; /* 0: none, the set-up around the steps failed */
	int error;
	char text[MAX_DETAIL + 1];
};

struct child {
	const struct plan *plan;
	int report;	/* SOCK_SEQPACKET to the monitor, close-on-exec: its end means that execve succeeded */
	int root;	/* the container's root, O_PATH; -1 before there is one */
	int null;	/* /dev/null, verified */
	int empty;	/* the first empty tmpfs that masks a directory, to be cloned for the others */
	int proc;	/* a procfs that nobody else has */
	int source;	/* what OpenSources opened for this step; -1: nothing was opened */
	bool pivoted;
	bool prepared;
	bool umask_set;
	int error_step;
	char detail[MAX_DETAIL + 1]; /* why, in words, where errno does not say it */
	/* what LookupUser found */
	uid_t uid;
	gid_t gid;
	gid_t *groups;
	int group_count;
	char home[PATH_MAX];
};

/* Executes the plan. Returns only on failure, after reporting it. */
void child_run(struct child *child);

/* Sends a message, with descriptors. Also used by the process that joins namespaces. */
int child_tell(int report, const struct child_message *message, const int *descriptors, int count);
/* Reports errno (and the detail) as the failure of a step. */
void child_fail(struct child *child, int step);

/* Sets the detail and returns -1, for `return explain(child, "…")`: errno stays. */
int explain(struct child *child, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* paths.c: the only way to a file of the container. */
int open_below(int root, const char *path, int flags);
int ensure_directory(int root, const char *path, mode_t mode);
int ensure_file(int root, const char *path, mode_t mode);
/* Opens the parent directory (made when missing) and finds the last component. */
int open_parent(int root, const char *path, char *name, size_t size);
int child_root(struct child *child);

/* sources.c: OpenSources, and how the steps that need what it opened count. */
int open_sources(struct child *child);
int sources_of(const struct record *step);

/* root.c, mounts.c, files.c */
int do_propagation(struct child *child, const struct field *fields);
int do_overlay(struct child *child, const struct field *fields);
int do_bind_root(struct child *child, const struct field *fields);
int do_pivot_root(struct child *child, const struct field *fields);
int do_readonly_root(struct child *child);
int do_mount(struct child *child, const struct field *fields);
int do_bind(struct child *child, const struct field *fields);
int open_bind(struct child *child, const struct field *fields);
int attach_root(struct child *child);
int do_mask_path(struct child *child, const struct field *fields);
int do_readonly_path(struct child *child, const struct field *fields);
int do_make_directory(struct child *child, const struct field *fields);
int do_symlink(struct child *child, const struct field *fields);
int do_device(struct child *child, const struct field *fields);
int copy_up(struct child *child, int source, int target);
int open_private_proc(struct child *child);

/* process.c, identity.c, terminal.c */
int do_join(struct child *child, const struct field *fields);
int do_loopback(void);
int do_sysctl(struct child *child, const struct field *fields);
int do_rlimit(struct child *child, const struct field *fields);
int do_oom_score(struct child *child, const struct field *fields);
int do_terminal(struct child *child, const struct field *fields);
int do_lookup_user(struct child *child, const struct field *fields);
int do_user(struct child *child, const struct field *fields);
int do_capabilities(struct child *child, const struct field *fields);
int do_seccomp(struct child *child, const struct field *fields);
int do_chdir(struct child *child, const struct field *fields);
int do_exec(struct child *child, const struct field *fields);
int open_stdio(struct child *child);
int open_passwd(const char *path, int *mount);
int become_root(bool setgroups_allowed);
int regain_capabilities(void);
