"""Layers that try to get out (threats: layer extraction). Everything here works without root."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_archives import (
    archive,
    chunks,
    device,
    directory,
    extended,
    file,
    hard_link,
    member,
    pax,
    raw_header,
    record,
    symlink,
)

from pyengine.errors import ArchiveError, ArchiveTooLarge, KernelError, UnsafeEntry
from pyengine.store import tar
from pyengine.store.limits import Limits
from pyengine.store.unpack import Unpacker, UnpackOptions, UnpackReport, clean

OPTIONS = UnpackOptions(in_user_namespace=True, single_id=True)


class Box:
    """A layer's directory inside of another, which nothing may change."""

    def __init__(self, base: Path, shortcut: bool = True) -> None:
        self.base = base
        self.shortcut = shortcut
        self.root = base / "layer"
        self.root.mkdir()
        (base / "secret").write_text("untouched")
        (base / "secret").chmod(0o640)
        os.utime(base / "secret", ns=(1, 1))
        self.before = self.outside()

    def outside(self) -> dict[str, object]:
        return {
            path.name: (path.lstat().st_mode, path.lstat().st_nlink, path.lstat().st_size, path.lstat().st_mtime_ns)
            for path in self.base.iterdir()
            if path.name != "layer"
        }

    def unpack(self, *members: bytes, options: UnpackOptions = OPTIONS) -> UnpackReport:
        fd = os.open(self.root, os.O_RDONLY)
        try:
            # Small chunks cut every member off, and nothing can be made in the shortcut; large ones cut none.
            stream = tar.Stream(chunks(archive(*members), 1 << 20 if self.shortcut else 1000))
            return Unpacker(fd, options, shortcut=self.shortcut).unpack(stream)
        finally:
            os.close(fd)
            assert self.outside() == self.before

    def __truediv__(self, name: str) -> Path:
        return self.root / name


@pytest.fixture(params=[False, True], ids=["each-member", "shortcut"])
def box(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Box]:
    descriptors = len(os.listdir("/proc/self/fd"))
    yield Box(tmp_path, request.param)
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_files_have_their_content_mode_and_time(box: Box) -> None:
    box.unpack(
        pax(mtime="12.345678901"),
        file("a/b/setuid", b"content", mode=0o4751),
        directory("closed", mode=0o500, mtime_ns=7 * 10**9),
        file("closed/file", b"", mode=0),
        symlink("link", "/etc/passwd", mtime_ns=3 * 10**9 + 5),
        hard_link("again", "a/b/setuid"),
        member("pipe", tar.FIFO, mode=0o620),
    )
    status = (box / "a/b/setuid").stat()
    assert (status.st_mode, status.st_mtime_ns, status.st_nlink) == (stat.S_IFREG | 0o4751, 12_345_678_901, 2)
    assert (box / "again").read_bytes() == b"content"
    assert (box / "closed").stat().st_mode == stat.S_IFDIR | 0o500
    assert (box / "closed").stat().st_mtime_ns == 7 * 10**9
    assert os.readlink(box / "link") == "/etc/passwd"
    assert (box / "link").lstat().st_mtime_ns == 3 * 10**9 + 5
    assert (box / "pipe").stat().st_mode == stat.S_IFIFO | 0o620
    assert (box / "a").stat().st_mode == stat.S_IFDIR | 0o755  # not in the archive


def test_the_root_takes_mode_and_time_of_its_member(box: Box) -> None:
    box.unpack(directory("./", mode=0o711, mtime_ns=5 * 10**9), file("./x"))
    assert (box.root.stat().st_mode, box.root.stat().st_mtime_ns) == (stat.S_IFDIR | 0o711, 5 * 10**9)


