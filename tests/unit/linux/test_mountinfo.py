from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyengine.errors import InvalidValue
from pyengine.linux import mountinfo
from pyengine.linux.cgroups import choose_mount, own_group

names = st.binary(min_size=1, max_size=20).map(lambda raw: raw.replace(b"\0", b"x"))
words = st.text("abcdefgh=:0123456789-", min_size=1, max_size=8).filter(lambda word: word != "-")


def escape(raw: bytes) -> bytes:
    """As mangle() of the kernel does it."""
    return b"".join(b"\\%03o" % byte if byte in b" \t\n\\#" else bytes([byte]) for byte in raw)


@given(
    root=names,
    target=names,
    source=st.one_of(st.just(b""), names),
    optional=st.lists(words, max_size=3),
    options=st.lists(words, min_size=1, max_size=4),
    numbers=st.tuples(*[st.integers(0, 1 << 31)] * 4),
)
def test_what_the_kernel_writes_is_read_back(
    root: bytes,
    target: bytes,
    source: bytes,
    optional: list[str],
    options: list[str],
    numbers: tuple[int, int, int, int],
) -> None:
    id, parent, major, minor = numbers
    text = ",".join(options)
    line = b" ".join(
        [
            f"{id} {parent} {major}:{minor}".encode(),
            escape(root),
            escape(target),
            text.encode(),
            *[word.encode() for word in optional],
            b"-",
            b"ext4",
            escape(source),
            text.encode(),
        ]
    )
    [mount] = mountinfo.parse(line + b"\n")
    assert (mount.id, mount.parent, mount.device) == (id, parent, (major, minor))
    assert (os.fsencode(mount.root), os.fsencode(mount.target), os.fsencode(mount.source)) == (root, target, source)
    assert mount.propagation == tuple(optional)
    assert mount.options == mount.super_options == tuple(options)
    assert mount.type == "ext4"


@given(st.binary(max_size=200))
def test_garbage_is_an_invalid_value_or_parses(content: bytes) -> None:
    try:
        mounts = mountinfo.parse(content)
    except InvalidValue:
        return
    assert len(mounts) == sum(1 for text in content.split(b"\n") if text)


def test_the_list_of_this_process_has_a_root() -> None:
    assert any(mount.target == "/" for mount in mountinfo.read())


def line(target: str, root: str = "/", options: str = "rw", type: str = "cgroup2") -> bytes:
    return f"30 20 0:26 {root} {target} {options} shared:4 - {type} cgroup {options}\n".encode()


@pytest.mark.parametrize(
    ("lines", "chosen"),
    [
        ([line("/sys/fs/cgroup")], "/sys/fs/cgroup"),
        ([line("/sys/fs/cgroup", type="tmpfs"), line("/sys/fs/cgroup/unified")], "/sys/fs/cgroup/unified"),
        ([line("/mnt/other"), line("/sys/fs/cgroup", options="ro")], "/mnt/other"),
        ([line("/a", root="/part"), line("/sys/fs/cgroup")], "/sys/fs/cgroup"),
        ([line("/sys", type="sysfs")], None),
    ],
)
def test_the_cgroup_mount_is_chosen(lines: list[bytes], chosen: str | None) -> None:
    mount = choose_mount(mountinfo.parse(b"".join(lines)))
    assert (mount and mount.target) == chosen


def test_the_own_group_is_that_of_version_2() -> None:
    content = b"4:memory:/other\n1:name=systemd:/x\n0::/user.slice/a b.scope\n"
    assert own_group(content) == "/user.slice/a b.scope"
    with pytest.raises(InvalidValue, match="no line 0:: in /proc/self/cgroup"):
        own_group(b"4:memory:/other\n")
