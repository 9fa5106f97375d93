"""The engine: a store, a run directory, and what can be done with them."""

from __future__ import annotations

import errno
import os
import threading
from collections import OrderedDict
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from pyengine.engine.containers import Containers
from pyengine.engine.layout import default_layout, make_fixed_directories
from pyengine.errors import KernelError, PyengineError
from pyengine.linux.fd import Fd
from pyengine.store.store import Store

if TYPE_CHECKING:
    from pyengine.engine.cgroups import Cgroups
    from pyengine.engine.explain import Explanation
    from pyengine.engine.images import Images
    from pyengine.engine.spec_facts import EnvironmentFacts
    from pyengine.engine.storage import Storage
    from pyengine.linux.seccomp import FilterCache
    from pyengine.linux.userns import UserNamespace
    from pyengine.oci.runtime import RuntimeSpec
    from pyengine.store.work import WorkDirectory

_REMEMBERED = 64


class Engine:
    """A container engine, in this process.

    `root` is the directory for what survives a reboot (default: /var/lib/pyengine, for an ordinary user
    ``$XDG_DATA_HOME/pyengine``), `run_root` the one for what does not (/run/pyengine, ``$XDG_RUNTIME_DIR/pyengine``).
    Many engines, in many processes, may have the same store open at once. Opening one sweeps what crashed processes
    left.

    Root gets rootful containers, an ordinary user rootless ones, inside one user namespace of that user's.
    An engine may be used by many threads. Closing it leaves running containers alone.

    Raises `StoreError` for a store that is damaged or newer than this library, `KernelError` when a directory cannot be
    made.
    """

    def __init__(self, root: str | None = None, run_root: str | None = None) -> None:
        self.layout = default_layout(root, run_root)
        self.rootless = os.geteuid() != 0
        self._lock = threading.Lock()
        self._storage: Storage | None = None
        self._work: WorkDirectory | None = None
        self._monitor: Fd | None = None
        self._specs: OrderedDict[str, RuntimeSpec] = OrderedDict()
        self._namespace: UserNamespace | None = None
        try:
            self.store = Store(self.layout.root, self.layout.run_root, remove=self.remove_tree)
        except BaseException:
            if self._storage is not None:
                self._storage.close()
            raise
        try:
            make_fixed_directories(self.layout)
            self._sweep()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the store. Calling it again does nothing."""
        with self._lock:
            work, self._work = self._work, None
            program, self._monitor = self._monitor, None
        if work is not None:
            work.close()  # which may need the storage
        with self._lock:
            storage, self._storage = self._storage, None
        if program is not None:
            program.close()
        if storage is not None:
            storage.close()
        if "cgroups" in vars(self):
            self.cgroups.close()
        self.store.close()

    @property
    def work(self) -> WorkDirectory:
        """A directory for what is under way, made at the first need and removed when the engine is closed. If this
        process dies, the next engine that is opened finds it and sweeps."""
        with self._lock:
            if self._work is None:
                self._work = self.store.work()
            return self._work

    @property
    def monitor_program(self) -> Fd:
        """The monitor, out of reach of containers. See `pyengine.runtime.monitor.open_program`."""
        from pyengine.runtime.monitor import open_program

        with self._lock:
            if self._monitor is None:
                self._monitor = open_program()
            return self._monitor

    def remember_spec(self, id: str, spec: RuntimeSpec) -> None:
        """Keep the spec of a container at hand: it never changes. A bounded number is kept, the oldest go."""
        with self._lock:
            self._specs[id] = spec
            if len(self._specs) > _REMEMBERED:
                self._specs.popitem(last=False)

    def remembered_spec(self, id: str) -> RuntimeSpec | None:
        """What `remember_spec` kept, or None."""
        with self._lock:
            return self._specs.get(id)

    def _sweep(self) -> None:
        from pyengine.engine.sweep import sweep

        sweep(self)

    @property
    def root(self) -> str:
        return self.layout.root

    @property
    def run_root(self) -> str:
        return self.layout.run_root

    @cached_property
    def cgroups(self) -> Cgroups:
        """The cgroups of containers."""
        from pyengine.engine.cgroups import Cgroups

        return Cgroups(self.rootless)

    @cached_property
    def containers(self) -> Containers:
        """Containers: create, run, get, list."""
        return Containers(self)

    @cached_property
    def images(self) -> Images:
        """Images: load, import, save, tag, list, remove."""
        from pyengine.engine.images import Images

        return Images(self)

    @cached_property
    def facts(self) -> EnvironmentFacts:
        """What this machine and this user can give to containers."""
        from pyengine.engine import facts

        if not self.rootless:
            return facts.gather(rootless=False)
        namespace = self.user_namespace()
        return facts.gather(
            rootless=True, uid_map=facts.ranges(namespace.uid_map), gid_map=facts.ranges(namespace.gid_map)
        )

    @cached_property
    def filters(self) -> FilterCache:
        """Compiled system call filters."""
        from pyengine.linux.seccomp import FilterCache

        return FilterCache(self.layout.seccomp_cache)

    @cached_property
    def last_capability(self) -> int:
        """The highest capability that this kernel knows (/proc/sys/kernel/cap_last_cap)."""
        with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
            return int(file.read())

    def user_namespace(self) -> UserNamespace:
        """The user namespace of a rootless engine, made at the first need and held by a process of its own."""
        from pyengine.linux.userns import ensure

        with self._lock:
            if self._namespace is None or not self._namespace.holder.running():
                self._namespace = ensure(self.layout.run_root)
            return self._namespace

    def open_user_namespace(self) -> Fd:
        """A descriptor of the user namespace that containers of a rootless engine live below."""
        return self.user_namespace().user_fd()

    @property
    def storage(self) -> Storage:
        """Where layers are unpacked and removed: here, or for a rootless engine in its worker."""
        from pyengine.engine.storage import InProcess, InWorker

        with self._lock:
            if self._storage is not None:
                return self._storage
        made: Storage = InWorker(self) if self.rootless else InProcess(self.store)
        with self._lock:
            if self._storage is None:
                self._storage = made
                return made
        made.close()
        return self.storage

    def remove_tree(self, path: str) -> None:
        """Remove a directory with everything below, whoever owns it; nothing if there is none."""
        from pyengine.linux.trees import remove_tree

        try:
            remove_tree(path)
        except KernelError as error:
            if not self.rootless or error.errno not in (errno.EACCES, errno.EPERM):
                raise
            self.storage.remove_tree(path)  # files of other ids of the user namespace

    def explain(self, image: str = "", command: tuple[str, ...] | list[str] = (), **options: Any) -> Explanation:
        """Spec, plan, layers, namespaces and cgroup of a container that would be created; nothing is made."""
        from pyengine.engine.explain import explain_request
        from pyengine.engine.options import make_request

        return explain_request(self, make_request(image=image, command=command, **options))

    def info(self) -> dict[str, Any]:
        """The machine, the store and what containers can be given here."""
        from pyengine.engine.info import info

        return info(self)

    def version(self) -> dict[str, str]:
        """Versions of pyengine, of the interface it speaks, of Python and of the kernel."""
        from pyengine.engine.info import version

        return version()

    def reset(self) -> None:
        """Remove every container, running or not, and every image; stop what serves this store.

        The directories stay, empty. Raises `PyengineError` if one could not be removed.
        """
        for container in self.containers.list(all=True):
            container.remove(force=True)
        for record in self.store.images.all():
            self.storage.remove_image(record.id)
        if self.store.images.all():
            raise PyengineError("images are left: another process uses this store")
        self.close_user_namespace()

    def close_user_namespace(self) -> None:
        """End the process that holds the user namespace of a rootless engine."""
        from pyengine.linux.userns import stop

        if self.rootless:
            stop(self.layout.run_root)
            self._namespace = None