@pytest.mark.parametrize(
    ("members", "error", "message"),
    [
        ([file("../secret")], UnsafeEntry, r"'\.\.' in its name"),
        ([file("a/../../secret")], UnsafeEntry, r"'\.\.' in its name"),
        ([file("..")], UnsafeEntry, r"'\.\.' in its name"),
        ([directory("a/..")], UnsafeEntry, r"'\.\.' in its name"),
        ([symlink("../x", "y")], UnsafeEntry, r"'\.\.' in its name"),
        ([member("../pipe", tar.FIFO)], UnsafeEntry, r"'\.\.' in its name"),
        ([pax(path="../secret"), file("harmless")], UnsafeEntry, r"'\.\.' in its name"),
        ([extended(b"L", b"../secret\0"), file("harmless")], UnsafeEntry, r"'\.\.' in its name"),
        ([hard_link("x", "../secret")], UnsafeEntry, r"'\.\.' in its name"),
        ([hard_link("x", "/")], UnsafeEntry, "hard link to the layer's root"),
        ([file("d/f"), hard_link("d", "d/f")], ArchiveError, "hard link to a file below itself"),
        ([hard_link("x", "missing")], ArchiveError, "not a file of the same layer"),
        ([directory("d"), hard_link("x", "d")], ArchiveError, "not a file of the same layer"),
        ([file(".wh.gone"), hard_link("x", "gone")], ArchiveError, "hard link to a removed file"),
        # CVE-2021-29136: the root itself replaced
        ([symlink(".", "/etc"), file("x")], UnsafeEntry, "replace the layer's root"),
        ([symlink("./", "/etc")], UnsafeEntry, "replace the layer's root"),
        ([file(".", b"")], UnsafeEntry, "replace the layer's root"),
        # a component that is no directory
        ([file("f"), file("f/x")], UnsafeEntry, "leads through 'f', a file"),
        ([symlink("a", "b"), symlink("b", "a"), file("a/x")], ArchiveError, "too many symbolic links"),
        ([symlink("l", "")], ArchiveError, "without a target"),
        ([file("n" * 256)], ArchiveError, "File name too long"),
        # whiteouts
        ([file(".wh...")], UnsafeEntry, "misuses the prefix"),
        ([file("d/.wh..")], UnsafeEntry, "misuses the prefix"),
        ([file(".wh.")], UnsafeEntry, "misuses the prefix"),
        ([file(".wh.d/x")], UnsafeEntry, "misuses the prefix"),
        ([directory(".wh.d/e/f")], UnsafeEntry, "misuses the prefix"),
        ([device("c", 0, 0)], UnsafeEntry, "overlayfs's mark"),
        ([device("c", 5000, 0)], ArchiveError, "device number that cannot be"),
        ([raw_header(b"c", b"3", f329=b"\xff" * 8)], ArchiveError, "device number that cannot be"),
    ],
)
def test_what_would_get_out_or_makes_no_sense_is_refused(
    box: Box, members: list[bytes], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        box.unpack(*members)


def test_absolute_names_are_relative_to_the_root(box: Box) -> None:
    box.unpack(file("/etc/passwd", b"ours"), file("//x//./y", b"z"))
    assert (box / "etc/passwd").read_bytes() == b"ours"
    assert (box / "x/y").read_bytes() == b"z"


def test_links_are_followed_below_the_root_only(box: Box) -> None:
    box.unpack(
        directory("usr/lib"),
        symlink("lib", "usr/lib"),
        file("lib/a"),
        symlink("up", "../../../.."),
        file("up/b"),
        symlink("absolute", "/usr"),
        file("absolute/lib/c"),
        symlink("host", str(box.base)),
        file("host/d"),
    )
    assert sorted(path.name for path in (box / "usr/lib").iterdir()) == ["a", "c"]
    assert (box / "b").exists()
    assert (box.root / str(box.base).lstrip("/") / "d").exists()


# CVE-2021-32760 and its kind: chmod, chown, utime or write through a link that came first.
def test_a_file_never_goes_through_a_link_of_its_own_name(box: Box) -> None:
    box.unpack(
        symlink("f", "../secret"), file("f", b"new", mode=0o777),
        symlink("d", ".."), directory("d", mode=0o700), file("d/x"),
        symlink("p", "../secret"), member("p", tar.FIFO, mode=0o777),
    )  # fmt: skip
    assert (box / "f").read_bytes() == b"new"
    assert (box / "d").lstat().st_mode == stat.S_IFDIR | 0o700
    assert stat.S_ISFIFO((box / "p").lstat().st_mode)


def test_a_hard_link_to_a_symbolic_link_is_a_link_to_the_link(box: Box) -> None:
    box.unpack(symlink("s", "../secret"), hard_link("h", "s"), file("h", b"replaced", mode=0o777))
    assert (box / "h").read_bytes() == b"replaced"
    assert (box / "s").is_symlink()


def test_a_hard_link_goes_through_links_of_directories_inside_only(box: Box) -> None:
    with pytest.raises(ArchiveError, match="not a file of the same layer"):
        box.unpack(symlink("out", ".."), hard_link("x", "out/secret"))


def test_a_later_member_replaces_an_earlier_one_of_any_kind(box: Box) -> None:
    box.unpack(
        file("a", b"1"), file("a", b"2"),
        directory("b"), file("b/c/d"), symlink("b", "a"),
        symlink("e", "b"), directory("e"), file("e/f"),
        directory("g", mode=0o700), directory("g", mode=0o711),
        file("h/i"), file("h"), hard_link("h", "a"), hard_link("a", "a"),
        member("k", tar.FIFO), member("k", tar.FIFO),
    )  # fmt: skip
    assert (box / "a").read_bytes() == b"2"
    assert os.readlink(box / "b") == "a"
    assert (box / "e/f").exists()
    assert (box / "g").stat().st_mode & 0o777 == 0o711
    assert (box / "h").samefile(box / "a")


def test_a_directory_that_becomes_a_link_is_no_way_out_afterwards(box: Box) -> None:
    box.unpack(directory("d/e"), file("d/e/x"), symlink("d", ".."), file("d/e/y"), file("d/e/z"))
    assert (box / "d").is_symlink()
    assert sorted(path.name for path in (box / "e").iterdir()) == ["y", "z"]


def test_whiteouts_become_overlayfs_marks(box: Box) -> None:
    box.unpack(file("d/.wh.gone"), directory("opaque"), file("opaque/.wh..wh..opq"), file("opaque/new"))
    status = (box / "d/gone").lstat()
    assert stat.S_ISCHR(status.st_mode)
    assert status.st_rdev == 0
    assert os.getxattr(box / "opaque", "user.overlay.opaque") == b"y"
    assert (box / "opaque/new").exists()
    assert not [name for _, _, names in os.walk(box.root) for name in names if name.startswith(".wh.")]


def test_an_opaque_mark_through_a_link_marks_a_directory_inside(box: Box) -> None:
    box.unpack(directory("d"), symlink("l", "d"), file("l/.wh..wh..opq"), symlink("up", ".."), file("up/.wh..wh..opq"))
    assert os.getxattr(box / "d", "user.overlay.opaque") == b"y"
    assert os.getxattr(box.root, "user.overlay.opaque") == b"y"
    with pytest.raises(OSError, match="No data available"):
        os.getxattr(box.base, "user.overlay.opaque")


def test_a_whiteout_and_the_thing_made_anew_in_one_layer(box: Box) -> None:
    box.unpack(
        file(".wh.d"), directory("d"), file("d/x"),
        directory("e"), file("e/x"), file(".wh.e"),
        file(".wh.f"), file("f", b"new"),
        file("g", b"new"), file(".wh.g"),
        file(".wh.h"), file(".wh.h"),
    )  # fmt: skip
    for name in ("d", "e"):
        assert os.getxattr(box / name, "user.overlay.opaque") == b"y"
        assert (box / name / "x").exists()
    assert (box / "f").read_bytes() == (box / "g").read_bytes() == b"new"
    assert stat.S_ISCHR((box / "h").lstat().st_mode)


def test_aufs_metadata_is_left_out_and_said(box: Box) -> None:
    report = box.unpack(directory(".wh..wh.plnk"), file(".wh..wh.plnk/1.2"), file(".wh..wh.aufs"))
    assert not any(box.root.iterdir())
    assert [what for _, what, _ in report.dropped] == ["aufs metadata"] * 3


def test_attributes_are_applied_but_for_those_that_an_image_may_not_set(box: Box) -> None:
    records = {
        "user.mine": b"1\0\n=2",
        "user.overlay.opaque": b"y",
        "trusted.overlay.redirect": b"/etc",
        "trusted.overlay.opaque": b"y",
        "security.selinux": b"x",
        "security.ima": b"x",
        "trusted.mine": b"x",
    }
    data = b"".join(record(f"SCHILY.xattr.{name}", value) for name, value in records.items())
    report = box.unpack(extended(b"x", data), directory("d"), extended(b"x", data), file("f"))
    for name in ("d", "f"):
        assert os.listxattr(box / name) == ["user.mine"]
        assert os.getxattr(box / name, "user.mine") == b"1\0\n=2"
    reasons = {what: reason for path, what, reason in report.dropped if path == "f"}
    assert reasons == {
        "user.overlay.opaque": "belongs to overlayfs, an image may not set it",
        "trusted.overlay.redirect": "belongs to overlayfs, an image may not set it",
        "trusted.overlay.opaque": "belongs to overlayfs, an image may not set it",
        "security.selinux": "is not of a kind that images carry",
        "security.ima": "is not of a kind that images carry",
        "trusted.mine": "cannot be set in a user namespace",
    }
    assert "f: security.ima left out: is not of a kind that images carry" in report.lines()


def test_devices_are_left_out_in_a_user_namespace_and_said(box: Box) -> None:
    report = box.unpack(device("dev/null", 1, 3), device("dev/sda", 8, 0, tar.BLOCK_DEVICE), file("dev/x"))
    assert [path.name for path in (box / "dev").iterdir()] == ["x"]
    assert [line for line in report.lines() if "device" in line] == [
        "dev/null: device node left out: cannot be made in a user namespace",
        "dev/sda: device node left out: cannot be made in a user namespace",
    ]


def test_sparse_files_have_holes(box: Box) -> None:
    sparse = pax(GNU__sparse__size=str(1 << 30), GNU__sparse__map=f"4096,4,{(1 << 30) - 4},4")
    box.unpack(sparse, file("s", b"headtail"))
    status = (box / "s").stat()
    assert status.st_size == 1 << 30
    assert status.st_blocks * 512 < 1 << 20
    with (box / "s").open("rb") as opened:
        opened.seek(4096)
        assert opened.read(5) == b"head\0"
        opened.seek(-4, os.SEEK_END)
        assert opened.read() == b"tail"


def test_many_directories_need_few_descriptors(box: Box) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        links = (hard_link(f"l{n}/x", f"d{n}/e{n}/f{n}/x") for n in range(400))
        box.unpack(*(file(f"d{n}/e{n}/f{n}/x") for n in range(400)), *links)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert sum(len(names) for _, _, names in os.walk(box.root)) == 800


def test_bounds_hold_for_layers(box: Box) -> None:
    options = UnpackOptions(in_user_namespace=True, single_id=True, limits=Limits(entries=3))
    with pytest.raises(ArchiveTooLarge, match="more than 3 members"):
        box.unpack(*(file(f"f{n}") for n in range(4)), options=options)


def test_an_owner_without_a_mapping_names_the_remedy() -> None:
    from pyengine.store.unpack import _explained

    entry = next(tar.entries(tar.Stream([archive(file("f", uid=5_000_000))])))
    error = _explained(OSError(22, "Invalid argument"), entry)
    assert isinstance(error, KernelError)
    assert str(error) == (
        "unpack 'f': Invalid argument (its owner 5000000:0 has no place in the user namespace: "
        "give the user a range that holds it in /etc/subuid and /etc/subgid (man subuid), and stop the holder of the "
        "present namespace with Engine.close_user_namespace())"
    )


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [
        (b"a/b", b"a/b"),
        (b"a//", b"a"),
        (b"./a/b/", b"a/b"),
        (b"/a//./b", b"a/b"),
        (b"./", b""),
        (b"a/.b", b"a/.b"),
        (b"..a", b"..a"),
    ],
)
def test_names_are_cleaned(name: bytes, cleaned: bytes) -> None:
    assert clean(name) == cleaned


