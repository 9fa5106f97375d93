"""The store: one directory with everything that outlives a process, opened."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType

from pyengine.errors import KernelError, StoreError
from pyengine.linux.faults import fault
from pyengine.linux.trees import remove_tree
from pyengine.store import work
from pyengine.store.blobs import LAYOUT, Blobs
from pyengine.store.containers import Containers
from pyengine.store.database import Database
from pyengine.store.durable import replace_file
from pyengine.store.images import Images
from pyengine.store.layers import Layers
from pyengine.store.unpack import UnpackOptions
from pyengine.store.work import WorkDirectory


class Store:
    """The store in the directory ``root``, made if it is not there. A context manager.

    ``root`` and everything directly below it can be entered by its owner only: layers hold setuid files of images
    (CVE-2021-41091). ``run_root`` is for what is gone at reboot. Opening sweeps what crashed processes left. Many
    threads may share one, and many processes may have the same store open.

    ``single_id``: files cannot be given owners, because the user has no range of subordinate ids. ``remove``: how to
    remove a directory, where what is below may belong to ids that this process has no power over.

    :raises StoreError: the database is damaged, or of a newer version
    :raises KernelError: a directory cannot be made
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        run_root: str | os.PathLike[str],
        *,
        single_id: bool = False,
        remove: Callable[[str], None] = remove_tree,
    ):
        self._remove = remove
        self.root = os.path.abspath(root)
        self.run_root = os.path.abspath(run_root)
        if any(character in self.root for character in ":,\\"):
            raise StoreError(f"the root directory {self.root!r} contains a colon, comma or backslash")
        for path in (self.root, self.run_root, *(f"{self.root}/{name}" for name in _DIRECTORIES)):
            _make_private(path)
        self.database = Database(f"{self.root}/engine.db")
        try:
            self.blobs = Blobs(self.root)
            self.layers = Layers(self.root, self.database)
            self.images = Images(self.root, self.database, self.layers, self.blobs)
            self.containers = Containers(self.database)
            self.unpack_options = UnpackOptions.detect(single_id=single_id)
            self.blobs.prepare()
            self._complete_layout()
            self.sweep()
        except BaseException:
            self.database.close()
            raise

    def work(self) -> WorkDirectory:
        """A new work directory on the store's file system."""
        return WorkDirectory(f"{self.root}/tmp", self._remove)

    def _complete_layout(self) -> None:
        if os.path.exists(f"{self.root}/index.json") and os.path.exists(f"{self.root}/oci-layout"):
            return
        with self.work() as directory:
            replace_file(f"{self.root}/oci-layout", LAYOUT, directory.new_path("oci-layout"))
            self.images.rewrite_index(directory)

    def sweep(self) -> int:
        """Remove what processes left that ended in the middle of their work. Returns how many there were."""
        found = work.abandoned(f"{self.root}/tmp")
        if not found:
            return 0
        try:
            # The directories stay until all is in order: a crash in here is found again.
            with self.work() as directory:
                self.images.remove_debris(directory)
                self.containers.remove_debris(f"{self.root}/containers", directory)
                self.images.rewrite_index(directory)
            for path, _ in found:
                fault("work-sweep")
                self._remove(path)
        finally:
            for _, fd in found:
                os.close(fd)
        return len(found)

    def close(self) -> None:
        """Close the database. Calling it again does nothing."""
        self.database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_DIRECTORIES = ("blobs", "layers", "containers", "volumes", "tmp")


def _make_private(path: str) -> None:
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        if os.stat(path).st_mode & 0o777 != 0o700:
            os.chmod(path, 0o700)
    except OSError as error:
        raise KernelError(error.errno or 0, f"make the directory {path}", path=path) from error
