"""Nothing below a root reaches outside of it, and nothing there can hold the engine up."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyengine.errors import InvalidValue, KernelError
from pyengine.linux import paths
from pyengine.linux.fd import Fd


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("of the host")
    (tmp_path / "root" / "etc").mkdir(parents=True)
    (tmp_path / "root" / "etc" / "passwd").write_text("root:x:0:0\n")
    return tmp_path


@pytest.fixture
def root(place: Path) -> Iterator[Fd]:
    with paths.open_root(str(place / "root")) as fd:
        yield fd


def test_a_file_is_read(root: Fd) -> None:
    for name in ("etc/passwd", "/etc/passwd", "../../etc/passwd", "etc//./passwd"):
        assert paths.read_in_root(root, name, 100) == b"root:x:0:0\n"


@pytest.mark.parametrize("target", ["/outside/secret", "../../outside/secret", "{}/outside/secret"])
def test_a_link_out_of_the_root_stays_inside(root: Fd, place: Path, target: str) -> None:
    os.symlink(target.format(place), place / "root" / "link")
    with pytest.raises(KernelError) as caught:
        paths.read_in_root(root, "link", 100)
    assert caught.value.errno == errno.ENOENT
    assert str(caught.value) == "openat2 link: No such file or directory"


def test_a_magic_link_is_refused(root: Fd, place: Path) -> None:
    with paths.open_root("/") as host, pytest.raises(KernelError) as caught:
        paths.open_in_root(host, "/proc/self/root/etc", os.O_PATH)
    assert caught.value.errno == errno.ELOOP
    assert "magic link of /proc" in str(caught.value)


def test_a_fifo_does_not_block(root: Fd, place: Path) -> None:
    os.mkfifo(place / "root" / "fifo")
    with pytest.raises(KernelError) as caught:
        paths.read_in_root(root, "fifo", 100)
    assert caught.value.errno == errno.EINVAL
    assert str(caught.value) == "read fifo: Invalid argument (it is not a regular file)"


def test_directories_and_devices_are_not_read(root: Fd) -> None:
    with paths.open_root("/dev") as dev, pytest.raises(KernelError, match="it is not a regular file"):
        paths.read_in_root(dev, "zero", 100)
    with pytest.raises(KernelError, match="it is not a regular file"):
        paths.read_in_root(root, "etc", 100)


def test_a_file_above_the_limit_is_refused(root: Fd, place: Path) -> None:
    with open(place / "root" / "huge", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(KernelError) as caught:
        paths.read_in_root(root, "huge", 1000)
    assert caught.value.errno == errno.EFBIG
    assert str(caught.value) == "read huge: File too large (at most 1000 bytes are read)"
    (place / "root" / "full").write_bytes(b"x" * 1000)
    assert len(paths.read_in_root(root, "full", 1000)) == 1000


def test_directories_are_made_with_their_mode_whatever_the_umask(root: Fd, place: Path) -> None:
    before = os.umask(0o077)
    try:
        paths.make_directories_in_root(root, "a/b/c", 0o755).close()
    finally:
        os.umask(before)
    for name in ("a", "a/b", "a/b/c"):
        assert os.stat(place / "root" / name).st_mode & 0o7777 == 0o755
    (place / "root" / "a").chmod(0o700)
    paths.make_directories_in_root(root, "a/b/d", 0o711).close()
    assert os.stat(place / "root" / "a").st_mode & 0o7777 == 0o700


def test_directories_are_made_behind_links_inside_only(root: Fd, place: Path) -> None:
    os.symlink("/etc", place / "root" / "inside")
    os.symlink(str(place / "outside"), place / "root" / "escape")
    paths.make_directories_in_root(root, "inside/new/deep").close()
    assert (place / "root" / "etc" / "new" / "deep").is_dir()
    with pytest.raises(KernelError) as caught:
        paths.make_directories_in_root(root, "escape/new")
    assert caught.value.errno == errno.EEXIST
    assert "a symbolic link to nowhere is in the way" in str(caught.value)
    assert os.listdir(place / "outside") == ["secret"]


def test_a_file_in_the_way_of_a_directory_is_an_error(root: Fd) -> None:
    with pytest.raises(KernelError) as caught:
        paths.make_directories_in_root(root, "etc/passwd/x")
    assert caught.value.errno == errno.ENOTDIR


def test_writing_replaces_a_link_and_does_not_follow_it(root: Fd, place: Path) -> None:
    os.symlink("/etc/passwd", place / "root" / "hosts")
    os.link(place / "outside" / "secret", place / "root" / "hard")
    for name in ("hosts", "hard"):
        paths.write_in_root(root, name, b"new", 0o640)
        assert not (place / "root" / name).is_symlink()
        assert (place / "root" / name).read_bytes() == b"new"
        assert os.stat(place / "root" / name).st_mode & 0o7777 == 0o640
    assert (place / "root" / "etc" / "passwd").read_text() == "root:x:0:0\n"
    assert (place / "outside" / "secret").read_text() == "of the host"
    assert sorted(os.listdir(place / "root")) == ["etc", "hard", "hosts"]


def test_a_failed_write_leaves_nothing(root: Fd, place: Path) -> None:
    with pytest.raises(KernelError) as caught:
        paths.write_in_root(root, "etc", b"x")
    assert caught.value.errno == errno.EISDIR
    assert os.listdir(place / "root") == ["etc"]


@pytest.mark.parametrize("path", ["", "/", "..", "a/..", ".", "./"])
def test_a_path_without_a_last_name_is_refused(root: Fd, path: str) -> None:
    with pytest.raises(InvalidValue, match="does not end in a name"):
        paths.parent_in_root(root, path)


def test_links_are_read_and_looked_at_without_following(root: Fd, place: Path) -> None:
    os.symlink("/nowhere", place / "root" / "link")
    assert paths.readlink_in_root(root, "link") == b"/nowhere"
    assert paths.stat_in_root(root, "link") is None
    found = paths.stat_in_root(root, "link", follow=False)
    assert found is not None
    assert found.st_size == len("/nowhere")
    with pytest.raises(KernelError, match="it is not a symbolic link"):
        paths.readlink_in_root(root, "etc")
    assert sorted(paths.list_in_root(root, "/")) == ["etc", "link"]


def test_a_race_of_renames_never_shows_the_outside(root: Fd, place: Path) -> None:
    """CVE-2021-30465 and its kind: a directory on the way is swapped for a link while it is being resolved."""
    inside, link, spare = (place / "root" / name for name in ("swap", "link", "spare"))
    inside.mkdir()
    (inside / "secret").write_text("of the container")
    os.symlink(place / "outside", link)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(inside, spare)
            os.rename(link, inside)
            os.rename(inside, link)
            os.rename(spare, inside)

    thread = threading.Thread(target=swap)
    thread.start()
    read = 0
    errors: set[int | None] = set()
    deadline = time.monotonic() + 60  # each side has had its turn long before, on a busy machine too
    try:
        while (read < 100 or errno.ENOENT not in errors) and time.monotonic() < deadline:
            try:
                assert paths.read_in_root(root, "etc/../swap/secret", 100) == b"of the container"
                read += 1
            except KernelError as error:
                errors.add(error.errno)
    finally:
        stop.set()
        thread.join()
    assert read >= 100
    assert {errno.ENOENT} <= errors <= {errno.ENOENT, errno.EAGAIN, errno.ENOTDIR}


components = st.lists(st.sampled_from(["..", ".", "a", "b", "link", "up", "", "etc", "passwd"]), max_size=6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(components)
def test_whatever_the_path_the_outside_stays_as_it_is(root: Fd, place: Path, names: list[str]) -> None:
    for name, target in (("link", place / "outside"), ("up", "../..")):
        if not (place / "root" / name).is_symlink():
            os.symlink(target, place / "root" / name)
    path = "/".join(names)
    with contextlib.suppress(KernelError, InvalidValue):
        paths.make_directories_in_root(root, path).close()
    with contextlib.suppress(KernelError, InvalidValue):
        paths.write_in_root(root, path + "/new", b"x")
    assert os.listdir(place / "outside") == ["secret"]
    assert sorted(os.listdir(place)) == ["outside", "root"]
