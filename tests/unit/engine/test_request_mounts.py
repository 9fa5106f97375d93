"""Volumes, mounts and tmpfs as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyengine.engine.request_mounts import (
    BindMount,
    TmpfsMount,
    normal,
    parse_mode,
    parse_mount,
    parse_tmpfs,
    parse_volume,
)
from pyengine.errors import InvalidValue


def test_volumes() -> None:
    assert parse_volume("/a:/b") == BindMount(source="/a", target="/b")
    assert parse_volume("/a") == BindMount(source="/a", target="/a")
    assert parse_volume("/a:/b/../c/:ro,rslave,noexec,bind,cached") == BindMount(
        source="/a", target="/c", ro=True, propagation="rslave", noexec=True, recursive=False
    )
    assert parse_volume("/a:/b:exec,dev,nosuid") == BindMount(
        source="/a", target="/b", noexec=False, nodev=False, nosuid=True
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected SOURCE:DESTINATION"),
        (":/b", "expected SOURCE:DESTINATION"),
        ("/a:", "expected SOURCE:DESTINATION"),
        ("/a:/b:ro:x", "expected SOURCE:DESTINATION"),
        ("name:/b", "named volumes need the volume store"),
        ("./a:/b", "the source has to be an absolute path"),
        ("/a:b", "mount destination 'b' has to be an absolute path"),
        ("/a:/", "mount destination '/' is the root itself"),
        ("/a:/..", "mount destination '/' is the root itself"),
        ("/a:/b:ro,rw", "option 'rw' contradicts another"),
        ("/a:/b:Z", "option Z relabels for SELinux"),
        ("/a:/b:sync", "option 'sync' is not known"),
        ("/a:/b:", "option '' is not known"),
    ],
)
def test_bad_volumes(text: str, reason: str) -> None:
    with pytest.raises(InvalidValue, match=reason):
        parse_volume(text)


def test_mounts() -> None:
    assert parse_mount("type=bind,src=/a,dst=/b") == BindMount(source="/a", target="/b")
    assert parse_mount("type=bind,source=/a,target=/b,ro=true,bind-propagation=rslave,noexec") == BindMount(
        source="/a", target="/b", ro=True, propagation="rslave", noexec=True
    )
    assert parse_mount("type=bind,src=/a,destination=/b,rw=false") == BindMount(source="/a", target="/b", ro=True)
    assert parse_mount("type=bind,src=/a,dst=/b,ro=false,bind-nonrecursive") == BindMount(
        source="/a", target="/b", recursive=False
    )
    assert parse_mount("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1777,ro,notmpcopyup") == TmpfsMount(
        target="/t", size=1 << 20, mode=0o1777, ro=True, copy_up=False
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("src=/a,type=bind", "expected type=bind or type=tmpfs first"),
        ("type=volume,src=a,dst=/b", "named volumes need the volume store"),
        ("type=bind,src=/a", "the destination is missing"),
        ("type=bind,dst=/a", "the source is missing"),
        ("type=bind,src=,dst=/a", "'src=' is not known"),
        ("type=tmpfs,src=/a,dst=/b", "'src=/a' is not known for this type"),
        ("type=bind,src=/a,dst=/b,tmpfs-size=1", "'tmpfs-size=1' is not known for this type"),
        ("type=bind,src=/a,dst=/b,ro,rw", "'rw' repeats or contradicts"),
        ("type=bind,src=/a,dst=/b,ro=perhaps", "'perhaps': expected true or false"),
        ("type=bind,src=/a,dst=/b,bind-propagation=x", "propagation 'x': expected one of private"),
        ("type=bind,src=/a,dst=/b,relabel=shared", "relabels for SELinux"),
        ("type=bind,src=a,dst=/b", "mount source 'a' has to be an absolute path"),
        ("type=tmpfs,dst=/b,tmpfs-mode=8", "mode '8': expected octal"),
    ],
)
def test_bad_mounts(text: str, reason: str) -> None:
    with pytest.raises(InvalidValue, match=reason):
        parse_mount(text)


def test_tmpfs() -> None:
    assert parse_tmpfs("/t") == TmpfsMount(target="/t")
    assert parse_tmpfs("/t:size=64k,mode=700,exec,ro,uid=5,gid=6,nr_inodes=9,notmpcopyup") == TmpfsMount(
        target="/t", size=65536, mode=0o700, noexec=False, ro=True, uid=5, gid=6, inodes=9, copy_up=False
    )
    assert parse_tmpfs("/t:size=50%").size_text == "50%"
    for text, reason in (("t", "absolute"), ("/", "root itself"), ("/t:x", "option 'x' is not known"),
                         ("/t:uid=-1", "option 'uid=-1'"), ("/t:size=", "size ''")):  # fmt: skip
        with pytest.raises(InvalidValue, match=reason):
            parse_tmpfs(text)


def test_modes() -> None:
    assert parse_mode("0022") == 0o22
    for text in ("", "9", "17777", "-1", "0o7", "777777"):
        with pytest.raises(InvalidValue, match="expected octal digits"):
            parse_mode(text)


@given(st.text(alphabet="/.a\0", max_size=12))
def test_a_normal_path_is_absolute_and_stays_below_the_root(path: str) -> None:
    result = normal(path)
    assert result.startswith("/")
    assert ".." not in result.split("/")
    assert normal(result) == result


@given(st.text(alphabet="/:,=arobwtypesindfmk-", max_size=40))
def test_any_text_is_a_mount_or_refused(text: str) -> None:
    for parse in (parse_volume, parse_mount, parse_tmpfs):
        try:
            mount = parse(text)
        except InvalidValue:
            continue
        assert mount.target.startswith("/")
        assert mount.target != "/"
