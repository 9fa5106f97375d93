"""The facts of ``info`` and ``version``."""

from __future__ import annotations

import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyengine
from pyengine.engine.info import (
    architecture,
    describe_uptime,
    file_system_of,
    parse_meminfo,
    parse_os_release,
    version,
)
from pyengine.linux.mountinfo import MountPoint


def mount(target: str, type: str) -> MountPoint:
    return MountPoint(1, 0, (0, 1), "/", target, (), (), type, "none", ())


def test_the_versions_need_no_store() -> None:
    found = version()
    assert list(found) == ["Version", "Interface", "Python", "Kernel", "OsArch"]
    assert found["Version"] == pyengine.__version__
    assert found["Interface"] == "io.podman 1.6.1"
    assert found["Kernel"] == os.uname().release
    assert re.fullmatch(r"linux/\w+", found["OsArch"])


def test_the_version_of_the_module_is_that_of_the_package() -> None:
    from importlib.metadata import version as installed

    assert installed("pyengine") == pyengine.__version__


def test_machines_have_the_names_that_images_use() -> None:
    assert [architecture(name) for name in ("x86_64", "aarch64", "riscv64")] == ["amd64", "arm64", "riscv64"]


def test_meminfo_is_in_bytes() -> None:
    text = "MemTotal:       16303316 kB\nMemFree:  12 kB\nHugePages_Total:       0\nnonsense\n"
    assert parse_meminfo(text) == {"MemTotal": 16303316 * 1024, "MemFree": 12288}


@given(st.text())
def test_meminfo_takes_any_text(text: str) -> None:
    assert all(value >= 0 for value in parse_meminfo(text).values())


@pytest.mark.parametrize(
    ("text", "distribution", "version"),
    [
        ('NAME="Debian"\nID=debian\nVERSION_ID="12"\n', "debian", "12"),
        ("ID='arch'\n", "arch", "unknown"),
        ('ID="\nVERSION_ID=\n', '"', "unknown"),
        ("", "unknown", "unknown"),
    ],
)
def test_os_release_gives_id_and_version(text: str, distribution: str, version: str) -> None:
    assert parse_os_release(text) == {"distribution": distribution, "version": version}


@given(st.text())
def test_os_release_takes_any_text(text: str) -> None:
    assert all(parse_os_release(text).values())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (28.35, "28.35s"),
        (24 * 60 + 28.35, "24m 28.35s"),
        (60, "1m 0s"),
        (5 * 3600 + 3 * 60 + 2.1, "5h 3m 2.1s (Approximately 0.21 days)"),
        (48 * 3600, "48h 0m 0s (Approximately 2.00 days)"),
    ],
)
def test_the_uptime_has_podmans_form(seconds: float, text: str) -> None:
    assert describe_uptime(seconds) == text


def test_the_file_system_is_that_of_the_mount_closest_above_which_may_be_covered() -> None:
    mounts = [mount("/", "ext4"), mount("/var", "xfs"), mount("/var/lib", "btrfs"), mount("/var/lib", "tmpfs")]
    assert file_system_of("/var/lib/pyengine", mounts) == "tmpfs"
    assert file_system_of("/var/lib", mounts) == "tmpfs"
    assert file_system_of("/var/library", mounts) == "xfs"
    assert file_system_of("/srv", mounts) == "ext4"
    assert file_system_of("/srv", []) == "unknown"
