/* What a function acquires it gives back on every way out: the attribute stands where the thing is acquired. */
#pragma once

#include <errno.h>
#include <unistd.h>

static inline void close_descriptor(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	errno = saved;
}

#define cleanup_close __attribute__((cleanup(close_descriptor)))

/* Hands the descriptor over to the caller: the cleanup finds nothing to close. */
static inline int take(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}
