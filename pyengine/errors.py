"""The exceptions that pyengine raises, one tree.

::

    PyengineError
    ├── KernelError (also an OSError)     a system call failed: what it was, on what, why
    │   └── StepError                     … while a container was being set up: which step of how many
    ├── InvalidValue (also a ValueError)  an argument that cannot mean anything
    │   ├── InvalidReference              … an image name
    │   ├── InvalidDigest                 … a digest
    │   └── UnsupportedField              … a field of an OCI document that cannot be done, by name
    ├── NotFound (also a LookupError)
    │   ├── ContainerNotFound, ImageNotFound, VolumeNotFound, PodNotFound
    ├── AmbiguousName                     a prefix that several things share
    ├── NameInUse                         the name belongs to another container, volume or pod
    ├── InUse                             what should be removed is needed by something else
    ├── InvalidState                      a container in a state that does not allow the call
    ├── CannotEnforce                     a limit or protection that this machine cannot give
    │   └── RequiresCgroupsV2             … because the cgroup or its controller is not delegated to us
    ├── MissingProgram                    a program of the system is absent: its name and package
    ├── StartFailed                       the command could not be started; ``exit_code`` is 126 or 127
    ├── WaitTimeout (also a TimeoutError) what was waited for did not come in time
    │   └── ExecTimeout                   … a command ran out of its time and was killed
    ├── OutputTooLarge                    a command wrote more than was to be collected
    ├── ArchiveError                      an archive that is corrupt, truncated or hostile
    │   ├── DigestMismatch                … bytes that are not those that were named
    │   ├── UnsafeEntry                   … an entry that would reach outside of its layer
    │   └── ArchiveTooLarge               … more than the bounds allow
    └── StoreError                        the store itself: wrong version, damaged, locked

The class is chosen by code, never by text; the facts are attributes; ``str()`` is one line for people that
says what was tried, on what, why it failed and, where there is one, the remedy.
"""

from __future__ import annotations

import os

from pyengine.typing import override


class PyengineError(Exception):
    """Base class of everything that pyengine raises on purpose."""


class KernelError(PyengineError, OSError):
    """A system call failed. ``errno`` is the kernel's; ``what`` says verb and object (``mount proc on /proc``);
    ``remedy`` is what the reader can do about it, or empty."""

    def __init__(self, errno: int, what: str, *, remedy: str = "", path: str | None = None) -> None:
        OSError.__init__(self, errno, os.strerror(errno), path)
        self.what = what
        self.remedy = remedy

    @override
    def __str__(self) -> str:
        text = f"{self.what}: {self.strerror}"
        return f"{text} ({self.remedy})" if self.remedy else text


class StepError(KernelError):
    """A step of a plan failed inside the new container. ``index`` counts from 1, of ``total`` steps."""

    def __init__(self, errno: int, what: str, index: int, total: int, *, remedy: str = "") -> None:
        super().__init__(errno, what, remedy=remedy)
        self.index = index
        self.total = total

    @override
    def __str__(self) -> str:
        return f"{super().__str__()} (step {self.index} of {self.total})"


class InvalidValue(PyengineError, ValueError):
    """An argument that cannot mean anything: wrong form, out of range, or contradicting another."""


class InvalidReference(InvalidValue):
    """An image name that does not parse."""


class InvalidDigest(InvalidValue):
    """A digest that does not parse or whose algorithm is not supported."""


class UnsupportedField(InvalidValue):
    """A field of an OCI document that pyengine does not know or cannot do. ``field`` is its dotted path."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class NotFound(PyengineError, LookupError):
    """``id`` is the name or ID as it was given, ``reason`` says how it was looked for."""

    def __init__(self, id: str, reason: str) -> None:
        super().__init__(reason)
        self.id = id
        self.reason = reason


class ContainerNotFound(NotFound):
    """No container has this ID, name or ID prefix."""


class ImageNotFound(NotFound):
    """No image has this name, ID or ID prefix."""


class VolumeNotFound(NotFound):
    """No volume has this name."""


class PodNotFound(NotFound):
    """No pod has this ID, name or ID prefix."""


class AmbiguousName(PyengineError):
    """Several things share the prefix ``id``."""

    def __init__(self, id: str, reason: str) -> None:
        super().__init__(reason)
        self.id = id
        self.reason = reason


class NameInUse(PyengineError):
    """The name belongs to something else already. ``owner`` is that thing's ID."""

    def __init__(self, name: str, owner: str) -> None:
        super().__init__(f"the name {name!r} is in use by {owner}: remove that first, or choose another name")
        self.name = name
        self.owner = owner


class InUse(PyengineError):
    """What should be removed is needed by something else."""


class InvalidState(PyengineError):
    """The container ``id`` is in ``state``, which does not allow what was asked."""

    def __init__(self, id: str, state: str, reason: str) -> None:
        super().__init__(reason)
        self.id = id
        self.state = state
        self.reason = reason


class CannotEnforce(PyengineError):
    """A limit or a protection that this machine cannot give, so that nothing was started without it."""


class RequiresCgroupsV2(CannotEnforce):
    """A limit needs a cgroup v2 controller that is not there, or not delegated to this user."""


class MissingProgram(PyengineError):
    """A program of the system is needed and absent."""

    def __init__(self, program: str, package: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {program}: install it with: apt-get install {package}")
        self.program = program
        self.package = package


class StartFailed(PyengineError):
    """The command could not be started. ``exit_code`` is 127 where it was not found, else 126."""

    def __init__(self, reason: str, exit_code: int) -> None:
        super().__init__(reason)
        self.exit_code = exit_code


class WaitTimeout(PyengineError, TimeoutError):
    """What was waited for did not come in time."""


class OutputTooLarge(PyengineError):
    """A command wrote more than was to be collected. It ran to its end: ``exit_code`` is what it returned."""

    def __init__(self, limit: int, exit_code: int) -> None:
        super().__init__(
            f"the command wrote more than {limit} bytes (exit code {exit_code}): raise output_limit, or read its "
            "output as it comes with start_attached() or open_exec()"
        )
        self.limit = limit
        self.exit_code = exit_code


class ExecTimeout(WaitTimeout):
    """A command in a container ran longer than it was allowed, and was killed with all that it started."""


class ArchiveError(PyengineError):
    """An archive, layer or document that is corrupt, truncated or not what it says."""


class DigestMismatch(ArchiveError):
    """Bytes whose digest or size is not the one that named them."""

    def __init__(self, what: str, expected: str, actual: str) -> None:
        super().__init__(f"{what}: expected {expected}, got {actual}")
        self.expected = expected
        self.actual = actual


class UnsafeEntry(ArchiveError):
    """An entry of an archive that would reach outside of its layer."""


class ArchiveTooLarge(ArchiveError):
    """An archive that takes more than the bounds allow: bytes, entries, or the length of a header."""


class StoreError(PyengineError):
    """The store itself cannot be used: its version, its lock, or damage. Says what to do."""
