/* What the store needs to make layers and blobs durable without waiting for every file. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include "unpack.cdef"

int pe_syncfs(int fd) { return syncfs(fd) == 0 ? 0 : -errno; }

int pe_start_writeback(int fd, int64_t offset, int64_t length)
{
    return sync_file_range(fd, offset, length, SYNC_FILE_RANGE_WRITE) == 0 ? 0 : -errno;
}

static int fill(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t written = write(fd, data, size);
        if (written < 0) {
            if (errno == EINTR)
                continue;
            return -errno;
        }
        data += written;
        size -= (size_t)written;
    }
    return 0;
}

int pe_make_file(int directory, const char *name, const char *data, size_t size, int64_t uid, int64_t gid,
                 unsigned int mode, int64_t seconds, long nanoseconds)
{
    struct timespec times[2] = {{seconds, nanoseconds}, {seconds, nanoseconds}};
    int fd = openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    int result = fill(fd, data, size);
    /* The owner before the mode: chown takes setuid away. */
    if (result == 0 && uid != -1 && fchown(fd, (uid_t)uid, (gid_t)gid) < 0)
        result = -errno;
    if (result == 0 && fchmod(fd, mode) < 0)
        result = -errno;
    if (result == 0 && futimens(fd, times) < 0)
        result = -errno;
    if (close(fd) < 0 && result == 0)
        result = -errno;
    return result;
}
