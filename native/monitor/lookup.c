#include "lookup.h"

#include <string.h>

#include "plan.h"

#define MAX_COLUMNS 7

int lookup_number(const char *text, int64_t *number)
{
	int64_t value = 0;
	bool beyond = false;

	if (text[0] == 0)
		return 0;
	for (; *text != 0; text++) {
		if (*text < '0' || *text > '9')
			return 0;
		value = value * 10 + (*text - '0');
		if (value > LOOKUP_MAX_ID) {
			value = LOOKUP_MAX_ID;
			beyond = true;
		}
	}
	*number = value;
	return beyond ? -1 : 1;
}

/* One half of the specification: a number, or else a name. */
static const char *half(const char *text, size_t length, char *name, int64_t *number)
{
	*number = -1;
	if (length >= LOOKUP_MAX_NAME)
		return "the name is too long";
	memcpy(name, text, length);
	name[length] = 0;
	switch (lookup_number(name, number)) {
	case 1:
		name[0] = 0;
		break;
	case -1:
		return "the id is beyond 2147483647";
	default:
		*number = -1;
	}
	return NULL;
}

const char *lookup_begin(struct lookup *lookup, const char *user)
{
	size_t length = strcspn(user, ":");
	const char *wrong = half(user, length, lookup->user, &lookup->uid);

	if (wrong != NULL)
		return wrong;
	if (length == 0)
		lookup->uid = 0;
	lookup->gid = -1;
	if (user[length] == ':' && user[length + 1] != 0) {
		lookup->group_given = true;
		return half(user + length + 1, strlen(user + length + 1), lookup->group, &lookup->gid);
	}
	return NULL;
}

void lookup_feed(struct lookup *lookup, const char *chunk, size_t length, lookup_line *line)
{
	while (length > 0) {
		const char *newline = memchr(chunk, '\n', length);
		size_t piece = newline == NULL ? length : (size_t)(newline - chunk);

		if (piece >= sizeof(lookup->line) - lookup->length)
			lookup->overlong = true;
		if (!lookup->overlong) {
			memcpy(lookup->line + lookup->length, chunk, piece);
			lookup->length += piece;
		}
		if (newline == NULL)
			return;
		lookup_end(lookup, line);
		chunk += piece + 1;
		length -= piece + 1;
	}
}

void lookup_end(struct lookup *lookup, lookup_line *line)
{
	/* A NUL would end the line for us and not for others. */
	if (!lookup->overlong && lookup->length > 0 && memchr(lookup->line, 0, lookup->length) == NULL) {
		lookup->line[lookup->length] = 0;
		line(lookup, lookup->line);
	}
	lookup->length = 0;
	lookup->overlong = false;
}

static int split(char *line, char **columns)
{
	int count = 0;

	while (count < MAX_COLUMNS) {
		columns[count++] = line;
		line = strchr(line, ':');
		if (line == NULL)
			break;
		*line++ = 0;
	}
	return count;
}

void lookup_passwd_line(struct lookup *lookup, char *line)
{
	char *columns[MAX_COLUMNS];
	int count = split(line, columns);
	int64_t uid = -1, gid = -1;
	bool sound;

	if (lookup->user_found || count < 4)
		return;
	sound = lookup_number(columns[2], &uid) == 1 && lookup_number(columns[3], &gid) == 1;
	if (lookup->uid >= 0 ? !sound || uid != lookup->uid : strcmp(columns[0], lookup->user) != 0)
		return;
	lookup->user_found = true;
	lookup->bad_id = !sound;
	lookup->found_uid = uid;
	lookup->found_gid = gid;
	if (strlen(columns[0]) < sizeof(lookup->name))
		strcpy(lookup->name, columns[0]);
	if (count > 5 && columns[5][0] == '/')
		strcpy(lookup->home, columns[5]); /* a line fits into PATH_MAX */
}

void lookup_add_group(struct lookup *lookup, int64_t gid)
{
	for (int i = 0; i < lookup->count; i++)
		if (lookup->groups[i] == (gid_t)gid)
			return;
	if (lookup->count == lookup->max)
		lookup->too_many = true;
	else
		lookup->groups[lookup->count++] = (gid_t)gid;
}

static bool is_member(const char *members, const char *name)
{
	size_t length = strlen(name);

	if (length == 0)
		return false;
	while (*members != 0) {
		size_t piece = strcspn(members, ",");

		if (piece == length && memcmp(members, name, length) == 0)
			return true;
		members += piece;
		members += *members == ',';
	}
	return false;
}

void lookup_group_line(struct lookup *lookup, char *line)
{
	char *columns[MAX_COLUMNS];
	int count = split(line, columns);
	const char *extra = lookup->extra;
	int64_t gid = -1;
	int sound;

	if (count < 3)
		return;
	sound = lookup_number(columns[2], &gid);
	if (lookup->group[0] != 0 && !lookup->group_found && strcmp(columns[0], lookup->group) == 0) {
		lookup->group_found = true;
		lookup->bad_id = lookup->bad_id || sound != 1;
		lookup->gid = gid;
	}
	if (sound != 1)
		return;
	if (!lookup->group_given && count > 3 && is_member(columns[3], lookup->name))
		lookup_add_group(lookup, gid);
	for (int64_t i = 0; i < lookup->extra_count; i++)
		if (strcmp(text_next(&extra), columns[0]) == 0)
			lookup_add_group(lookup, gid);
}

void lookup_add_numbers(struct lookup *lookup)
{
	const char *extra = lookup->extra;
	int64_t gid = -1;

	for (int64_t i = 0; i < lookup->extra_count; i++) {
		switch (lookup_number(text_next(&extra), &gid)) {
		case 1:
			lookup_add_group(lookup, gid);
			break;
		case -1:
			lookup->bad_id = true;
			break;
		default:
			break;
		}
	}
}
