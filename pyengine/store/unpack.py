"""Turns the members of a layer's tar into files below one directory, and never outside of it.

The archive is the attacker's. What protects the host:

- every file is made relative to the descriptor of its directory, and that descriptor is reached from the layer's root
  one component at a time with ``O_NOFOLLOW``: the kernel, not a string comparison, keeps us inside
  (CVE-2021-29136, CVE-2021-32760). Symbolic links in a member's directory part are resolved here, as a process
  confined to the layer would resolve them; ``..`` in a member's own name is refused;
- a file is created with ``O_EXCL``: nothing that the archive put there before is ever opened or followed;
- modes, owners and times are set through the descriptor of the new file, or without following links;
- extended attributes are applied from a short list; overlayfs's own are never taken from an archive.

Layers are made below a directory that only the owner of the store may enter, so that nobody races with this.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from typing import Any

from pyengine.errors import ArchiveError, KernelError, UnsafeEntry
from pyengine.store import tar
from pyengine.store.limits import DEFAULT_LIMITS, Limits
from pyengine.store.tree import Tree, printable

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
_META = b".wh..wh."
_XATTR_SPACES = (b"user.", b"trusted.", b"security.capability", b"system.posix_acl_")
_OVERLAY_XATTRS = (b"trusted.overlay.", b"user.overlay.")
_WHOLE = 1 << 20  # bytes of a file that is made in one call
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class UnpackOptions:
    """How to apply a layer here.

    ``in_user_namespace``: device nodes other than whiteouts cannot be made, so they are left out and reported, as
    podman does (a container gets its devices from the engine, not from the image), and overlayfs's attributes are
    in the ``user.`` name space. ``single_id``: only one user and group exist, so that owners are not applied.
    """

    in_user_namespace: bool = False
    single_id: bool = False
    limits: Limits = DEFAULT_LIMITS

    @property
    def opaque_xattr(self) -> bytes:
        """The attribute by which overlayfs knows a directory that hides what is below it."""
        return b"user.overlay.opaque" if self.in_user_namespace else b"trusted.overlay.opaque"

    @classmethod
    def detect(cls, *, single_id: bool = False, limits: Limits = DEFAULT_LIMITS) -> UnpackOptions:
        """The options that suit this process: ``/proc/self/uid_map`` tells whether it is in a user namespace, and an
        ordinary user outside of one can do no more than one inside."""
        return cls(in_user_namespace=in_user_namespace() or os.geteuid() != 0, single_id=single_id, limits=limits)


def in_user_namespace() -> bool:
    """Whether this process is in another user namespace than the initial one."""
    with open("/proc/self/uid_map", "rb") as file:
        return file.read().split() != [b"0", b"0", b"4294967295"]


@dataclass(slots=True)
class UnpackReport:
    """What came out: ``entries`` members, and ``dropped``: (path, what, reason) of what was left out on purpose."""

    entries: int = 0
    dropped: list[tuple[str, str, str]] = field(default_factory=list)

    def lines(self) -> list[str]:
        """What was left out, a line each, for people."""
        return [f"{path}: {what} left out: {reason}" for path, what, reason in self.dropped]


@dataclass(slots=True)
class _Attributes:
    """What a directory gets when everything below it is made."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    xattrs: dict[bytes, bytes] | None


