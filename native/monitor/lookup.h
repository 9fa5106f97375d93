/* Users and groups out of a container's /etc/passwd and /etc/group: a parser that sees chunks of bytes and nothing
 * else (no system call), so that it can be fuzzed. The bytes are the attacker's (CVE-2024-9676, CVE-2024-40635). */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define LOOKUP_MAX_ID 0x7fffffff
#define LOOKUP_MAX_LINE 4096
#define LOOKUP_MAX_FILE (1024 * 1024)
#define LOOKUP_MAX_NAME 256

struct lookup {
	/* wanted */
	char user[LOOKUP_MAX_NAME];  /* "" when by number */
	char group[LOOKUP_MAX_NAME]; /* "" when by number, or none given */
	int64_t uid;		     /* -1 when by name */
	int64_t gid;		     /* -1 when by name, or none given */
	bool group_given;
	const char *extra; /* list of texts as the plan has it: more groups */
	int64_t extra_count;
	/* found */
	bool user_found, group_found, bad_id, too_many;
	int64_t found_uid, found_gid;
	char name[LOOKUP_MAX_NAME];
	char home[PATH_MAX];
	gid_t *groups;
	int count, max;
	/* the line under way */
	char line[LOOKUP_MAX_LINE];
	size_t length;
	bool overlong;
};

/* 1 a number within the bounds, 0 not a number, -1 a number beyond the bounds. */
int lookup_number(const char *text, int64_t *number);

/* Takes ``name|uid[:group|gid]`` apart. NULL, or what is wrong with it. */
const char *lookup_begin(struct lookup *lookup, const char *user);

typedef void lookup_line(struct lookup *lookup, char *line);
lookup_line lookup_passwd_line, lookup_group_line;

/* Cuts chunks into lines; a line beyond LOOKUP_MAX_LINE is passed over. lookup_end gives the last one. */
void lookup_feed(struct lookup *lookup, const char *chunk, size_t length, lookup_line *line);
void lookup_end(struct lookup *lookup, lookup_line *line);

/* The additional groups that are numbers need no file. */
void lookup_add_numbers(struct lookup *lookup);
void lookup_add_group(struct lookup *lookup, int64_t gid);
