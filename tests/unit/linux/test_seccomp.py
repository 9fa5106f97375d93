from __future__ import annotations

import json
import os
import stat
import struct
from pathlib import Path
from typing import Any

import pytest

from pyengine.errors import InvalidValue, UnsupportedField
from pyengine.linux import seccomp
from pyengine.linux.seccomp import FilterCache, compile_profile

PROFILE: dict[str, Any] = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 38,
    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
    "flags": ["SECCOMP_FILTER_FLAG_LOG"],
    "syscalls": [
        {"names": ["read", "write", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
        {
            "names": ["personality"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}],
        },
        {
            "names": ["clone"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
        },
    ],
}
X86_64 = 0xC000003E
ALLOW, ERRNO = 0x7FFF0000, 0x00050000


def verdict(program: bytes, number: int, *arguments: int, arch: int = X86_64) -> int:
    """Runs a classic BPF program, as the kernel does for a system call."""
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("=iIQ6Q", number, arch, 0, *padded)
    accumulator = position = 0
    instructions = list(struct.iter_unpack("=HBBI", program))
    while True:
        code, true, false, k = instructions[position]
        position += 1
        if code == 0x20:
            accumulator = struct.unpack_from("=I", data, k)[0]
        elif code == 0x54:
            accumulator &= k
        elif code == 0x05:
            position += k
        elif code in (0x15, 0x25, 0x35):
            holds = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k}[code]
            position += true if holds else false
        elif code == 0x06:
            return int(k)
        else:
            raise AssertionError(f"unknown instruction {code:#x}")


def test_the_filter_decides_as_the_profile_says() -> None:
    compiled = compile_profile(PROFILE)
    assert compiled.flags == 2
    expected = {(0,): ALLOW, (1,): ALLOW, (2,): ERRNO | 38, (62,): ERRNO | 1, (135, 0): ALLOW, (135, 8): ALLOW}
    expected |= {(135, 1): ERRNO | 38, (56, 0x11): ALLOW, (56, 0x10000000): ERRNO | 38}
    assert {call: verdict(compiled.program, *call) for call in expected} == expected
    assert verdict(compiled.program, 3, arch=0x40000003) == ALLOW  # read of i386


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"defaultAction": "SCMP_ACT_FLY"}, InvalidValue, "linux.seccomp.defaultAction: not an action: 'SCMP_ACT_FLY'"),
        ({"defaultAction": None}, InvalidValue, "defaultAction: not an action: None"),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, UnsupportedField, "SCMP_ACT_NOTIFY needs a listener"),
        ({"defaultAction": "SCMP_ACT_ALLOW"}, InvalidValue, "errnoRet has no meaning with SCMP_ACT_ALLOW"),
        ({"defaultErrnoRet": -1}, InvalidValue, "errnoRet must be from 0 to 65535, not -1"),
        ({"architectures": ["SCMP_ARCH_VAX"]}, InvalidValue, "not an architecture: 'SCMP_ARCH_VAX'"),
        ({"flags": ["SECCOMP_FILTER_FLAG_NEW_LISTENER"]}, UnsupportedField, "not a flag that can be used"),
        ({"listenerPath": "/run/x"}, UnsupportedField, "linux.seccomp.listenerPath"),
        ({"unknown": 1}, UnsupportedField, "linux.seccomp.unknown: it is not known"),
        ({"syscalls": [{"names": ["read"], "action": "X"}]}, InvalidValue, "syscalls[0].action: not an action: 'X'"),
        ({"syscalls": [{"names": [], "action": "SCMP_ACT_ALLOW"}]}, InvalidValue, "expected names of system calls"),
        ({"syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "x": 1}]}, UnsupportedField, "syscalls[0].x"),
        (
            {"syscalls": [{"names": ["a"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 6, "op": "SCMP_CMP_EQ"}]}]},
            InvalidValue,
            "index must be from 0 to 5",
        ),
        (
            {"syscalls": [{"names": ["a"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "op": "=="}]}]},
            InvalidValue,
            "syscalls[0].args[0].op: not an operator: '=='",
        ),
    ],
)
def test_what_is_no_profile_is_refused(change: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        compile_profile({**PROFILE, **change})
    assert text in str(caught.value)


def test_a_filter_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "new" / "seccomp"
    first = FilterCache(str(directory)).get(PROFILE)
    [file] = directory.iterdir()
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600

    def never(_: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(seccomp, "compile_profile", never)
    cache = FilterCache(str(directory))
    reordered = dict(reversed(PROFILE.items()))
    assert cache.get(reordered) == first
    assert cache.get(reordered) is cache.get(PROFILE)
    assert FilterCache(str(directory)).get(seccomp.canonical(PROFILE)) == first


@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "appended", "link"])
def test_a_damaged_file_is_compiled_again(tmp_path: Path, damage: str) -> None:
    first = FilterCache(str(tmp_path)).get(PROFILE)
    [file] = tmp_path.iterdir()
    content = file.read_bytes()
    flipped = content[:100] + bytes([content[100] ^ 1]) + content[101:]
    damaged = {"empty": b"", "truncated": content[:-8], "flipped": flipped, "appended": content + b"\0" * 8}
    if damage == "link":
        file.rename(tmp_path / "elsewhere")
        file.symlink_to("elsewhere")
    else:
        file.write_bytes(damaged[damage])
    assert FilterCache(str(tmp_path)).get(PROFILE) == first
    assert not file.is_symlink()
    assert file.read_bytes() == content


def test_profiles_that_differ_have_filters_that_differ(tmp_path: Path) -> None:
    cache = FilterCache(str(tmp_path))
    assert cache.get(PROFILE) != cache.get({**PROFILE, "defaultErrnoRet": 1})
    assert len(list(tmp_path.iterdir())) == 2


def test_the_library_is_found_without_running_programs(tmp_path: Path) -> None:
    """ctypes.util.find_library runs ldconfig, a child that a host program would see."""
    import subprocess
    import sys

    script = (
        "import sys, json; events = []\n"
        "sys.addaudithook(lambda event, _: events.append(event))\n"
        "from pyengine.linux.seccomp import compile_profile\n"
        "compile_profile(json.loads(sys.argv[1]))\n"
        "import ctypes.util\n"
        "print([e for e in events if e in ('subprocess.Popen', 'os.fork', 'os.posix_spawn')],"
        " ctypes.util.find_library.__name__)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, json.dumps(PROFILE)], capture_output=True, text=True, check=False
    )
    assert (ended.stdout, ended.stderr) == ("[] find_library\n", "")
