"""Writing ``docker save``'s format, with the legacy files that old readers look for (reference, images.md §7.1)."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

from pyengine.errors import StoreError
from pyengine.oci.digest import Digest
from pyengine.oci.reference import Reference
from pyengine.store.images import Image
from pyengine.store.pipeline import Measured, file_chunks, measure, uncompressed
from pyengine.store.store import Store
from pyengine.transports.progress import Progress, Saving
from pyengine.transports.save import ArchiveWriter


def write_images(
    store: Store, images: list[tuple[Image, list[str]]], writer: ArchiveWriter, progress: Progress | None
) -> None:
    """All members but the end mark; ``manifest.json`` is the last."""
    items: list[dict[str, Any]] = []
    repositories: dict[str, dict[str, str]] = {}
    for image, names in images:
        for layer, descriptor in zip(image.layers, image.decode_manifest().layers, strict=True):
            if progress:
                progress(Saving(str(layer.diff_id), layer.size))
            seen = Measured()
            with closing(file_chunks(store.blobs.path(Digest.parse(descriptor.digest)))) as blob:
                stream = measure(uncompressed(blob), seen, layer.diff_id.algorithm)
                writer.stream(f"{layer.diff_id.hex}.tar", layer.size, stream)
            if seen.digest is not None and seen.digest != layer.diff_id:
                raise StoreError(f"blob {descriptor.digest} in the store {store.root} is damaged")
        writer.file(f"{image.id}.json", image.config)
        top = _write_legacy(image, writer)
        # Only names with a tag: RepoTags knows no digests.
        references = [reference for name in names if (reference := Reference.parse(name)).tag is not None]
        for reference in references:
            repositories.setdefault(reference.name, {})[reference.tag or ""] = top
        items.append(
            {
                "Config": f"{image.id}.json",
                "RepoTags": [str(reference) for reference in references] or None,
                "Layers": [f"{layer.diff_id.hex}.tar" for layer in image.layers],
            }
        )
    writer.file("repositories", _json(repositories))
    writer.file("manifest.json", _json(items))


def _write_legacy(image: Image, writer: ArchiveWriter) -> str:
    """The folder of each layer that Docker before 1.10 reads; returns the name of the topmost, its "v1 ID"."""
    parent = ""
    for layer in image.layers:
        is_top = layer is image.layers[-1]
        seed = f"{layer.chain_id} {image.id if is_top else ''} {parent}"
        v1_id = Digest.of(seed.encode()).hex
        document: dict[str, Any] = {"id": v1_id, "created": "1970-01-01T00:00:00Z", "os": "linux"}
        if parent:
            document["parent"] = parent
        if is_top:
            config = json.loads(image.config)
            document |= {key: config[key] for key in ("created", "architecture", "config", "author") if key in config}
        writer.directory(v1_id)
        writer.file(f"{v1_id}/VERSION", b"1.0")
        writer.symlink(f"{v1_id}/layer.tar", f"../{layer.diff_id.hex}.tar")
        writer.file(f"{v1_id}/json", _json(document))
        parent = v1_id
    return parent


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