class Unpacker:
    """Applies members to the directory that ``root`` is a descriptor of. The descriptor stays the caller's."""

    def __init__(self, root: int, options: UnpackOptions, *, shortcut: bool = True) -> None:
        self._shortcut = shortcut
        self._tree = Tree(root)
        self._options = options
        self._owners = not options.single_id
        self._directories: dict[bytes, _Attributes] = {}
        self._whiteouts: set[bytes] = set()
        self._opaque: set[bytes] = set()
        self._replaced = False
        self.report = UnpackReport()
        from pyengine._syscalls import ffi, lib

        self._make_file = lib.pe_make_file
        self._make_members = lib.pe_make_members
        self._members: Any = ffi.new("struct pe_members *")
        self._members.owners = self._owners
        self._members.largest = min(_WHOLE, options.limits.bytes)
        self._members.longest = options.limits.name
        self._members.directory = -1

    def unpack(self, stream: tar.Stream) -> UnpackReport:
        """Apply the whole archive and read the stream to its end."""
        try:
            for entry in tar.entries(stream, self._options.limits, self._make_plain if self._shortcut else None):
                self.report.entries += 1
                try:
                    self._apply(entry, stream)
                except OSError as error:
                    raise _explained(error, entry) from error
            self._finish_directories()
        finally:
            self._tree.close()
        stream.drain()
        return self.report

    def _make_plain(self, stream: tar.Stream, most: int) -> int:
        """Make the files and links that follow in the directory of the last member, for as long as there is nothing
        unusual about them: most of every archive, without the interpreter."""
        members = self._members
        chunk, position = stream.window()
        if members.directory < 0 or position + tar.BLOCK > len(chunk):
            return 0
        members.most = most
        stream.move_to(self._make_members(members, chunk, position, len(chunk)))
        made: int = members.made
        self.report.entries += made
        return made

    def _expect_more(self, directory: int, name: bytes, base: bytes = b"") -> None:
        """Let :meth:`_make_plain` make what is beside ``name``, which ends in ``base``, in its directory. Only the tree
        closes the descriptor, and it does nothing until the next member is applied, which ends this first."""
        prefix = name.removesuffix(base)
        # A name that ends in a slash or a dot has another last part than its base. And if this member replaced a
        # link, the same prefix may lead elsewhere now.
        if len(prefix) + len(base) == len(name) and len(prefix) < len(self._members.prefix) and not self._replaced:
            self._members.directory = directory
            self._members.prefix = prefix
            self._members.prefix_size = len(prefix)

    def _apply(self, entry: tar.Entry, stream: tar.Stream) -> None:
        self._members.directory = -1
        self._replaced = False
        name = clean(entry.name)
        if not name:
            self._apply_root(entry)
            return
        directory, _, base = name.rpartition(b"/")
        if WHITEOUT in name and (base.startswith(WHITEOUT) or b"/" + WHITEOUT in b"/" + directory):
            self._apply_whiteout(entry, directory, base)
            return
        parent, where = self._tree.parent(directory)
        path = where + b"/" + base if where else base
        kind = entry.type
        if kind == tar.REGULAR:
            self._regular(entry, stream, parent, base, path)
            self._expect_more(parent, entry.name, base)
        elif kind == tar.DIRECTORY:
            self._directory(entry, parent, base, path)
            if entry.name.endswith(b"/"):
                self._expect_more(self._tree.directory(path), entry.name)
        elif kind == tar.SYMLINK:
            self._symlink(entry, parent, base, path)
        elif kind == tar.HARD_LINK:
            self._hard_link(entry, parent, base, path)
        else:
            self._special(entry, parent, base, path)

    def _apply_root(self, entry: tar.Entry) -> None:
        if entry.type != tar.DIRECTORY:
            raise UnsafeEntry(f"tar member {printable(entry.name)} would replace the layer's root directory")
        self._directories[b""] = _Attributes(entry.mode, entry.uid, entry.gid, entry.mtime_ns, entry.xattrs)

    def _make_room(self, parent: int, base: bytes, path: bytes) -> None:
        """Remove what an earlier member of the archive put where another is to be made."""
        self._replaced = True
        self._whiteouts.discard(path)
        if self._tree.remove(parent, base, path):
            below = path + b"/"
            for known in (self._directories, self._opaque, self._whiteouts):
                for stale in [other for other in known if other == path or other.startswith(below)]:
                    if isinstance(known, dict):
                        del known[stale]
                    else:
                        known.discard(stale)

    def _regular(self, entry: tar.Entry, stream: tar.Stream, parent: int, base: bytes, path: bytes) -> None:
        if entry.size <= _WHOLE and entry.sparse is None and entry.xattrs is None:
            self._small(entry, stream.take(entry.size), parent, base, path)
            return
        try:
            fd = os.open(base, _CREATE, 0o600, dir_fd=parent)
        except FileExistsError:
            self._make_room(parent, base, path)
            fd = os.open(base, _CREATE, 0o600, dir_fd=parent)
        try:
            if entry.sparse is not None:
                _write_sparse(fd, entry, stream)
            elif entry.size:
                for piece in stream.pieces(entry.size):
                    _write_all(fd, piece)
            if self._owners:
                os.fchown(fd, entry.uid, entry.gid)  # before the mode: it takes setuid away
            os.fchmod(fd, entry.mode & 0o7777)
            if entry.xattrs:
                self._set_xattrs(fd, entry.xattrs, path)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)

    def _small(self, entry: tar.Entry, content: bytes, parent: int, base: bytes, path: bytes) -> None:
        """A file without anything unusual, as most are, in one call: the interpreter's part in making a file is
        otherwise as long as the kernel's."""
        if len(content) < entry.size:
            raise ArchiveError("tar archive is truncated: it ends inside of a file")
        seconds, fraction = divmod(entry.mtime_ns, 1_000_000_000)
        uid = entry.uid if self._owners else -1
        for _ in range(2):
            result: int = self._make_file(
                parent, base, content, entry.size, uid, entry.gid, entry.mode & 0o7777, seconds, fraction
            )
            if result != -errno.EEXIST:
                break
            self._make_room(parent, base, path)
        if result < 0:
            raise OSError(-result, os.strerror(-result))

    def _directory(self, entry: tar.Entry, parent: int, base: bytes, path: bytes) -> None:
        if self._tree.make_directory(parent, base) is False:
            was_whiteout = path in self._whiteouts
            self._make_room(parent, base, path)
            self._tree.make_directory(parent, base)
            if was_whiteout:
                self._opaque.add(path)  # removed below and made anew: nothing from below may show through
        self._directories[path] = _Attributes(entry.mode, entry.uid, entry.gid, entry.mtime_ns, entry.xattrs)

    def _symlink(self, entry: tar.Entry, parent: int, base: bytes, path: bytes) -> None:
        if not entry.link:
            raise ArchiveError(f"tar member {printable(entry.name)} is a symbolic link without a target")
        try:
            os.symlink(entry.link, base, dir_fd=parent)
        except FileExistsError:
            self._make_room(parent, base, path)
            os.symlink(entry.link, base, dir_fd=parent)
        self._finish_link(entry, parent, base, path)

    def _finish_link(self, entry: tar.Entry, parent: int, base: bytes, path: bytes) -> None:
        """Owner, attributes and times of what has no descriptor to set them through."""
        if self._owners:
            os.chown(base, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if entry.type != tar.SYMLINK:
            os.chmod(base, entry.mode & 0o7777, dir_fd=parent)  # a node that was made just now, so no link
        if entry.xattrs:
            self._set_xattrs(b"/proc/self/fd/%d/%s" % (parent, base), entry.xattrs, path)
        os.utime(base, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)

    def _hard_link(self, entry: tar.Entry, parent: int, base: bytes, path: bytes) -> None:
        target = clean(entry.link)
        directory, _, target_base = target.rpartition(b"/")
        if not target:
            raise UnsafeEntry(f"tar member {printable(entry.name)} is a hard link to the layer's root directory")
        target_parent, where = self._tree.parent(directory, make=False)
        target_path = where + b"/" + target_base if where else target_base
        if target_path in self._whiteouts:
            raise ArchiveError(f"tar member {printable(entry.name)} is a hard link to a removed file")
        if target_path == path:
            return
        if target_path.startswith(path + b"/"):  # making room for the link would remove its target
            raise ArchiveError(f"tar member {printable(entry.name)} is a hard link to a file below itself")
        try:
            # A directory's descriptor may have been evicted by finding the other: both are asked for again.
            parent = self._tree.parent(name_of_parent(path))[0]
            os.link(target_base, base, src_dir_fd=target_parent, dst_dir_fd=parent, follow_symlinks=False)
        except FileExistsError:
            self._make_room(parent, base, path)
            os.link(target_base, base, src_dir_fd=target_parent, dst_dir_fd=parent, follow_symlinks=False)

    def _special(self, entry: tar.Entry, parent: int, base: bytes, path: bytes) -> None:
        if entry.type == tar.FIFO:
            mode, device = stat.S_IFIFO, 0
        else:
            character = entry.type == tar.CHARACTER_DEVICE
            mode = stat.S_IFCHR if character else stat.S_IFBLK
            if not (0 <= entry.major < 1 << 12 and 0 <= entry.minor < 1 << 20):
                raise ArchiveError(f"tar member {printable(entry.name)} has a device number that cannot be")
            device = os.makedev(entry.major, entry.minor)
            if character and device == 0:
                raise UnsafeEntry(f"tar member {printable(entry.name)} is overlayfs's mark of a removed file")
            if self._options.in_user_namespace:
                self._drop(path, "device node", "cannot be made in a user namespace")
                return
        try:
            os.mknod(base, mode | 0o600, device, dir_fd=parent)
        except FileExistsError:
            self._make_room(parent, base, path)
            os.mknod(base, mode | 0o600, device, dir_fd=parent)
        self._finish_link(entry, parent, base, path)

    def _apply_whiteout(self, entry: tar.Entry, directory: bytes, base: bytes) -> None:
        """OCI's marks of removed files, turned into overlayfs's (image-spec, layer.md, "Whiteouts")."""
        components = directory.split(b"/")
        if any(part.startswith(_META) for part in components) or (base.startswith(_META) and base != OPAQUE):
            self._drop(entry.name, "aufs metadata", "has no meaning outside of aufs")
            return
        hidden = base[len(WHITEOUT) :]
        if any(part.startswith(WHITEOUT) for part in components) or hidden in (b"", b".", b".."):
            raise UnsafeEntry(f"tar member {printable(entry.name)} misuses the prefix of whiteouts")
        parent, where = self._tree.parent(directory)
        if base == OPAQUE:
            self._opaque.add(where)
            return
        path = where + b"/" + hidden if where else hidden
        try:
            os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)
        except FileExistsError:
            # The same layer removes what is below and makes it anew; files need nothing more than to be there.
            if path not in self._whiteouts and self._tree.is_directory(parent, hidden):
                self._opaque.add(path)
            return
        self._whiteouts.add(path)

    def _finish_directories(self) -> None:
        """Modes, owners and times of directories, when nothing is made in them any more; the deepest first, because
        their parents may be closed to us afterwards."""
        for path in sorted(self._directories.keys() | self._opaque, key=lambda path: path.count(b"/"), reverse=True):
            attributes = self._directories.get(path)
            fd = self._tree.open_directory(path)
            try:
                if attributes is not None and self._owners:
                    os.fchown(fd, attributes.uid, attributes.gid)
                if path in self._opaque:
                    os.setxattr(fd, self._options.opaque_xattr, b"y")
                if attributes is not None:
                    if attributes.xattrs:
                        self._set_xattrs(fd, attributes.xattrs, path)
                    os.fchmod(fd, attributes.mode & 0o7777)
                    os.utime(fd, ns=(attributes.mtime_ns, attributes.mtime_ns))
            except OSError as error:
                remedy = ""
                if error.errno == errno.EINVAL and attributes is not None:
                    remedy = _unmapped(attributes.uid, attributes.gid)
                what = f"unpack directory {printable(path)}"
                raise KernelError(error.errno or errno.EIO, what, remedy=remedy) from error
            finally:
                os.close(fd)

    def _set_xattrs(self, file: int | bytes, xattrs: dict[bytes, bytes], path: bytes) -> None:
        for name, value in xattrs.items():
            text = name.decode(errors="replace")
            if name.startswith(_OVERLAY_XATTRS):
                self._drop(path, text, "belongs to overlayfs, an image may not set it")
                continue
            if not name.startswith(_XATTR_SPACES) or b"\0" in name:
                self._drop(path, text, "is not of a kind that images carry")
                continue
            if self._options.in_user_namespace and name.startswith(b"trusted."):
                self._drop(path, text, "cannot be set in a user namespace")
                continue
            try:
                if isinstance(file, int):
                    os.setxattr(file, name, value)
                else:
                    os.setxattr(file, name, value, follow_symlinks=False)
            except OSError as error:
                # user.* is not possible on links and nodes; ACLs and user.* not on every file system.
                if error.errno in (errno.EPERM, errno.ENOTSUP) and not name.startswith(b"security."):
                    self._drop(path, text, os.strerror(error.errno))
                    continue
                raise

    def _drop(self, path: bytes, what: str, reason: str) -> None:
        if len(self.report.dropped) < 1000:  # the list is for people, and the archive decides its length
            self.report.dropped.append((path.decode(errors="backslashreplace"), what, reason))


