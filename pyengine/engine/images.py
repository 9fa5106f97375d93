"""The images of an engine, as its users handle them."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from pyengine.engine.image_removal import remove_by_rules
from pyengine.errors import ImageNotFound, InvalidValue
from pyengine.oci.reference import Reference
from pyengine.store.images import Image as Record
from pyengine.transports.progress import Progress
from pyengine.typing import override

if TYPE_CHECKING:
    from pyengine.engine.engine import Engine

Format = Literal["docker-archive", "oci-archive"]


class Image:
    """An image of the store, as it was when it was looked up."""

    def __init__(self, engine: Engine, record: Record) -> None:
        self._engine = engine
        self.record = record

    @override
    def __repr__(self) -> str:
        return f"<Image {self.short_id} {', '.join(self.names) or 'without a name'}>"

    @property
    def id(self) -> str:
        """64 hexadecimal digits: the digest of the configuration."""
        return self.record.id

    @property
    def short_id(self) -> str:
        return self.record.id[:12]

    @property
    def names(self) -> tuple[str, ...]:
        """Full names: ``docker.io/library/alpine:3.20``."""
        return self.record.names

    @property
    def digest(self) -> str:
        """The digest of the manifest."""
        return str(self.record.digest)

    @property
    def size(self) -> int:
        """Bytes of the unpacked layers, the configuration and the manifest."""
        return self.record.size

    @property
    def created_ns(self) -> int:
        """When it was made, in nanoseconds since 1970."""
        return self.record.created_ns

    @property
    def labels(self) -> dict[str, str]:
        config = self.record.decode_config().config
        return dict(config.labels or {}) if config is not None else {}

    def inspect(self) -> dict[str, Any]:
        """The document that ``podman image inspect`` prints."""
        from pyengine.engine.inspect import inspect_image

        return inspect_image(self._engine, self.record)

    def history(self) -> list[dict[str, Any]]:
        """How it was made, oldest entry first, in the words of the OCI image specification."""
        import msgspec

        history = self.record.decode_config().history or ()
        return [msgspec.to_builtins(entry) for entry in history]


class Images:
    """Load, import, save, tag, find, list and remove images."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def load(self, source: str | BinaryIO, *, name: str | None = None, progress: Progress | None = None) -> list[Image]:
        """Load every image of an archive or directory: docker-archive, oci-archive, OCI layout or ``dir``, found out
        by looking; gzip, zstd, xz and bzip2 are undone. `name` chooses one of several.

        Raises `ArchiveError` (`DigestMismatch`, `UnsafeEntry`, `ArchiveTooLarge`) for what is corrupt or hostile,
        `KernelError` when the disk is full. Either all images are there afterwards, or none.
        """
        return [self._get(id) for id in self._engine.storage.load(source, name, progress)]

    def import_(
        self,
        source: str | BinaryIO,
        reference: str | None = None,
        *,
        changes: Sequence[str] = (),
        message: str = "imported from tarball",
        progress: Progress | None = None,
    ) -> Image:
        """Make an image of one layer from a tar of a root file system, compressed or not.

        `changes` are lines of a Dockerfile that touch the configuration only: ``CMD ["sh"]``, ``ENV A=b`` …
        """
        return self._get(self._engine.storage.import_rootfs(source, reference, changes, message, progress))

    def save(
        self,
        names: str | Sequence[str],
        target: str | BinaryIO,
        *,
        format: Format = "docker-archive",
        progress: Progress | None = None,
    ) -> None:
        """Write images into an archive that other engines read back with the same digests.

        Raises `ImageNotFound`; a half-written file is removed.
        """
        from pyengine.transports.save import save

        chosen = []
        for name in [names] if isinstance(names, str) else names:
            record = self._engine.store.images.find(name)
            by_id = record.id.startswith(name.removeprefix("sha256:"))
            chosen.append((record, () if by_id else (self._recorded_name(record, name),)))
        if not chosen:
            raise InvalidValue("there is nothing to save: name at least one image")
        save(self._engine.store, chosen, target, format=format, progress=progress)

    @staticmethod
    def _recorded_name(record: Record, name: str) -> str:
        """The stored name that was meant, so that the archive names what the store names."""
        for full in (str(Reference.parse(name)), str(Reference.local(name))):
            if full in record.names:
                return full
        return record.names[0] if record.names else str(Reference.local(name))

    def get(self, name: str) -> Image:
        """The image that a name, an ID or the beginning of one means. Raises `ImageNotFound`."""
        return Image(self._engine, self._engine.store.images.find(name))

    def _get(self, id: str) -> Image:
        return Image(self._engine, self._engine.store.images.get(id))

    def exists(self, name: str) -> bool:
        """Whether `get` would find one."""
        try:
            self._engine.store.images.find(name)
        except ImageNotFound:
            return False
        return True

    def list(self) -> list[Image]:
        """All images, in the order in which they came."""
        return [Image(self._engine, record) for record in self._engine.store.images.all()]

    def tag(self, name: str, new: str) -> None:
        """Give an image another name; without a registry it is ``localhost/…``. A name that another image had moves."""
        self._engine.store.images.tag(self._engine.store.images.find(name).id, Reference.local(new))

    def untag(self, name: str, tag: str) -> bool:
        """Take a full name from an image, which stays. False if it did not have that name."""
        return self._engine.store.images.untag(self._engine.store.images.find(name).id, tag)

    def remove(self, name: str, force: bool = False) -> builtins.list[str]:
        """Take the name from an image that has several, else remove it with the layers that nothing else needs.

        Returns lines ``Untagged: NAME`` and ``Deleted: ID``. Raises `InUse` while containers use it, unless `force`,
        which removes them.
        """
        return remove_by_rules(self._engine, name, force)
