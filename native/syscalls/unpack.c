/* What the store needs to make layers and blobs durable without waiting for every file. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
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

enum { BLOCK = 512, NAME = 100, PREFIX = 155 };

/* The offsets of a header's fields: POSIX pax, "ustar Interchange Format". */
enum { MODE = 100, UID = 108, GID = 116, SIZE = 124, MTIME = 136, CHECKSUM = 148, TYPE = 156, LINK = 157, MAGIC = 257,
       NAME_PREFIX = 345 };

/* A number as nearly all archives write it: octal digits in all of the field but its last byte. */
static bool octal(const char *field, size_t size, uint64_t *value)
{
    *value = 0;
    for (size_t i = 0; i < size - 1; i++) {
        if (field[i] < '0' || field[i] > '7')
            return false;
        *value = *value << 3 | (uint64_t)(field[i] - '0');
    }
    return field[size - 1] == '\0' || field[size - 1] == ' ';
}

static bool checksum_holds(const char *block)
{
    uint64_t stored;
    /* Seven digits, or six with "\0 " behind them. */
    if (!octal(block + CHECKSUM, 8, &stored) && !(octal(block + CHECKSUM, 7, &stored) && block[CHECKSUM + 7] == ' '))
        return false;
    unsigned sum = 8 * ' ';
    for (int i = 0; i < BLOCK; i++)
        sum += (unsigned char)block[i];
    for (int i = CHECKSUM; i < TYPE; i++)
        sum -= (unsigned char)block[i];
    return sum == stored;
}

/* Whether a name's last part is only that: nothing that leads elsewhere, and no whiteout. */
static bool plain_base(const char *base)
{
    return *base != '\0' && strchr(base, '/') == NULL && strcmp(base, ".") != 0 && strcmp(base, "..") != 0 &&
           strncmp(base, ".wh.", 4) != 0;
}

static int make_link(const struct pe_members *members, const char *base, const char *target, uint64_t uid, uint64_t gid,
                     uint64_t seconds)
{
    struct timespec times[2] = {{(time_t)seconds, 0}, {(time_t)seconds, 0}};
    if (symlinkat(target, members->directory, base) < 0)
        return -errno;
    if (members->owners && fchownat(members->directory, base, (uid_t)uid, (gid_t)gid, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    return utimensat(members->directory, base, times, AT_SYMLINK_NOFOLLOW) == 0 ? 0 : -errno;
}

/* The bytes of the member that begins at ``block``, once it is made; 0 if it was not. */
static size_t make_member(const struct pe_members *members, const char *block, size_t available)
{
    uint64_t mode, uid, gid, size, seconds;
    char name[PREFIX + 1 + NAME + 1], link[NAME + 1];
    char type = block[TYPE];

    if (type != '0' && type != '\0' && type != '2')
        return 0;
    if (!checksum_holds(block) || !octal(block + MODE, 8, &mode) || !octal(block + UID, 8, &uid) ||
        !octal(block + GID, 8, &gid) || !octal(block + SIZE, 12, &size) || !octal(block + MTIME, 12, &seconds))
        return 0;

    size_t length = 0;
    /* Only POSIX's magic has a prefix there. */
    if (block[NAME_PREFIX] != '\0' && memcmp(block + MAGIC, "ustar", 6) == 0) {
        length = strnlen(block + NAME_PREFIX, PREFIX);
        memcpy(name, block + NAME_PREFIX, length);
        name[length++] = '/';
    }
    size_t rest = strnlen(block, NAME);
    memcpy(name + length, block, rest);
    length += rest;
    name[length] = '\0';
    size_t link_size = strnlen(block + LINK, NAME);
    memcpy(link, block + LINK, link_size);
    link[link_size] = '\0';

    if (length > members->longest || link_size > members->longest || length <= members->prefix_size ||
        memcmp(name, members->prefix, members->prefix_size) != 0)
        return 0;
    const char *base = name + members->prefix_size;
    if (!plain_base(base))
        return 0;
    if (type == '2') {
        if (size != 0 || link_size == 0)
            return 0;
        return make_link(members, base, link, uid, gid, seconds) == 0 ? BLOCK : 0;
    }
    if (size > members->largest || size > available - BLOCK)
        return 0;
    size_t whole = BLOCK + (size + BLOCK - 1) / BLOCK * BLOCK;
    if (whole > available)
        return 0;
    int made = pe_make_file(members->directory, base, block + BLOCK, size, members->owners ? (int64_t)uid : -1,
                            (int64_t)gid, (unsigned int)mode & 07777, (int64_t)seconds, 0);
    return made == 0 ? whole : 0;
}

size_t pe_make_members(struct pe_members *members, const char *data, size_t begin, size_t end)
{
    members->made = 0;
    while (members->made < members->most && end - begin >= BLOCK) {
        size_t size = make_member(members, data + begin, end - begin);
        if (size == 0)
            break;
        begin += size;
        members->made++;
    }
    return begin;
}