def clean(name: bytes) -> bytes:
    """A member's name relative to the layer's root, without ``.`` and doubled slashes; the root is empty.

    An absolute name is meant relative to the root, as every tar does it; :class:`UnsafeEntry` if ``..`` is in it.
    """
    if name[:2] == b"./":
        name = name[2:]
    if name[-1:] == b"/":
        name = name[:-1]
    if name[:1] not in (b"/", b".", b"") and name[-1:] != b"/" and b"//" not in name and b"/." not in name:
        return name
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise UnsafeEntry(f"tar member {printable(name)} has '..' in its name, which could lead out of the layer")
    return b"/".join(parts)


def name_of_parent(path: bytes) -> bytes:
    """The path of the directory that ``path`` is in."""
    return path.rpartition(b"/")[0]


def _write_all(fd: int, data: bytes | memoryview) -> None:
    written = os.write(fd, data)
    while written < len(data):
        data = memoryview(data)[written:]
        written = os.write(fd, data)


def _write_sparse(fd: int, entry: tar.Entry, stream: tar.Stream) -> None:
    for offset, length in entry.sparse or ():
        os.lseek(fd, offset, os.SEEK_SET)
        for piece in stream.pieces(length):
            _write_all(fd, piece)
    os.ftruncate(fd, entry.size)


