"""Builds tars and image archives for tests, the hostile ones included."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import Any

from pyengine.store import tar
from pyengine.store.tar_write import END, header, new_entry, padding

Member = bytes


def member(name: str | bytes, type: bytes = tar.REGULAR, content: bytes = b"", **fields: Any) -> Member:
    """One member with its header and data. ``fields`` are those of an Entry."""
    raw = name.encode() if isinstance(name, str) else name
    entry = new_entry(raw, type, size=len(content))
    for key, value in fields.items():
        setattr(entry, key, value)
    return header(entry) + content + padding(len(content))


def file(name: str | bytes, content: bytes = b"x", **fields: Any) -> Member:
    return member(name, tar.REGULAR, content, **fields)


def directory(name: str, **fields: Any) -> Member:
    return member(name, tar.DIRECTORY, **{"mode": 0o755, **fields})


def symlink(name: str, target: str, **fields: Any) -> Member:
    return member(name, tar.SYMLINK, link=target.encode(), **fields)


def hard_link(name: str, target: str) -> Member:
    return member(name, tar.HARD_LINK, link=target.encode())


def device(name: str, major: int, minor: int, type: bytes = tar.CHARACTER_DEVICE) -> Member:
    return member(name, type, major=major, minor=minor)


def raw_header(name: bytes, type: bytes, size: int = 0, **fields: bytes) -> bytes:
    """A header made by hand, so that its fields may be nonsense; ``fields`` are ``f<offset>``."""
    block = bytearray(512)
    block[: len(name)] = name
    block[100:124] = b"0000644\x000000000\x000000000\x00"
    block[124:136] = b"%011o\0" % size
    block[136:148] = b"%011o\0" % 0
    block[156:157] = type
    block[257:265] = b"ustar\x0000"
    for key, value in fields.items():
        start = int(key[1:])
        block[start : start + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def extended(type: bytes, data: bytes) -> bytes:
    """An extended header (x, g, L, K) with its data."""
    return raw_header(b"extended", type, len(data)) + data + padding(len(data))


def pax(**records: str) -> bytes:
    return extended(b"x", b"".join(record(key.replace("__", "."), value.encode()) for key, value in records.items()))


def record(key: str, value: bytes) -> bytes:
    body = b" " + key.encode() + b"=" + value + b"\n"
    length = len(body) + 1
    while len(b"%d" % length) + len(body) != length:
        length += 1
    return b"%d" % length + body


def archive(*members: Member) -> bytes:
    return b"".join(members) + END


def chunks(data: bytes, size: int = 4096) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def config_for(*diff_ids: str, **extra: Any) -> bytes:
    document = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-05-06T07:08:09.5Z",
        "config": {"Cmd": ["/bin/sh"], "Labels": {"a": "b"}},
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        "history": [{"created": "2024-05-06T07:08:09Z", "created_by": f"step {n}"} for n, _ in enumerate(diff_ids)],
    }
    return json.dumps(document | extra).encode()


def tar_of(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tarball:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tarball.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tarball.addfile(info)
    return out.getvalue()


def docker_archive(images: list[tuple[list[str], list[bytes]]], stored: Any = None) -> bytes:
    """``images`` are (RepoTags, layer tars). ``stored`` turns a layer into what the archive has (compression)."""
    files: dict[str, bytes] = {}
    items = []
    for names, layers in images:
        config = config_for(*(sha256(layer) for layer in layers))
        for layer in layers:
            files[f"{sha256(layer)[7:]}.tar"] = stored(layer) if stored else layer
        files[f"{sha256(config)[7:]}.json"] = config
        items.append(
            {
                "Config": f"{sha256(config)[7:]}.json",
                "RepoTags": names,
                "Layers": [f"{sha256(layer)[7:]}.tar" for layer in layers],
            }
        )
    files["manifest.json"] = json.dumps(items).encode()
    return tar_of(files)


def oci_files(
    layers: list[bytes], names: list[str], blobs: list[bytes] | None = None, manifest: dict[str, Any] | None = None
) -> dict[str, bytes]:
    """The files of an OCI layout with one image; ``blobs`` are the layers as stored, gzip by name unless plain."""
    blobs = blobs or layers
    config = config_for(*(sha256(layer) for layer in layers))
    suffix = {b"\x1f\x8b": "+gzip", b"\x28\xb5": "+zstd"}
    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", config),
        "layers": [
            descriptor("application/vnd.oci.image.layer.v1.tar" + suffix.get(blob[:2], ""), blob) for blob in blobs
        ],
    } | (manifest or {})
    text = json.dumps(document).encode()
    entry = descriptor("application/vnd.oci.image.manifest.v1+json", text)
    entries = [entry | {"annotations": {"org.opencontainers.image.ref.name": name}} for name in names] or [entry]
    index = {"schemaVersion": 2, "manifests": entries}
    files = {f"blobs/sha256/{sha256(blob)[7:]}": blob for blob in (*blobs, config, text)}
    return files | {"index.json": json.dumps(index).encode(), "oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}


def descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": sha256(data), "size": len(data)}
