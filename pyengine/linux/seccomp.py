"""System call filters: ``linux.seccomp`` of an OCI runtime spec, compiled by libseccomp and kept.

Names that libseccomp does not know are left out, as by all engines: profiles are written for many kernels and machines,
and a call that does not exist falls under the default action. Unknown actions, operators, architectures and flags are
errors. Where several conditions of one rule look at the same argument they are alternatives, each a rule of its own, as
with runc: libseccomp has no other way.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pyengine._syscalls import lib
from pyengine.errors import InvalidValue, KernelError, MissingProgram, UnsupportedField
from pyengine.linux import calls
from pyengine.linux.fd import Fd
from pyengine.linux.seccomp_compact import compact

_FORMAT: Final = b"pyengine seccomp 2\n"
_LIMIT: Final = 4096 * 8  # BPF_MAXINSNS
_ACTIONS: Final = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_OPERATORS: Final = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
_FLAGS: Final = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
}
_IMPORT = threading.Lock()


@dataclass(frozen=True, slots=True)
class Filter:
    """``program``: instructions of 8 bytes (``struct sock_filter``) for seccomp(2). ``flags``: its
    ``SECCOMP_FILTER_FLAG_`` bits."""

    program: bytes
    flags: int


class FilterCache:
    """Filters by their profile: in memory, and in files of ``directory`` (made if absent, private to the user), named
    after profile, machine and version of libseccomp. A damaged file is compiled again. Safe in many threads and
    processes."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._filters: dict[bytes, Filter] = {}
        self._environment = b""

    def get(self, profile: Mapping[str, Any] | bytes) -> Filter:
        """The filter of a profile: an OCI ``linux.seccomp`` object, or its JSON text (which is then the key as it is).

        ``InvalidValue`` if it is none, ``UnsupportedField`` for ``listenerPath``, ``MissingProgram`` without
        libseccomp."""
        text = profile if isinstance(profile, bytes) else canonical(profile)
        if not self._environment:
            version = lib.pe_seccomp_version()
            if version < 0:
                raise MissingProgram("libseccomp.so.2", "libseccomp2", "filtering system calls")
            self._environment = f"{platform.machine()} {version:#x}\n".encode()
        key = hashlib.sha256(self._environment + text).digest()
        found = self._filters.get(key)
        if found is None:
            path = os.path.join(self._directory, key.hex())
            found = _load(path)
            if found is None:
                found = compile_profile(json.loads(text) if isinstance(profile, bytes) else profile)
                _save(path, found)
            self._filters[key] = found
        return found


def canonical(profile: Mapping[str, Any]) -> bytes:
    """The JSON text of a profile that does not depend on the order of its members."""
    return json.dumps(profile, sort_keys=True, separators=(",", ":")).encode()


def _load(path: str) -> Filter | None:
    """A kept filter, or None if there is none or it is not what was written."""
    try:
        with calls.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK) as fd:
            content = calls.run("read", path, os.read, fd.fileno(), _LIMIT + 100)
    except KernelError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return None
        raise
    head = len(_FORMAT) + 32
    body = content[head:]
    if content[: len(_FORMAT)] != _FORMAT or hashlib.sha256(body).digest() != content[len(_FORMAT) : head]:
        return None
    if len(body) < 16 or len(body) % 8:
        return None
    return Filter(body[8:], int.from_bytes(body[:8], "little"))


def _save(path: str, made: Filter) -> None:
    body = made.flags.to_bytes(8, "little") + made.program
    directory = os.path.dirname(path)
    calls.run("mkdir", directory, os.makedirs, directory, 0o700, exist_ok=True)
    temporary = f"{path}.{os.getpid()}.{threading.get_ident()}"
    with calls.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600) as fd:
        content = _FORMAT + hashlib.sha256(body).digest() + body
        written = calls.run("write", temporary, os.write, fd.fileno(), content)
    if written == len(content):
        calls.run("rename", temporary, os.replace, temporary, path)
    else:  # a full disk: it will be compiled again
        calls.run("unlink", temporary, os.unlink, temporary)


def _library() -> Any:
    """pyseccomp, which finds its library by ctypes.util.find_library: that runs ldconfig, a child of the host program.
    The names are the same on every Debian, so they are answered here while the module is imported the first time."""
    import ctypes.util

    with _IMPORT:
        search = ctypes.util.find_library
        known = {"seccomp": "libseccomp.so.2", "c": "libc.so.6"}
        ctypes.util.find_library = lambda name: known.get(name) or search(name)
        try:
            import pyseccomp
        finally:
            ctypes.util.find_library = search
    return pyseccomp