SEQUENCES = [
    [directory("d/"), file("d/a", b"1", mode=0o4755), symlink("d/l", "/x"), file("d/b", b"", mode=0)],
    [file("a"), file("b"), file("./c"), file("./d"), file("d/../e")],
    [directory("d/"), file("d/..", b""), file("d/a")],
    [directory("d/"), file("d/."), file("d/a")],
    [directory("d/"), file("d/.wh.a"), file("d/a")],
    [directory("d/"), file("d/a", b"1"), file("d/a", b"2"), file("d/b")],
    [directory("d/"), directory("d/a/"), file("d/a/x"), file("d/a"), file("d/a/x"), file("d/b")],
    [directory("d/"), file("d/a"), symlink("d", "e"), file("d/b"), file("d/c")],
    [symlink("d", "e"), file("d/a"), file("d/b"), directory("d/"), file("d/c"), file("d/f")],
    [directory("d/"), file("d/a"), extended(b"L", b"z\0"), file("d/b"), file("d/c")],
    [directory("d/"), file("d/a"), extended(b"g", record("mtime", b"7")), file("d/b"), file("d/c")],
    [directory("d/"), file("d/a"), pax(mtime="12.5"), file("d/b"), file("d/c")],
    [directory("d/"), file("d/a"), raw_header(b"d/b", b"0", f100=b"0000688\0"), file("d/c")],
    [directory("d/"), file("d/a"), raw_header(b"d/b", b"0", f100=b"   644 \0"), file("d/c")],
    [directory("d/"), file("d/a"), raw_header(b"d/b", b"\0"), raw_header(b"d/c/", b"\0"), file("d/d")],
    [directory("d/"), file("d/a"), raw_header(b"b", b"0", f345=b"d"), raw_header(b"c", b"0", f345=b"d"), file("d/d")],
    [directory("d/"), file("d/a"), raw_header(b"b", b"0", f257=b"ustar  \0", f345=b"d"), file("d/d")],
    [directory("d/"), file("d/a"), raw_header(b"d/l", b"2"), file("d/d")],
    [directory("d/"), file("d/a"), raw_header(b"d/l", b"2", size=512, f157=b"to"), file("d/d")],
    [directory("d/"), file("d/a"), file("d/b")[:148] + b"0000000\0" + file("d/b")[156:], file("d/d")],
    [directory("d/"), file("d/" + "n" * 250), file("d/a"), directory("n" * 100 + "/"), file("n" * 100 + "/a")],
    [directory("d/"), file("d/large", bytes(1 << 20)), file("d/larger", bytes((1 << 20) + 1)), file("d/d")],
    # The first of these names goes through a link that it replaces.
    [directory("d/"), symlink("d/l", "."), file("d/l/l"), file("d/l/b"), file("d/c")],
    [directory("d/"), symlink("d/l", "."), directory("d/l/l/"), file("d/l/l/b"), file("d/l/c")],
    # A type of file whose name may end in a slash: what comes next is not beside it.
    [raw_header(b"x/", b"7"), file("x/y"), file("y")],
]


