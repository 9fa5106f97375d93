/* What the store needs to make layers and blobs durable without waiting for every file. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <unistd.h>

#include "unpack.cdef"

int pe_syncfs(int fd) { return syncfs(fd) == 0 ? 0 : -errno; }

int pe_start_writeback(int fd, int64_t offset, int64_t length)
{
    return sync_file_range(fd, offset, length, SYNC_FILE_RANGE_WRITE) == 0 ? 0 : -errno;
}
