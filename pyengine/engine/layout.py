"""Where an engine keeps what: paths below the root and the run directory, and nothing else."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pyengine.errors import StoreError


@dataclass(frozen=True, slots=True)
class Layout:
    """`root` survives a reboot, `run_root` does not."""

    root: str
    run_root: str

    def container(self, id: str) -> str:
        """The container's directory: ``upper``, ``work``, ``root`` (where its root is mounted, for itself only),
        ``config.json`` (the spec), ``ctr.log``."""
        return f"{self.root}/containers/{id}"

    def run(self, id: str) -> str:
        """The container's run directory: the monitor's facts and sockets, and files made for each start."""
        return f"{self.run_root}/containers/{id}"

    def session(self, id: str, session: str) -> str:
        """The run directory of an exec session."""
        return f"{self.run_root}/containers/{id}/exec/{session}"

    @property
    def layers(self) -> str:
        return f"{self.root}/layers"

    @property
    def seccomp_cache(self) -> str:
        return f"{self.root}/cache/seccomp"


def default_layout(root: str | None, run_root: str | None) -> Layout:
    """The directories of this user: below /var/lib and /run for root, below the XDG directories for others.

    Raises `StoreError` when an ordinary user has no directory of its own for what must not survive a reboot.
    """
    uid = os.geteuid()
    if root is None:
        if uid == 0:
            root = "/var/lib/pyengine"
        else:
            root = f"{os.environ.get('XDG_DATA_HOME') or os.path.expanduser('~/.local/share')}/pyengine"
    if run_root is None:
        run_root = "/run/pyengine" if uid == 0 else f"{_user_run_directory(uid)}/pyengine"
    return Layout(os.path.abspath(root), os.path.abspath(run_root))


def _user_run_directory(uid: int) -> str:
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    for candidate in (given, f"/run/user/{uid}"):
        if candidate and os.path.isdir(candidate) and os.access(candidate, os.W_OK):
            return candidate
    fallback = f"/tmp/pyengine-{uid}"
    try:
        os.mkdir(fallback, 0o700)
    except FileExistsError:
        pass
    status = os.lstat(fallback)
    if status.st_uid != uid or status.st_mode & 0o170077 != 0o040000:
        raise StoreError(f"{fallback} is not a private directory of user {uid}: remove it, or set XDG_RUNTIME_DIR")
    return fallback