def tree_of(root: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        content: object = os.readlink(path) if kind == stat.S_IFLNK else None
        if kind == stat.S_IFREG:
            path.chmod(0o600)
            content = path.read_bytes()
            path.chmod(status.st_mode & 0o7777)
        # Directories that no member names and marks of removed files have the time of the test.
        time = status.st_mtime_ns // (1 if kind in (stat.S_IFREG, stat.S_IFLNK, stat.S_IFIFO) else 10**18)
        owner = (status.st_uid, status.st_gid)
        found[str(path.relative_to(root))] = (status.st_mode, status.st_nlink, owner, time, content)
    return found


def both_ways(tmp_path: Path, members: list[bytes]) -> None:
    outcomes: list[object] = []
    for shortcut in (False, True):
        base = tmp_path / str(shortcut)
        base.mkdir()
        box = Box(base, shortcut)
        try:
            report = box.unpack(*members)
            outcomes.append((tree_of(box.root), report.entries, report.dropped))
        except (ArchiveError, KernelError) as error:
            outcomes.append((tree_of(box.root), type(error), str(error)))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("members", SEQUENCES)
def test_the_shortcut_makes_what_each_member_by_itself_makes(tmp_path: Path, members: list[bytes]) -> None:
    both_ways(tmp_path, members)


def test_the_shortcut_is_taken(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    applied = []
    apply = Unpacker._apply

    def counting(self: Unpacker, entry: tar.Entry, stream: tar.Stream) -> None:
        applied.append(entry.name)
        apply(self, entry, stream)

    monkeypatch.setattr(Unpacker, "_apply", counting)
    report = box.unpack(directory("d/"), *(file(f"d/{n}") for n in range(9)), symlink("d/l", "0"), file("e"), file("f"))
    assert report.entries == 13
    assert applied == [b"d/", b"e"] if box.shortcut else len(applied) == 13


def test_the_bound_of_members_holds_in_the_shortcut(box: Box) -> None:
    options = UnpackOptions(in_user_namespace=True, single_id=True, limits=Limits(entries=5))
    with pytest.raises(ArchiveTooLarge, match="more than 5 members"):
        box.unpack(*(file(str(n)) for n in range(6)), options=options)
    assert len(list(box.root.iterdir())) == 5


part = st.sampled_from(["a", "b", "c", ".", "..", "", ".wh.a", ".wh..wh..opq", ".wh."])
path = st.lists(part, min_size=1, max_size=4).map("/".join)
any_member = st.one_of(
    st.builds(file, path, st.binary(max_size=5), mode=st.integers(0, 0o7777)),
    st.builds(directory, path, mode=st.integers(0, 0o7777)),
    st.builds(symlink, path, st.one_of(path, st.just("/"), st.just("../../.."), st.just("/../a"))),
    st.builds(hard_link, path, path),
    st.builds(member, path, st.just(tar.FIFO)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(any_member, max_size=8))
def test_no_archive_changes_anything_outside(tmp_path_factory: pytest.TempPathFactory, members: list[bytes]) -> None:
    box = Box(tmp_path_factory.mktemp("box"))
    try:
        box.unpack(*members)  # compares what is outside, whatever happens
    except ArchiveError:
        pass


sibling = st.builds(
    "{}{}".format, st.sampled_from(["", "a/", "a/b/", "c/", "./", "/a/", "a//"]), st.sampled_from("abcde")
)
mostly_plain = st.one_of(
    any_member,
    st.builds(file, sibling, st.binary(max_size=600), mode=st.integers(0, 0o7777), mtime_ns=st.just(10**9)),
    st.builds(directory, sibling.map("{}/".format)),
    st.builds(symlink, sibling, path),
    st.just(extended(b"L", b"a/long\0")),
    st.just(pax(mtime="3.5")),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(mostly_plain, max_size=12))
def test_any_archive_gives_the_same_with_and_without_the_shortcut(
    tmp_path_factory: pytest.TempPathFactory, members: list[bytes]
) -> None:
    both_ways(tmp_path_factory.mktemp("both"), members)