def _action(name: object, value: object, field: str) -> int:
    if name == "SCMP_ACT_NOTIFY":
        raise UnsupportedField(field, "SCMP_ACT_NOTIFY needs a listener, which is not supported")
    if not isinstance(name, str) or name not in _ACTIONS:
        raise InvalidValue(f"{field}: not an action: {name!r}")
    if value is not None and (not isinstance(value, int) or not 0 <= value <= 0xFFFF):
        raise InvalidValue(f"{field}: errnoRet must be from 0 to 65535, not {value!r}")
    if name in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        return _ACTIONS[name] | (errno.EPERM if value is None else int(value))
    if value is not None:
        raise InvalidValue(f"{field}: errnoRet has no meaning with {name}")
    return _ACTIONS[name]


def compile_profile(profile: Mapping[str, Any]) -> Filter:
    """Compiles an OCI ``linux.seccomp`` object. Takes some 10 ms: use a ``FilterCache``."""
    field = "linux.seccomp"
    known = {
        "defaultAction", "defaultErrnoRet", "architectures", "flags", "listenerPath", "listenerMetadata", "syscalls",
    }  # fmt: skip
    for name in profile:
        if name not in known:
            raise UnsupportedField(f"{field}.{name}", "it is not known")
    for name in ("listenerPath", "listenerMetadata"):
        if profile.get(name):
            raise UnsupportedField(f"{field}.{name}", "handing system calls to another program is not supported")
    flags = 0
    for name in profile.get("flags") or ():
        if name not in _FLAGS:
            raise UnsupportedField(f"{field}.flags", f"not a flag that can be used: {name!r}")
        flags |= _FLAGS[name]
    default = _action(profile.get("defaultAction"), profile.get("defaultErrnoRet"), f"{field}.defaultAction")
    pyseccomp = _library()
    compiled = pyseccomp.SyscallFilter(default)
    compiled.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, 2)  # a tree by number instead of a list: cheaper at every call
    for name in profile.get("architectures") or ():
        arch = getattr(pyseccomp.Arch, str(name).removeprefix("SCMP_ARCH_"), None)
        if not isinstance(arch, int) or not str(name).startswith("SCMP_ARCH_"):
            raise InvalidValue(f"{field}.architectures: not an architecture: {name!r}")
        if not compiled.exist_arch(arch):
            compiled.add_arch(arch)
    for index, rule in enumerate(profile.get("syscalls") or ()):
        _add(pyseccomp, compiled, default, rule, f"{field}.syscalls[{index}]")
    with Fd(calls.run("memfd_create", "seccomp", os.memfd_create, "seccomp")) as fd:
        calls.run("compile", "the seccomp profile", compiled.export_bpf, fd)
        program = calls.run("read", "the seccomp filter", os.pread, fd.fileno(), _LIMIT + 8, 0)
    if not program or len(program) > _LIMIT or len(program) % 8:
        raise InvalidValue(f"{field}: the filter has {len(program) // 8} instructions: the kernel takes 1 to 4096")
    return Filter(compact(program), flags)


def _add(pyseccomp: Any, compiled: Any, default: int, rule: Mapping[str, Any], field: str) -> None:
    for name in rule:
        if name not in ("names", "action", "errnoRet", "args"):
            raise UnsupportedField(f"{field}.{name}", "it is not known")
    action = _action(rule.get("action"), rule.get("errnoRet"), f"{field}.action")
    conditions = []
    indexes = []
    for position, given in enumerate(rule.get("args") or ()):
        where = f"{field}.args[{position}]"
        if given.get("op") not in _OPERATORS:
            raise InvalidValue(f"{where}.op: not an operator: {given.get('op')!r}")
        numbers = [given.get("index"), given.get("value", 0), given.get("valueTwo", 0)]
        if not all(isinstance(item, int) and 0 <= item < 1 << 64 for item in numbers) or numbers[0] > 5:
            raise InvalidValue(f"{where}: index must be from 0 to 5, value and valueTwo 64-bit numbers: {given!r}")
        conditions.append(pyseccomp.Arg(numbers[0], _OPERATORS[given["op"]], numbers[1], numbers[2]))
        indexes.append(numbers[0])
    alternatives = [conditions]
    if len(set(indexes)) < len(indexes):
        alternatives = [[condition] for condition in conditions]
    names = rule.get("names")
    if not names or not all(isinstance(name, str) and name for name in names):
        raise InvalidValue(f"{field}.names: expected names of system calls, got {names!r}")
    if action == default:
        return  # libseccomp refuses what changes nothing
    for name in names:
        number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
        if number == -1:
            continue
        for arguments in alternatives:
            what = f"{name} ({field})"
            calls.run("add seccomp rule", what, compiled.add_rule, action, number, *arguments)
