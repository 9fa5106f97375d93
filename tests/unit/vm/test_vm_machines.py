from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machine import qemu, share, uml
from machine.qemu import Machine, tsc_khz, virtiofsd_argv
from machine.share import mounts_to_share, private_root


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(qemu, "program", lambda name, package: f"/usr/bin/{name}")
    return Machine(
        accelerator="tcg",
        kernel="/cache/vmlinux",
        initramfs="/run/initramfs",
        memory=1 << 30,
        cpus=2,
        scratch="/run/scratch",
        share="/run/share",
        console="/run/console",
        channels={"control": 7, "out": 9},
        tty=False,
        tsc_khz=2_600_000,
    )


def after(words: list[str], option: str) -> list[str]:
    return [value for word, value in pairwise(words) if word == option]


def test_emulation_hides_what_is_slow_and_tells_the_clock(machine: Machine) -> None:
    words = machine.argv()
    assert words[0] == "/usr/bin/qemu-system-x86_64"
    assert after(words, "-accel") == ["tcg,thread=multi"]
    assert after(words, "-cpu") == ["max,-la57,-erms,-fsrm"]
    assert after(words, "-smp") == ["2"]
    assert machine.append().endswith(" tsc_early_khz=2600000 lpj=10400000")
    assert after(words, "-append") == [machine.append()]


def test_a_clock_that_cannot_be_read_is_left_to_the_kernel(machine: Machine) -> None:
    assert "tsc_early_khz" not in dataclasses.replace(machine, tsc_khz=0).append()


def test_kvm_has_the_hosts_cpu_and_clock(machine: Machine) -> None:
    kvm = dataclasses.replace(machine, accelerator="kvm")
    assert after(kvm.argv(), "-accel") == ["kvm"]
    assert after(kvm.argv(), "-cpu") == ["host"]
    assert "tsc" not in kvm.append()


def test_the_memory_is_shared_with_the_file_server_and_all_of_it(machine: Machine) -> None:
    words = machine.argv()
    assert after(words, "-m") == ["1073741824B"]
    assert after(words, "-object") == ["memory-backend-memfd,id=memory,size=1073741824B,share=on"]
    assert "microvm,memory-backend=memory" in words


def test_the_channels_are_the_ports_of_the_first_device(machine: Machine) -> None:
    devices = after(machine.argv(), "-device")
    assert devices[0] == "virtio-serial-device,max_ports=3"
    assert devices[1:3] == [
        "virtserialport,chardev=control,nr=1,name=vm.control",
        "virtserialport,chardev=out,nr=2,name=vm.out",
    ]
    assert after(machine.argv(), "-chardev")[:2] == ["socket,id=control,fd=7", "socket,id=out,fd=9"]
    assert not any("virtconsole" in device for device in devices)


def test_a_terminal_is_port_0(machine: Machine) -> None:
    words = dataclasses.replace(machine, tty=True).argv()
    assert "virtconsole,chardev=terminal,nr=0" in words
    assert "stdio,id=terminal,signal=off" in words


@pytest.mark.parametrize(
    ("usage", "words"),
    [
        (
            "    -o source=PATH  shared directory tree\n",
            ["-f", "-o", "source=/r,cache=always,sandbox=chroot,log_level=err", "--thread-pool-size=1"],
        ),
        (
            "  --shared-dir <SHARED_DIR>\n",
            ["--shared-dir", "/r", "--cache", "always", "--sandbox", "chroot", "--log-level", "error"],
        ),
    ],
)
def test_both_file_servers_are_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, usage: str, words: list[str]
) -> None:
    server = tmp_path / "virtiofsd"
    server.write_text(f"#!/bin/sh\ncat <<'E'\n{usage}E\n")
    server.chmod(0o755)
    monkeypatch.setattr(qemu, "program", lambda name, package: str(server))
    assert virtiofsd_argv(5, "/r") == [str(server), "--fd=5", *words]


def test_the_clock_of_this_cpu_is_read() -> None:
    assert 500_000 < tsc_khz(0.005) < 10_000_000


def test_uml_gets_its_channels_as_lines_from_1() -> None:
    machine = uml.Machine(
        "/usr/bin/linux.uml", "/r/initramfs", 1 << 30, "/r/scratch", "/r", {"control": 7, "out": 9}, False
    )
    words = machine.argv()
    assert words[0] == "/usr/bin/linux.uml"
    assert {"ssl1=fd:7,fd:7", "ssl2=fd:9,fd:9", "ssl=null", "mem=1073741824", "ubda=/r/scratch"} <= set(words)
    assert "con0=null,fd:1" in words
    assert "con0=fd:0,fd:1" in dataclasses.replace(machine, tty=True).argv()


@pytest.mark.parametrize(
    ("cpuinfo", "needed"),
    [
        ("model name\t: x\nflags\t\t: fpu avx512f amx_tile amx_int8\n", True),
        ("model name\t: amx_tile\nflags\t\t: fpu avx512f amx_tile_not\n", False),
        ("", False),
    ],
)
def test_only_cpus_with_amx_need_the_shim(cpuinfo: str, needed: bool) -> None:
    assert uml.needs_shim(cpuinfo) is needed


def test_each_uml_has_a_cpu_of_its_own_while_there_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYENGINE_VM_CACHE", str(tmp_path))
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {3, 5})
    with uml.own_cpu() as first:
        with uml.own_cpu() as second:
            assert (first, second) == (3, 5)
            with uml.own_cpu() as shared:
                assert shared in {3, 5}
        with uml.own_cpu() as again:
            assert again == 5


MOUNTS = """\
/dev/vda / ext4 rw,relatime 0 0
proc /proc proc rw 0 0
/dev/vdb /home ext4 rw 0 0
/dev/vdc /srv/with\\040space xfs rw 0 0
tmpfs /tmp tmpfs rw 0 0
tmpfs /run tmpfs rw 0 0
/dev/vdd /run/media ext4 rw 0 0
overlay /var/lib/containers/storage/overlay/x/merged overlay rw 0 0
"""


def test_mounts_with_files_are_shared() -> None:
    assert mounts_to_share(MOUNTS, "/work") == ["/home", "/srv/with space"]


def test_the_mount_of_the_current_directory_is_shared_whatever_it_is() -> None:
    assert mounts_to_share(MOUNTS, "/tmp/clone") == ["/home", "/srv/with space", "/tmp"]
    assert mounts_to_share(MOUNTS, "/tmpfoo") == ["/home", "/srv/with space"]


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_any_name_of_a_mount_point_is_read(name: str) -> None:
    escaped = name
    for character in "\\ \t\n":
        escaped = escaped.replace(character, f"\\{ord(character):03o}")
    line = f"/dev/vdb /srv/{escaped} ext4 rw 0 0"
    if len(line.splitlines()) == 1:
        assert mounts_to_share(line, "/") == [f"/srv/{name}"]


def test_the_private_root_binds_outer_mounts_first_and_quotes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share, "mounts_to_share", lambda mounts, directory: ["/a b"])
    monkeypatch.setattr("os.geteuid", lambda: 0)
    words, root = private_root("/r", "/work")
    assert root == "/r"
    assert words[:4] == ["unshare", "--mount", "--propagation", "slave"]
    first, second = words[words.index("-c") + 1].splitlines()[1:3]
    assert first == "mount --bind / /r; mount -o remount,bind,ro /r"
    assert second.startswith("if [ -d '/r/a b' ] && [ -d '/a b' ]; then mount --bind '/a b' '/r/a b'; ")


def test_an_ordinary_user_shares_the_root_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert private_root("/r", "/work") == ([], "/")
