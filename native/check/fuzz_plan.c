/* Any bytes as a plan: either refused, or a plan whose every part lies inside of the bytes. */
#include <stdlib.h>
#include <string.h>

#include "../monitor/plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void walk_list(const struct field *list, const char *end, bool text)
{
	const char *cursor = list->data;

	for (int64_t i = 0; i < list->number; i++) {
		if (text && strlen(text_next(&cursor)) > (size_t)(end - list->data))
			abort();
		if (!text)
			integer_next(&cursor);
		if (cursor > end)
			abort();
	}
}

static void walk(const struct record *record, const char *end)
{
	static const struct {
		int64_t kind;
		const char *types;
	} kinds[] = {
#define KIND(name, number, types) {number, types},
		RECORD_KINDS(KIND)
#undef KIND
	};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		for (int j = 0; kinds[i].kind == record->kind && kinds[i].types[j] != 0; j++) {
			const struct field *field = &record->fields[j];

			if (kinds[i].types[j] == 't' && strlen(field->data) != (size_t)field->number)
				abort();
			if (kinds[i].types[j] == 'y' && field->number > 0 && field->data[field->number - 1] == field->data[field->number])
				continue; /* reads its last byte and the NUL behind it */
			if (kinds[i].types[j] == 'I' || kinds[i].types[j] == 'T')
				walk_list(field, end, kinds[i].types[j] == 'T');
		}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct plan plan;
	const char *why = NULL, *cursor;
	struct record step = {0};
	char *copy = malloc(size == 0 ? 1 : size);
	int number;

	if (copy == NULL)
		return 0;
	memcpy(copy, data, size); /* at an address of its own, so that one byte too far is seen */
	if (plan_open(&plan, copy, size, &why, &number) < 0) {
		if (why == NULL || number < 0 || number > MAX_STEPS)
			abort();
		free(copy);
		return 0;
	}
	walk(&plan.settings, plan.end);
	cursor = plan.steps;
	for (int i = 0; i < plan.step_count; i++) {
		if (plan_next(&cursor, plan.end, &step) < 0)
			abort();
		walk(&step, plan.end);
		if ((step.kind == KIND_JOIN_NAMESPACE || step.kind == KIND_OPEN_SOURCES) != (i < plan.joins))
			abort();
		if ((step.kind == KIND_OPEN_SOURCES) != (plan.opens_sources && i == 0))
			abort();
	}
	if (cursor != plan.end || step.kind != KIND_EXEC || step.fields[EXEC_ARGV].number < 1)
		abort();
	plan_descriptor(&plan, "cgroup");
	free(copy);
	return 0;
}
