/* Any bytes as a user, a passwd and a group file, in pieces of any size: what comes out is within bounds, and does not
 * depend on how the bytes were cut. */
#include <stdlib.h>
#include <string.h>

#include "../monitor/lookup.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static gid_t groups[2][64];

static void look(struct lookup *lookup, gid_t *room, const char *user, const char *file, size_t length, size_t piece)
{
	memset(lookup, 0, sizeof(*lookup));
	lookup->groups = room;
	lookup->max = 64;
	if (lookup_begin(lookup, user) != NULL)
		return;
	for (int pass = 0; pass < 2; pass++) {
		lookup_line *line = pass == 0 ? lookup_passwd_line : lookup_group_line;

		for (size_t at = 0; at < length; at += piece)
			lookup_feed(lookup, file + at, piece < length - at ? piece : length - at, line);
		lookup_end(lookup, line);
	}
	lookup_add_numbers(lookup);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct lookup whole, cut;
	char user[300];
	size_t length;
	char *file;

	if (size < 2)
		return 0;
	length = data[0];
	if (length > size - 2)
		length = size - 2;
	memcpy(user, data + 2, length);
	user[length] = 0;
	size -= 2 + length;
	file = malloc(size == 0 ? 1 : size);
	if (file == NULL)
		return 0;
	memcpy(file, data + 2 + length, size);
	look(&whole, groups[0], user, file, size, size == 0 ? 1 : size);
	look(&cut, groups[1], user, file, size, (size_t)data[1] + 1);
	free(file);
	if (whole.found_uid != cut.found_uid || whole.found_gid != cut.found_gid || whole.count != cut.count ||
	    whole.user_found != cut.user_found || whole.gid != cut.gid || strcmp(whole.home, cut.home) != 0 ||
	    memcmp(groups[0], groups[1], (size_t)whole.count * sizeof(gid_t)) != 0)
		abort();
	if (whole.count > 64 || whole.uid > LOOKUP_MAX_ID || (whole.user_found && !whole.bad_id && whole.found_uid < 0))
		abort();
	for (int i = 0; i < whole.count; i++)
		if (groups[0][i] > LOOKUP_MAX_ID)
			abort();
	return 0;
}
