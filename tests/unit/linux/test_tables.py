"""Signals, capabilities, limits, sysctls, mount options, /proc/PID/stat."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyengine.errors import InvalidValue
from pyengine.linux import capabilities, mounts, process, rlimits, sysctls
from pyengine.linux.capabilities import CapabilitySets
from pyengine.linux.mounts import MountOptions, parse_options
from pyengine.linux.namespaces import Namespace
from pyengine.linux.process import ProcessId
from pyengine.linux.rlimits import INFINITY, Rlimit
from pyengine.linux.signals import parse_signal, signal_name

# Signals


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("SIGTERM", 15), ("term", 15), (" Kill ", 9), ("15", 15), (9, 9), ("RTMIN", 34), ("SIGRTMIN+3", 37),
        ("rtmax-1", 63), ("64", 64), ("CLD", 17), ("IOT", 6),
    ],
)  # fmt: skip
def test_signals_by_name_and_number(text: str | int, number: int) -> None:
    assert parse_signal(text) == number


@pytest.mark.parametrize(
    "text", ["", "0", "65", "SIG", "SIGSIGTERM", "FOO", "RTMIN+31", "RTMIN-1", "RTMAX+1", "-9", "1.0", "²"]
)
def test_what_is_no_signal(text: str) -> None:
    with pytest.raises(InvalidValue, match="not a signal"):
        parse_signal(text)


@given(st.integers(1, 64))
def test_every_signal_has_a_name_that_parses(number: int) -> None:
    assert parse_signal(signal_name(number)) == number


def test_names_are_pythons() -> None:
    assert {signal_name(item) for item in signal.Signals if item < 32} == {
        item.name for item in signal.Signals if item < 32
    }


# Capabilities


@pytest.mark.parametrize("text", ["CAP_NET_ADMIN", "net_admin", "Net_Admin", "cap_net_admin"])
def test_capabilities_in_any_form(text: str) -> None:
    assert capabilities.parse_capability(text) == "CAP_NET_ADMIN"


def test_unknown_capabilities_are_refused() -> None:
    with pytest.raises(InvalidValue, match="not a capability: 'CAP_FLY'"):
        capabilities.parse_capabilities(["chown", "CAP_FLY"])


def test_the_table_is_that_of_the_kernel() -> None:
    assert capabilities.NUMBERS["CAP_SYS_ADMIN"] == 21
    assert capabilities.NUMBERS["CAP_CHECKPOINT_RESTORE"] == 40
    assert capabilities.last_cap() >= 40


@given(st.sets(st.sampled_from(capabilities.NAMES)))
def test_masks_and_names_are_inverse(names: set[str]) -> None:
    assert set(capabilities.names(capabilities.mask(names))) == names


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ([], [], ("CAP_CHOWN", "CAP_KILL")),
        (["net_raw"], ["chown"], ("CAP_KILL", "CAP_NET_RAW")),
        (["net_raw"], ["all"], ("CAP_NET_RAW",)),
        ([], ["ALL"], ()),
    ],
)
def test_capabilities_are_added_and_dropped(add: list[str], drop: list[str], expected: tuple[str, ...]) -> None:
    assert capabilities.change(["CAP_CHOWN", "CAP_KILL"], add, drop) == expected


def test_all_capabilities_but_some() -> None:
    result = capabilities.change([], ["ALL"], ["CAP_SYS_ADMIN"], last=38)
    assert len(result) == 38
    assert "CAP_SYS_ADMIN" not in result


@pytest.mark.parametrize(
    ("add", "drop", "text"),
    [
        (["ALL"], ["ALL"], "ALL cannot be added and dropped"),
        (["CHOWN"], ["chown"], "both added and dropped: CAP_CHOWN"),
    ],
)
def test_contradicting_changes_are_refused(add: list[str], drop: list[str], text: str) -> None:
    with pytest.raises(InvalidValue, match=text):
        capabilities.change([], add, drop)


def test_sets_that_the_kernel_would_refuse_are_refused() -> None:
    with pytest.raises(InvalidValue, match="effective must be permitted: CAP_CHOWN"):
        CapabilitySets(effective=1)
    with pytest.raises(InvalidValue, match="ambient must be permitted and inheritable: CAP_CHOWN"):
        CapabilitySets(ambient=1, permitted=1)


def test_the_sets_of_this_process_parse() -> None:
    with open("/proc/self/status") as file:
        assert CapabilitySets.parse_status(file.read()).bounding >= 0
    with pytest.raises(InvalidValue, match="it lacks capability sets"):
        CapabilitySets.parse_status("Name: x\nCapEff: 0\n")


# Limits


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("nofile=1024:4096", Rlimit("RLIMIT_NOFILE", 1024, 4096)),
        ("RLIMIT_CORE=0", Rlimit("RLIMIT_CORE", 0, 0)),
        ("Nproc=100:-1", Rlimit("RLIMIT_NPROC", 100, INFINITY)),
        ("memlock=unlimited", Rlimit("RLIMIT_MEMLOCK", INFINITY, INFINITY)),
    ],
)
def test_limits_parse(text: str, limit: Rlimit) -> None:
    assert rlimits.parse_rlimit(text) == limit


@pytest.mark.parametrize(
    "text", ["", "nofile", "nofile=", "nofile=1:", "nofile=2:1", "foo=1", "nofile=-2", "nofile=1:x", "nofile=-1:5"]
)
def test_what_is_no_limit(text: str) -> None:
    with pytest.raises(InvalidValue, match=r"resource limit|RLIMIT_NOFILE: the soft limit"):
        rlimits.parse_rlimit(text)


def test_numbers_are_pythons() -> None:
    import resource

    for name, number in rlimits.NUMBERS.items():
        if hasattr(resource, name):
            assert getattr(resource, name) == number


# Sysctls

OWN = {Namespace.NETWORK, Namespace.IPC}


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding"),
        ("kernel.shmmax", "kernel/shmmax"),
        ("fs.mqueue.msg_max", "fs/mqueue/msg_max"),
    ],
)
def test_sysctls_of_a_namespace(name: str, path: str) -> None:
    assert sysctls.path(sysctls.check_sysctl(name, "1", OWN)) == path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("kernel.panic", "belongs to the whole host"),
        ("kernel.hostname", "set the hostname of the container instead"),
        ("kernel.domainname", "the container has no uts namespace of its own"),
        ("net", "not the name of a sysctl"),
        ("net/../kernel/panic", "not the name of a sysctl"),
        ("net..x", "not the name of a sysctl"),
        ("/net/x", "not the name of a sysctl"),
        ("vm.overcommit_memory", "belongs to the whole host"),
    ],
)
def test_sysctls_that_would_reach_the_host_are_refused(name: str, text: str) -> None:
    with pytest.raises(InvalidValue, match=text):
        sysctls.check_sysctl(name, "1", OWN)


@given(st.text(max_size=40))
def test_the_path_of_a_sysctl_never_leaves_proc_sys(name: str) -> None:
    try:
        path = sysctls.path(name)
    except InvalidValue:
        return
    assert not path.startswith("/")
    assert not {"..", "."} & set(path.split("/"))


# Mount options


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("defaults", MountOptions()),
        (
            "nosuid,noexec,nodev,ro",
            MountOptions(flags=mounts.MS_NOSUID | mounts.MS_NOEXEC | mounts.MS_NODEV | mounts.MS_RDONLY),
        ),
        ("rw,exec", MountOptions(cleared=mounts.MS_RDONLY | mounts.MS_NOEXEC)),
        ("rbind,rslave", MountOptions(flags=0x5000, propagation=mounts.MS_SLAVE | mounts.MS_REC)),
        ("bind,private", MountOptions(flags=0x1000, propagation=mounts.MS_PRIVATE)),
        ("rro,rnosuid,rexec", MountOptions(recursive_set=3, recursive_clear=8)),
        ("rnoatime", MountOptions(recursive_set=0x10, recursive_clear=0x70)),
        ("rrelatime", MountOptions(recursive_clear=0x70)),
        ("rnoatime,rnodiratime", MountOptions(recursive_set=0x90, recursive_clear=0x70)),
        ("ridmap,rbind", MountOptions(flags=0x5000, idmap="ridmap")),
        ("mode=755,size=64k,tmpcopyup", MountOptions(data="mode=755,size=64k", copy_up=True)),
    ],
)
def test_mount_options_mean(text: str, options: MountOptions) -> None:
    assert parse_options(text.split(",")) == options


@pytest.mark.parametrize(
    "text",
    [
        "ro,rw", "suid,nosuid", "private,rprivate", "rslave,rshared", "rro,rrw", "rnoatime,rstrictatime", "bind,rbind",
        "noatime,strictatime", "idmap,ridmap", "rrelatime,rnoatime", "rnoatime,rrelatime",
    ],
)  # fmt: skip
def test_contradicting_mount_options_are_refused(text: str) -> None:
    with pytest.raises(InvalidValue, match="mount options contradict each other"):
        parse_options(text.split(","))


@pytest.mark.parametrize("word", ["a,b", "a\0b"])
def test_a_word_cannot_smuggle_another(word: str) -> None:
    with pytest.raises(InvalidValue, match="not a mount option"):
        parse_options([word])


@given(st.lists(st.sampled_from(["ro", "nosuid", "rbind", "rslave", "rro", "mode=1", "uid=2"]), unique=True))
def test_the_order_of_flags_does_not_matter(words: list[str]) -> None:
    first, second = parse_options(words), parse_options(reversed(words))
    assert (first.flags, first.propagation, first.recursive_set) == (
        second.flags,
        second.propagation,
        second.recursive_set,
    )
    assert sorted(first.data.split(",")) == sorted(second.data.split(","))


# Processes


@given(st.binary(min_size=1, max_size=15).filter(lambda name: b"\0" not in name), st.integers(0, 1 << 60))
def test_a_process_cannot_disguise_its_start_time(command: bytes, start: int) -> None:
    fields = [b"S", b"7", b"8", b"9", *[b"0"] * 7, b"11", b"12", *[b"0"] * 6, str(start).encode(), b"0"]
    stat = process.parse_stat(b"42 (" + command + b") " + b" ".join(fields) + b"\n")
    assert (stat.pid, stat.command, stat.state, stat.start_time) == (42, command, "S", start)
    assert (stat.parent, stat.group, stat.session, stat.utime, stat.stime) == (7, 8, 9, 11, 12)


@given(st.binary(max_size=100))
def test_garbage_is_no_stat(content: bytes) -> None:
    with pytest.raises(InvalidValue, match="not the content of a /proc/PID/stat"):
        process.parse_stat(content)


@given(st.integers(1, process.PID_MAX), st.integers(0, 1 << 63))
def test_identities_are_read_back(pid: int, start: int) -> None:
    assert ProcessId.parse(f"{ProcessId(pid, start)}\n") == ProcessId(pid, start)


@pytest.mark.parametrize("text", ["", "1", "1 2 3", "0 5", "-1 5", "1 -5", "x 5", "99999999 5", "\uff11 5"])
def test_what_is_no_identity(text: str) -> None:
    with pytest.raises(InvalidValue, match="not a process"):
        ProcessId.parse(text)


def test_this_process_is_itself_and_not_a_later_one() -> None:
    own = ProcessId.own()
    assert own.pid == os.getpid()
    assert own.running()
    with own.open() or pytest.fail("gone") as pidfd:
        assert not process.wait_ended(pidfd, 0)
    later = ProcessId(own.pid, own.start_time + 1)
    assert not later.exists()
    assert later.open() is None
