/* Crash points for tests: argv[2] "fault=NAME" or "fault=NAME:n" makes the monitor kill itself, as kill -9 would, at
 * the n-th passage of that point. The tests read the names from this list. */
#pragma once

#define FAULT_POINTS(X)                                                                                                \
	X(plan_read)                                                                                                   \
	X(sockets_made)                                                                                                \
	X(before_clone)                                                                                                \
	X(after_clone)                                                                                                 \
	X(created)                                                                                                     \
	X(start_requested)                                                                                             \
	X(started)                                                                                                     \
	X(state_written)                                                                                               \
	X(log_rotated)                                                                                                 \
	X(reaped)                                                                                                      \
	X(exit_published)                                                                                              \
	X(before_cleanup)                                                                                              \
	X(cgroup_removed)

enum fault_point {
#define FAULT(name) FAULT_##name,
	FAULT_POINTS(FAULT)
#undef FAULT
};

int fault_choose(const char *argument); /* -1: not a known point */
void fault_passed(enum fault_point point);

#define fault(name) fault_passed(FAULT_##name)
