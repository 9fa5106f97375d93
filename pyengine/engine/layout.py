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
        """The container's directory: ``upper``, ``work``, ``config.json`` (the spec), ``ctr.log``."""
        return f"{self.root}/containers/{id}"

    def run(self, id: str) -> str:
        """The container's run directory: the monitor's facts and sockets, and files made for each start."""
        return f"{self.run_root}/containers/{id}"

    def session(self, id: str, session: str) -> str:
        """The run directory of an exec session."""
        return f"{self.run_root}/containers/{id}/exec/{session}"

    @property
    def mount_point(self) -> str:
        """An empty directory on which every container mounts its root, each in a mount namespace of its own."""
        return f"{self.root}/mount"

    @property
    def targets(self) -> str:
        """The lowest layer of every container: what is mounted on if an image does not have it. So nothing has to be
        made in the writable layer at each start, and nothing of it shows as a change of the container."""
        return f"{self.root}/targets"

    @property
    def layers(self) -> str:
        return f"{self.root}/layers"

    @property
    def seccomp_cache(self) -> str:
        return f"{self.root}/cache/seccomp"


def make_fixed_directories(layout: Layout) -> None:
    """What is the same for all containers of a store, made where it is missing."""
    os.makedirs(f"{layout.run_root}/containers", mode=0o700, exist_ok=True)
    os.makedirs(layout.mount_point, mode=0o700, exist_ok=True)
    if os.path.exists(f"{layout.targets}/run/.containerenv"):
        return
    for name in ("dev", "etc", "proc", "run", "sys"):
        os.makedirs(f"{layout.targets}/{name}", mode=0o755, exist_ok=True)
    for name in ("etc/hostname", "etc/hosts", "etc/resolv.conf", "run/.containerenv"):
        with open(f"{layout.targets}/{name}", "ab") as file:
            os.fchmod(file.fileno(), 0o644)
    for name in ("", "/dev", "/etc", "/proc", "/run", "/sys"):
        os.chmod(layout.targets + name, 0o755)  # whatever the umask of the caller


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
