"""Layers as root: owners, devices, attributes, overlayfs, and the same result as GNU tar."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "unit" / "store"))

from layer_archives import archive, chunks, device, directory, extended, file, record, sha256, symlink, tar_of

from pyengine.errors import KernelError
from pyengine.oci.digest import Digest
from pyengine.store import tar
from pyengine.store.layers import lower_dirs
from pyengine.store.pack import pack
from pyengine.store.store import Store
from pyengine.store.unpack import Unpacker, UnpackOptions, UnpackReport
from pyengine.transports import load

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw=ep
HERE = str(Path(__file__).parent.parent.parent)


def unpack(data: bytes, root: Path, options: UnpackOptions | None = None) -> UnpackReport:
    root.mkdir(exist_ok=True)
    fd = os.open(root, os.O_RDONLY)
    try:
        return Unpacker(fd, options or UnpackOptions()).unpack(tar.Stream(chunks(data, 1 << 16)))
    finally:
        os.close(fd)


def describe(root: Path) -> dict[str, Any]:
    """Everything that tar keeps, by path; hard links by the first of their names."""
    found: dict[str, Any] = {}
    first: dict[tuple[int, int], str] = {}
    paths = [root, *sorted(Path(base) / name for base, dirs, files in os.walk(root) for name in dirs + files)]
    for path in paths:
        name, status = str(path.relative_to(root)), path.lstat()
        content: object = status.st_rdev
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        link = name
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            link = first.setdefault((status.st_dev, status.st_ino), name)
        xattrs = {
            key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)
        }
        found[name] = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, content, link, xattrs)
    return found


def make_tree(root: Path) -> None:
    """One of everything."""
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/plain").write_bytes(b"x" * 100_000)
    (root / "usr/bin/setuid").write_bytes(b"s")
    os.chown(root / "usr/bin/setuid", 7, 8)
    (root / "usr/bin/setuid").chmod(0o6755)
    os.setxattr(root / "usr/bin/plain", "security.capability", CAPABILITY)
    os.setxattr(root / "usr/bin/plain", "user.mine", b"value\n\0=")
    os.setxattr(root / "usr", "trusted.mine", b"t")
    os.link(root / "usr/bin/plain", root / "again")
    (root / "bin").symlink_to("usr/bin")
    (root / "dangling").symlink_to("/nowhere" * 30)
    os.symlink("x", root / "link")
    os.link(root / "link", root / "link2", follow_symlinks=False)
    os.mkfifo(root / "pipe", 0o640)
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.chmod(root / "null", 0o666)
    os.mknod(root / "disk", stat.S_IFBLK | 0o660, os.makedev(259, 70000))
    os.chown(root / "disk", 0, 6)
    with (root / "sparse").open("wb") as out:
        for part in range(40):
            out.seek(part << 20)
            out.write(b"data")
        out.truncate(50 << 20)
    long = root / ("n" * 200) / ("m" * 200)
    long.mkdir(parents=True)
    (long / "\u00e4\n\udcff").write_bytes(b"odd")
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    (root / "shut").mkdir(0)
    (root / "big-owner").write_text("")
    os.lchown(root / "big-owner", 4_000_000, 3_000_000)
    for number, path in enumerate(sorted(root.rglob("*"), reverse=True)):
        os.utime(path, ns=(1, 1_600_000_000_000_000_000 + number * 1_000_000_001), follow_symlinks=False)
    os.utime(root, ns=(1, -5_000_000_000))


@pytest.mark.parametrize("form", ["gnu", "pax", "pax-sparse-0.0", "pax-sparse-0.1"])
def test_the_result_is_that_of_gnu_tar(tmp_path: Path, form: str) -> None:
    tree, theirs = tmp_path / "tree", tmp_path / "theirs"
    tree.mkdir()
    make_tree(tree)
    options = ["--sparse"]
    if form == "gnu":
        options += ["--format=gnu"]
    else:
        options += ["--format=pax", "--xattrs", "--xattrs-include=*"]
        options += [f"--sparse-version={form[-3:]}"] if "sparse" in form else ["--sparse-version=1.0"]
    data = subprocess.run(["tar", "-C", tree, *options, "-cf", "-", "."], check=True, stdout=subprocess.PIPE).stdout
    theirs.mkdir()
    subprocess.run(
        ["tar", "-C", theirs, "-xpf", "-", "--xattrs", "--xattrs-include=*", "--numeric-owner"], check=True, input=data
    )
    report = unpack(data, tmp_path / "ours")
    assert report.dropped == []
    expected = describe(theirs)
    assert describe(tmp_path / "ours") == expected
    assert len(expected) == 20
    assert (tmp_path / "ours/sparse").stat().st_blocks * 512 < 2 << 20
    if form != "gnu":  # GNU's own format has neither attributes nor fractions of seconds
        assert expected == describe(tree)


def test_packing_and_unpacking_gives_the_same_tree(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    make_tree(tree)
    fd = os.open(tree, os.O_RDONLY)
    try:
        data = b"".join(pack(fd))
        assert b"".join(pack(fd)) == data
    finally:
        os.close(fd)
    unpack(data, tmp_path / "ours")
    ours, before = describe(tmp_path / "ours"), describe(tree)
    assert {k: v for k, v in ours.items() if k != "."} == {k: v for k, v in before.items() if k != "."}
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    subprocess.run(["tar", "-C", theirs, "-xpf", "-", "--xattrs", "--xattrs-include=*"], check=True, input=data)
    assert {k: v for k, v in describe(theirs).items() if k != "."} == {k: v for k, v in ours.items() if k != "."}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "root", tmp_path / "run") as opened:
        yield opened


def load_layers(store: Store, tmp_path: Path, *layers: bytes) -> None:
    from layer_archives import docker_archive

    (tmp_path / "image.tar").write_bytes(docker_archive([(["x:1"], list(layers))]))
    load(store, tmp_path / "image.tar")


def mount(store: Store, tmp_path: Path) -> Path:
    image = store.images.find("x:1")
    for name in ("upper", "work", "merged"):
        (tmp_path / name).mkdir()
    lower = ":".join(lower_dirs(image.layers))
    options = f"lowerdir={lower},upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, tmp_path / "merged"], check=True)
    return tmp_path / "merged"


def test_whiteouts_work_in_overlayfs_both_ways(store: Store, tmp_path: Path) -> None:
    base = archive(
        *(file(f"{name}/{inner}", inner.encode()) for name in ("a", "b", "c", "d") for inner in ("one", "two")),
        file("gone"),
    )
    top = archive(
        file(".wh.gone"),
        file("a/.wh.one"),
        directory("b"), file("b/.wh..wh..opq"), file("b/three"),
        file(".wh.c"), directory("c"), file("c/four"),
    )  # fmt: skip
    load_layers(store, tmp_path, base, top)
    merged = mount(store, tmp_path)
    try:
        view = {name: sorted(path.name for path in (merged / name).iterdir()) for name in "abcd"}
        assert view == {"a": ["two"], "b": ["three"], "c": ["four"], "d": ["one", "two"]}
        assert not (merged / "gone").exists()
        # what a container does there becomes a layer again, which gives the same view on the same base
        subprocess.run("rm d/one && rm -r a b && mkdir b && touch b/five && echo x > c/four && rm c/four", shell=True,
                       check=True, cwd=merged)  # fmt: skip
        expected = {name: value for name, value in describe(merged).items() if name != "."}
    finally:
        subprocess.run(["umount", merged], check=True)
    fd = os.open(tmp_path / "upper", os.O_RDONLY)
    third = b"".join(pack(fd))
    os.close(fd)
    names = [entry.name for entry in tar.entries(tar.Stream([third]))]
    assert {b".wh.a", b"b/.wh..wh..opq", b"b/five", b"c/.wh.four", b"d/.wh.one"} <= set(names)
    for name in ("upper", "work", "merged"):
        subprocess.run(["rm", "-r", tmp_path / name], check=True)
    load_layers(store, tmp_path, base, top, third)
    merged = mount(store, tmp_path)
    try:
        assert {name: value for name, value in describe(merged).items() if name != "."} == expected
    finally:
        subprocess.run(["umount", merged], check=True)


def test_other_users_cannot_reach_setuid_files_in_layers(store: Store, tmp_path: Path) -> None:
    """CVE-2021-41091: the layers of an engine could be entered by everyone on the host."""
    load_layers(store, tmp_path, archive(directory("./", mode=0o777), file("su", b"#!/bin/sh\n", mode=0o4755)))
    path = Path(store.images.find("x:1").layers[0].diff, "su")
    assert path.stat().st_mode & 0o4000
    for upper in (tmp_path.parent.parent, tmp_path.parent, tmp_path):
        upper.chmod(0o755)
    denied = subprocess.run(["setpriv", "--reuid=12345", "--clear-groups", "cat", path], capture_output=True, text=True)
    assert "Permission denied" in denied.stderr
    for name in ("", "layers", "blobs", "tmp", "containers", "volumes"):
        assert Path(store.root, name).stat().st_mode & 0o777 == 0o700


def test_a_store_that_others_could_enter_is_closed_when_it_is_opened(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir(0o755)
    (tmp_path / "root").chmod(0o755)
    with Store(tmp_path / "root", tmp_path / "run"):
        assert (tmp_path / "root").stat().st_mode & 0o777 == 0o700


IN_USER_NAMESPACE = """
import os, stat, sys
sys.path[:0] = [{here!r}]
from pyengine.store import tar
from pyengine.store.unpack import Unpacker, UnpackOptions
options = UnpackOptions.detect()
assert options.in_user_namespace
os.mkdir(sys.argv[2])
fd = os.open(sys.argv[2], os.O_RDONLY)
report = Unpacker(fd, options).unpack(tar.Stream([open(sys.argv[1], 'rb').read()]))
print(sorted(report.lines()))
print(os.getxattr(sys.argv[2] + '/d', 'user.overlay.opaque'))
print(stat.S_ISCHR(os.lstat(sys.argv[2] + '/gone').st_mode), os.lstat(sys.argv[2] + '/gone').st_rdev)
print(oct(os.lstat(sys.argv[2] + '/su').st_mode), os.lstat(sys.argv[2] + '/su').st_uid)
"""


def in_user_namespace(tmp_path: Path, data: bytes) -> subprocess.CompletedProcess[str]:
    (tmp_path / "layer.tar").write_bytes(data)
    script = IN_USER_NAMESPACE.format(here=HERE)
    command = [sys.executable, "-c", script, str(tmp_path / "layer.tar"), str(tmp_path / "layer")]
    return subprocess.run(["unshare", "--user", "--map-root-user", "--mount", *command], capture_output=True, text=True)


def test_in_a_user_namespace_devices_are_left_out_and_whiteouts_still_work(tmp_path: Path) -> None:
    attributes = record("SCHILY.xattr.trusted.x", b"1") + record("SCHILY.xattr.security.capability", CAPABILITY)
    done = in_user_namespace(
        tmp_path,
        archive(
            device("null", 1, 3),
            file(".wh.gone"),
            file("d/.wh..wh..opq"),
            extended(b"x", attributes),
            file("su", b"", mode=0o4755),
        ),
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "['null: device node left out: cannot be made in a user namespace', "
        "'su: trusted.x left out: cannot be set in a user namespace']",
        "b'y'",
        "True 0",
        "0o104755 0",
    ]


def test_a_directory_whose_owner_has_no_mapping_says_so_as_well(tmp_path: Path) -> None:
    done = in_user_namespace(tmp_path, archive(directory("d", uid=1234)))
    assert done.returncode == 1
    assert (
        "KernelError: unpack directory 'd': Invalid argument (its owner 1234:0 has no place in the user namespace: "
        "give the user a range that holds it in /etc/subuid and /etc/subgid (man subuid)"
    ) in done.stderr


def test_an_owner_without_a_mapping_is_one_error_with_the_remedy(tmp_path: Path) -> None:
    done = in_user_namespace(tmp_path, archive(file("f", uid=1234)))
    assert done.returncode == 1
    assert (
        "KernelError: unpack 'f': Invalid argument (its owner 1234:0 has no place in the user namespace: "
        "give the user a range that holds it in /etc/subuid and /etc/subgid (man subuid), and stop the holder of the "
        "present namespace with Engine.close_user_namespace())"
    ) in done.stderr


def test_with_a_single_id_owners_are_not_applied(tmp_path: Path) -> None:
    unpack(archive(file("f", uid=1234, gid=5, mode=0o4755), directory("d", uid=7), symlink("l", "x", uid=8)),
           tmp_path / "layer", UnpackOptions(single_id=True))  # fmt: skip
    assert {path.lstat().st_uid for path in (tmp_path / "layer").iterdir()} == {0}
    assert (tmp_path / "layer/f").stat().st_mode & 0o7777 == 0o4755


def test_a_read_only_store_is_the_kernels_error(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", tmp_path], check=True)
    try:
        with pytest.raises(KernelError, match=r"make the directory .*: Read-only file system"):
            Store(tmp_path / "root", tmp_path / "run")
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_an_archive_of_tarfile_gives_the_same_layer_digest(store: Store, tmp_path: Path) -> None:
    layer = tar_of({"a": b"1", "b/c": b"2"}, {"l": "a"})
    load_layers(store, tmp_path, layer)
    assert store.images.find("x:1").layers[0].diff_id == Digest.parse(sha256(layer))
