/* The plan as data: reading it out of the sealed memory that the engine passed.
 *
 * The engine is trusted, yet the reader is not to be: what it reads decides what runs as root, so every length is
 * checked against what is there before it is used (CVE-2021-43784 was a length that overflowed in such a message).
 * plan_open checks everything once; afterwards the same functions cannot fail on the same bytes, which are sealed. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "plan_kinds.h"

#define MAX_PLAN (16 * 1024 * 1024)
#define MAX_STEPS 8192
#define MAX_DESCRIPTORS 64

/* One field: the integer, or the length of a text, or the number of elements of a list, and where they begin. */
struct field {
	int64_t number;
	const char *data;
};

struct record {
	int64_t kind;
	struct field fields[MAX_FIELDS];
};

struct plan {
	const char *end;
	struct record settings;
	const char *descriptor_names;
	int descriptor_count;
	int step_count;
	int joins; /* the first steps, that open sources and join namespaces */
	bool opens_sources;
	const char *steps;
	bool needs_proc;
	bool has_terminal;
	bool has_await;
	struct record exec;
};

/* 0, or -1 with errno and a text in *why (a constant) and the number of the step in *step (0: the plan itself). */
int plan_open(struct plan *plan, const void *data, size_t length, const char **why, int *step);

/* Reads the record at *cursor and moves on. 0, or -1 (EINVAL). */
int plan_next(const char **cursor, const char *end, struct record *record);

/* The next element of a list of texts or integers, which plan_open has checked. */
const char *text_next(const char **cursor);
int64_t integer_next(const char **cursor);

/* The number of the descriptor in this process, or -1. */
int plan_descriptor(const struct plan *plan, const char *name);
