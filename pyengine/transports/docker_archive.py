"""Reading ``docker save``'s format: ``manifest.json``, configurations, and a tar for each layer.

Source: Docker's image-spec v1.2, and what podman makes of it (reference, images.md §7.1).
"""

from __future__ import annotations

from functools import partial

import msgspec

from pyengine.errors import ArchiveError
from pyengine.oci.image import decode_config
from pyengine.oci.reference import Reference
from pyengine.store.limits import Limits
from pyengine.transports.files import Files, read
from pyengine.transports.source import SourceImage, SourceLayer


class Item(msgspec.Struct, frozen=True, rename="pascal"):
    """One image in ``manifest.json``: names of members, and names of the image."""

    config: str
    layers: list[str] | None = None
    repo_tags: list[str] | None = None


def read_images(files: Files, name: str | None, limits: Limits) -> list[SourceImage]:
    """All images of the archive, or the one whose RepoTags have ``name``."""
    data = read(files, "manifest.json", limits.document)
    try:
        items = msgspec.json.decode(data, type=list[Item])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ArchiveError(f"manifest.json of the docker-archive is not valid: {error}") from error
    if not items:
        raise ArchiveError("manifest.json of the docker-archive lists no image")
    wanted = str(Reference.local(name)) if name else None
    found = []
    for item in items:
        # A name without a registry was given by someone else's engine: it must not pass for one of docker.io.
        names = tuple(str(Reference.local(tag)) for tag in item.repo_tags or ())
        if wanted is not None and wanted not in names:
            continue
        config = read(files, item.config, limits.document)
        decode_config(config)
        layers = []
        for member in item.layers or ():
            files.size(member)
            layers.append(SourceLayer(f"layer {member[:200]}", partial(files.chunks, member)))
        found.append(SourceImage(config, tuple(layers), names))
    if not found:
        raise ArchiveError(f"the docker-archive has no image named {wanted}")
    return found