def _unmapped(uid: int, gid: int) -> str:
    """What to do about an owner that cannot be kept; nothing for root, who is always there."""
    if not uid and not gid:
        return ""
    return (
        f"its owner {uid}:{gid} has no place in the user namespace: give the user a range that holds it in /etc/subuid "
        "and /etc/subgid (man subuid), and stop the holder of the present namespace with Engine.close_user_namespace()"
    )


def _explained(error: OSError, entry: tar.Entry) -> Exception:
    if isinstance(error, KernelError):
        return error
    number = error.errno or errno.EIO
    what = f"unpack {printable(entry.name)}"
    remedy = ""
    if number == errno.EINVAL and (entry.uid or entry.gid):
        remedy = _unmapped(entry.uid, entry.gid)
    elif number == errno.ENOSPC:
        remedy = "the disk of the store is full, or out of inodes"
    elif entry.type == tar.HARD_LINK and number in (errno.ENOENT, errno.EPERM):
        return ArchiveError(
            f"tar member {printable(entry.name)} is a hard link to {printable(entry.link)}, "
            f"which is not a file of the same layer"
        )
    elif number in (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR):
        return ArchiveError(f"tar member {printable(entry.name)} cannot be made: {os.strerror(number)}")
    return KernelError(number, what, remedy=remedy)
