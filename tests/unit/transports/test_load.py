from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import zstandard
from layer_archives import (
    archive,
    config_for,
    descriptor,
    directory,
    docker_archive,
    file,
    oci_files,
    sha256,
    symlink,
    tar_of,
)

from pyengine.errors import (
    ArchiveError,
    ArchiveTooLarge,
    DigestMismatch,
    InvalidDigest,
    InvalidValue,
    KernelError,
    UnsafeEntry,
)
from pyengine.oci.digest import Digest
from pyengine.oci.image import DOCKER_MANIFEST
from pyengine.store.limits import Limits
from pyengine.store.store import Store
from pyengine.transports import import_rootfs, load, save
from pyengine.transports.progress import Committing, Event, ImageFound, LayerDone, LayerPresent

zipped = partial(gzip.compress, mtime=0)  # the same bytes at any time
BASE = archive(directory("bin"), file("bin/sh", b"#!", mode=0o755))
TOP = archive(file("etc/motd", b"hello"), file("bin/.wh.sh"))
OTHER = archive(file("other", b"z" * 5000))


def state(store: Store) -> dict[str, Any]:
    """Everything that a failed load must leave as it was."""
    files = {}
    for base, _, names in os.walk(store.root):
        for name in names:
            path = os.path.join(base, name)
            if not name.startswith("engine.db") and os.path.isfile(path):
                files[path[len(store.root) :]] = Path(path).read_bytes()
    return {"files": files, "layers": sorted(os.listdir(f"{store.root}/layers")), "images": store.images.all()}


def write(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "image.tar"
    path.write_bytes(data)
    return path


def write_layout(tmp_path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = tmp_path / "layout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "layout"


def test_a_docker_archive_with_many_images_shares_layers(store: Store, tmp_path: Path) -> None:
    path = write(
        tmp_path, docker_archive([(["one:1", "quay.io/x/y:2"], [BASE, TOP]), ([], [BASE]), (["b"], [BASE, OTHER])])
    )
    events: list[Event] = []
    loaded = load(store, path, progress=events.append)
    assert [image.names for image in loaded] == [("localhost/one:1", "quay.io/x/y:2"), (), ("localhost/b:latest",)]
    assert len(store.layers.all()) == 3
    first = store.images.find("one:1")
    assert first.id == loaded[0].id == Digest.of(first.config).hex
    assert [layer.n for layer in store.layers.chain(first.top_layer.n)] == [layer.n for layer in first.layers]
    assert [layer.n for layer in store.images.dangling()[0].layers] == [first.layers[0].n]
    assert Path(first.layers[0].diff, "bin/sh").read_bytes() == b"#!"
    assert first.size == len(BASE) + len(TOP) + len(first.config) + len(first.manifest)
    assert first.created_ns == 1714979289_500000000
    assert first.decode_config().config.labels == {"a": "b"}
    kinds = [type(event) for event in events]
    assert (kinds.count(ImageFound), kinds.count(LayerDone), kinds.count(Committing)) == (3, 3, 1)
    events.clear()
    assert load(store, path, progress=events.append) == loaded
    assert [type(event) for event in events].count(LayerPresent) >= 3
    assert len(store.layers.all()) == 3


@pytest.mark.parametrize("pack", [zipped, zstandard.compress, lzma.compress, bz2.compress])
def test_the_archive_may_be_compressed_and_may_be_a_stream(
    store: Store, tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    data = pack(docker_archive([(["a:1"], [BASE])]))
    by_path = load(store, write(tmp_path, data))
    assert load(store, io.BytesIO(data)) == by_path
    reader, writer = os.pipe()
    thread = threading.Thread(target=lambda: (os.write(writer, data), os.close(writer)))
    thread.start()
    with os.fdopen(reader, "rb") as stream:
        assert load(store, stream) == by_path
    thread.join()


@pytest.mark.parametrize("pack", [zipped, zstandard.compress])
def test_layers_inside_may_be_compressed_and_are_kept_as_they_came(
    store: Store, tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    load(store, write(tmp_path, docker_archive([(["a:1"], [BASE])], pack)))
    (image,) = store.images.all()
    (layer,) = image.decode_manifest().layers
    assert layer.digest == sha256(pack(BASE))
    assert layer.media_type.endswith(("+gzip", "+zstd"))
    assert str(image.layers[0].diff_id) == sha256(BASE)


def test_an_old_docker_archive_has_folders_with_links(store: Store, tmp_path: Path) -> None:
    config = config_for(sha256(BASE), sha256(BASE))
    manifest = [{"Config": "c.json", "RepoTags": None, "Layers": ["1/layer.tar", "2/layer.tar"]}]
    data = tar_of(
        {"1/layer.tar": BASE, "c.json": config, "manifest.json": json.dumps(manifest).encode()},
        {"2/layer.tar": "../1/layer.tar"},
    )
    load(store, write(tmp_path, data))
    assert len(store.images.all()[0].layers) == 2


def test_an_oci_archive_keeps_its_manifest(store: Store, tmp_path: Path) -> None:
    files = oci_files([BASE, TOP], ["quay.io/a/b:1", "local:2"], [zipped(BASE), zstandard.compress(TOP)])
    (loaded,) = load(store, write(tmp_path, tar_of(files)))
    assert loaded.names == ("quay.io/a/b:1", "localhost/local:2")
    image = store.images.find("b:1")
    assert image.manifest == next(data for data in files.values() if b'"schemaVersion": 2, "mediaType"' in data)
    assert image.digest == Digest.of(image.manifest)
    for descriptor_ in image.decode_manifest().layers:
        assert store.blobs.read(Digest.parse(descriptor_.digest)) in (zipped(BASE), zstandard.compress(TOP))


def test_one_image_can_be_chosen(store: Store, tmp_path: Path) -> None:
    first, second = oci_files([BASE], ["one"]), oci_files([OTHER], ["two"])
    index = {
        "schemaVersion": 2,
        "manifests": [json.loads(files["index.json"])["manifests"][0] for files in (first, second)],
    }
    files = first | second | {"index.json": json.dumps(index).encode()}
    path = write(tmp_path, tar_of(files))
    assert [image.names for image in load(store, path, "two")] == [("localhost/two:latest",)]
    assert len(store.images.all()) == 1
    with pytest.raises(ArchiveError, match="no image named 'three'"):
        load(store, path, "three")
    docker = write(tmp_path, docker_archive([(["x:1"], [BASE]), (["y:1"], [OTHER])]))
    assert [image.names for image in load(store, docker, "y:1")] == [("localhost/y:1",)]
    with pytest.raises(ArchiveError, match="no image named localhost/z:1"):
        load(store, docker, "z:1")


def test_an_index_gives_the_image_of_this_machine(store: Store, tmp_path: Path) -> None:
    ours, theirs = oci_files([BASE], []), oci_files([OTHER], [])
    manifests = [json.loads(files["index.json"])["manifests"][0] for files in (ours, theirs)]
    from pyengine.transports.oci_layout import host_architecture

    inner = json.dumps(
        {
            "schemaVersion": 2,
            "manifests": [
                manifests[1] | {"platform": {"os": "linux", "architecture": "no-such-machine"}},
                manifests[0] | {"platform": {"os": "linux", "architecture": host_architecture()}},
            ],
        }
    ).encode()
    outer = {"schemaVersion": 2, "manifests": [descriptor("application/vnd.oci.image.index.v1+json", inner)]}
    files = ours | theirs | {f"blobs/sha256/{sha256(inner)[7:]}": inner, "index.json": json.dumps(outer).encode()}
    load(store, write(tmp_path, tar_of(files)))
    (image,) = store.images.all()
    assert str(image.layers[0].diff_id) == sha256(BASE)


def test_a_layout_directory_is_named_after_its_path(store: Store, tmp_path: Path) -> None:
    (loaded,) = load(store, write_layout(tmp_path, oci_files([BASE], [])))
    assert loaded.names == (f"localhost{tmp_path}/layout:latest",)


def test_a_dir_directory_is_loaded(store: Store, tmp_path: Path) -> None:
    files = oci_files([BASE], [])
    layout = {name.rpartition("/")[2]: data for name, data in files.items() if name.startswith("blobs")}
    manifest = next(data for data in layout.values() if b'"schemaVersion"' in data)
    layout |= {"manifest.json": manifest, "version": b"Directory Transport Version: 1.1\n"}
    path = write_layout(tmp_path, layout)
    assert load(store, path)[0].names == (f"localhost{path}:latest",)
    assert load(store, path, "x:1")[0].names == ("localhost/x:1",)
    (path / "version").write_bytes(b"Directory Transport Version: 2.0\n")
    with pytest.raises(ArchiveError, match="only version 1"):
        load(store, path)


def damaged_layer(pack: Callable[[bytes], bytes], damage: Callable[[bytes], bytes]) -> bytes:
    return docker_archive([(["a"], [OTHER])], lambda layer: damage(pack(layer)))


def items(**changes: Any) -> bytes:
    config = config_for(sha256(BASE))
    item = {"Config": "c.json", "RepoTags": [], "Layers": ["l.tar"]} | changes
    return tar_of({"c.json": config, "l.tar": BASE, "manifest.json": json.dumps([item]).encode()})


FAILURES: list[tuple[str, bytes, type[Exception], str]] = [
    ("empty file", b"", ArchiveError, "holds no image"),
    ("not a tar", b"x" * 5000, ArchiveError, "is not a number"),
    ("truncated archive", docker_archive([(["a"], [OTHER])])[:3000], ArchiveError, "truncated"),
    (
        "truncated outer gzip",
        zipped(docker_archive([(["a"], [OTHER])]))[:-20],
        ArchiveError,
        "gzip stream is truncated",
    ),
    ("truncated outer zstd", zstandard.compress(docker_archive([(["a"], [OTHER])]))[:-20], ArchiveError, "zstd stream"),
    ("truncated outer xz", lzma.compress(docker_archive([(["a"], [OTHER])]))[:-20], ArchiveError, "xz stream"),
    ("truncated gzip layer", damaged_layer(zipped, lambda d: d[:-9]), ArchiveError, "gzip stream is truncated"),
    (
        "corrupt gzip layer",
        damaged_layer(zipped, lambda d: d[:20] + b"\xff" * 9 + d[29:]),
        ArchiveError,
        "gzip stream|checksum|diff id",
    ),
    (
        "truncated zstd layer",
        damaged_layer(zstandard.compress, lambda d: d[:-4]),
        ArchiveError,
        "zstd stream is truncated",
    ),
    ("xz layer", damaged_layer(lzma.compress, lambda d: d), ArchiveError, "compressed with xz"),
    ("another layer", damaged_layer(lambda _: BASE, lambda d: d), DigestMismatch, "diff id: expected sha256"),
    ("hostile layer", docker_archive([(["a"], [archive(file("../x"))])]), UnsafeEntry, r"'\.\.' in its name"),
    ("member missing", items(Layers=["missing.tar"]), ArchiveError, "no member 'missing.tar'"),
    ("config missing", items(Config="missing.json"), ArchiveError, "no member 'missing.json'"),
    ("config outside", items(Config="../../etc/passwd"), UnsafeEntry, r"'\.\.' in its name"),
    ("too few layers", items(Layers=[]), ArchiveError, "has 0 layers, its configuration has 1"),
    ("too many layers", items(Layers=["l.tar", "l.tar"]), ArchiveError, "has 2 layers, its configuration has 1"),
    ("wrong type", items(Layers="l.tar"), ArchiveError, "not valid"),
    ("no items", tar_of({"manifest.json": b"[]"}), ArchiveError, "lists no image"),
    ("twice", tar_of({"manifest.json": b"[]"})[:1024] + tar_of({"manifest.json": b"[]"}), ArchiveError, "twice"),
    ("bad name", items(RepoTags=["Bad Name"]), InvalidValue, "invalid reference format"),
    (
        "bad config",
        tar_of({"c": b"{}", "manifest.json": b'[{"Config":"c","Layers":[]}]'}),
        ArchiveError,
        "image configuration is not valid",
    ),
    (
        "link out",
        tar_of({"manifest.json": b'[{"Config":"c"}]'}, {"c": "../../etc/passwd"}),
        UnsafeEntry,
        "outside of the archive",
    ),
    ("link loop", tar_of({"manifest.json": b'[{"Config":"c"}]'}, {"c": "c"}), ArchiveError, "too many links"),
    (
        "giant config",
        tar_of({"c": b" " * (5 << 20), "manifest.json": b'[{"Config":"c"}]'}),
        ArchiveTooLarge,
        "4194304 are accepted",
    ),
]


@pytest.mark.parametrize(
    ("data", "error", "message"), [case[1:] for case in FAILURES], ids=[case[0] for case in FAILURES]
)
def test_a_bad_archive_is_one_error_and_the_store_is_as_before(
    store: Store, tmp_path: Path, data: bytes, error: type[Exception], message: str
) -> None:
    load(store, write(tmp_path, docker_archive([(["a:latest", "b:1"], [BASE, TOP])])))
    before, descriptors, threads = state(store), len(os.listdir("/proc/self/fd")), threading.active_count()
    with pytest.raises(error, match=message):
        load(store, write(tmp_path, data))
    assert state(store) == before
    assert os.listdir(f"{store.root}/tmp") == []
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == (descriptors, threads)


def changed(files: dict[str, bytes], name_of: bytes, content: bytes | None) -> dict[str, bytes]:
    """The layout with the content of one blob, found by a part of it, replaced or removed."""
    (name,) = [name for name, data in files.items() if name_of in data and name.startswith("blobs")]
    rest = {key: data for key, data in files.items() if key != name}
    return rest if content is None else rest | {name: content}


PACKED = zipped(BASE)
GOOD = oci_files([BASE], ["x"], [PACKED])


def with_layer(**fields: Any) -> dict[str, bytes]:
    layer = descriptor("application/vnd.oci.image.layer.v1.tar+gzip", PACKED) | fields
    return oci_files([BASE], ["x"], [PACKED], {"layers": [layer]}) | {"blobs/sha256/" + sha256(PACKED)[7:]: PACKED}


LAYOUTS: list[tuple[str, dict[str, bytes], type[Exception], str]] = [
    ("no index", {"oci-layout": b"{}"}, ArchiveError, "holds no image"),
    ("empty index", GOOD | {"index.json": b'{"schemaVersion":2,"manifests":[]}'}, ArchiveError, "has no image"),
    (
        "index is a manifest",
        GOOD | {"index.json": b'{"schemaVersion":2,"config":{},"layers":[]}'},
        ArchiveError,
        "not valid|where an index",
    ),
    ("manifest changed", changed(GOOD, b"schemaVersion", b"{}"), DigestMismatch, "size: expected"),
    ("manifest missing", changed(GOOD, b"schemaVersion", None), ArchiveError, "no member"),
    ("config missing", changed(GOOD, b"diff_ids", None), ArchiveError, "no member"),
    ("layer missing", changed(GOOD, PACKED, None), ArchiveError, "no member"),
    ("layer longer", changed(GOOD, PACKED, PACKED + b"x"), DigestMismatch, "size: expected"),
    ("layer shorter", changed(GOOD, PACKED, PACKED[:-1]), ArchiveError, "truncated"),
    (
        "layer another",
        changed(GOOD, PACKED, zipped(OTHER)[: len(PACKED)].ljust(len(PACKED), b"x")),
        ArchiveError,
        "gzip stream|digest",
    ),
    ("size lies", with_layer(size=len(PACKED) - 1), DigestMismatch, "size: expected"),
    ("size is large", with_layer(size=len(PACKED) + 1), DigestMismatch, "size: expected"),
    ("digest with a path", with_layer(digest="sha256:../../../../etc/passwd"), InvalidDigest, "malformed"),
    ("digest of another kind", with_layer(digest="md5:" + "0" * 32), InvalidDigest, "not supported"),
    ("not a layer", with_layer(mediaType="application/octet-stream"), ArchiveError, "which is not supported"),
    ("artifact", oci_files([BASE], [], None, {"config": descriptor("text/plain", b"")}), ArchiveError, "no image"),
    ("also an index", oci_files([BASE], [], None, {"manifests": []}), ArchiveError, "ambiguous"),
    ("other type", oci_files([BASE], [], None, {"mediaType": DOCKER_MANIFEST}), ArchiveError, "contradicts its type"),
]


@pytest.mark.parametrize(
    ("files", "error", "message"), [case[1:] for case in LAYOUTS], ids=[case[0] for case in LAYOUTS]
)
def test_a_bad_layout_is_one_error_and_the_store_is_as_before(
    store: Store, tmp_path: Path, files: dict[str, bytes], error: type[Exception], message: str
) -> None:
    before = state(store)
    with pytest.raises(error, match=message):
        load(store, write(tmp_path, tar_of(files)))
    assert state(store) == before


def test_a_layer_with_the_right_bytes_but_the_wrong_diff_id_is_refused_even_if_both_are_known(
    store: Store, tmp_path: Path
) -> None:
    """The blob of one layer under the diff id of another: both are in the store, verified, but not as a pair."""
    load(store, write(tmp_path, tar_of(oci_files([BASE], ["a"], [zipped(BASE)]))))
    load(store, write(tmp_path, tar_of(oci_files([OTHER], ["b"], [zipped(OTHER)]))))
    before = state(store)
    with pytest.raises(DigestMismatch, match="diff id"):
        load(store, write(tmp_path, tar_of(oci_files([BASE], ["c"], [zipped(OTHER)]))))
    assert state(store) == before


def test_links_and_pipes_in_a_directory_are_not_followed(store: Store, tmp_path: Path) -> None:
    path = write_layout(tmp_path, GOOD)
    blob = path / "blobs/sha256" / sha256(PACKED)[7:]
    blob.rename(tmp_path / "outside")
    blob.symlink_to(tmp_path / "outside")
    with pytest.raises(KernelError, match="Too many levels of symbolic links"):
        load(store, path)
    blob.unlink()
    os.mkfifo(blob)
    with pytest.raises(ArchiveError, match="not a plain file"):
        load(store, path)


@pytest.mark.parametrize("pack", [zipped, zstandard.compress])
def test_a_bomb_ends_early(store: Store, tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    small = Limits(bytes=64 << 20, free_bytes=2 << 20, ratio=50)
    store.unpack_options = replace(store.unpack_options, limits=small)
    bomb = pack(bytes(32 << 20))
    before = state(store)
    with pytest.raises(ArchiveTooLarge, match="more than 50 to one"):
        load(store, write(tmp_path, bomb))
    zeros = archive(file("zeros", bytes(16 << 20)))
    with pytest.raises(ArchiveTooLarge, match="more than 50 to one"):
        load(store, write(tmp_path, docker_archive([([], [zeros])], pack)))
    assert state(store) == before


def test_a_missing_file_is_the_kernels_error(store: Store, tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="No such file") as caught:
        load(store, tmp_path / "missing.tar")
    assert str(caught.value).startswith("open ")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArchiveError, match="holds no image"):
        load(store, tmp_path / "empty")


@pytest.mark.parametrize("stream", [False, True])
def test_a_load_does_not_fail_because_others_remove_what_it_shares(store: Store, tmp_path: Path, stream: bool) -> None:
    """It said "try again" after some attempts, and to whoever loaded from a stream an exception that is not public."""
    data = docker_archive([(["a"], [BASE, TOP]), (["b"], [BASE, OTHER])])
    path = write(tmp_path, data)
    load(store, path)
    attempts = []

    def remove_all(event: Event) -> None:
        if isinstance(event, Committing):
            attempts.append(len(store.images.all()))
            for image in store.images.all():
                store.images.remove(image.id)
        elif isinstance(event, ImageFound) and not store.images.all():
            load(store, path)  # another process's: there when this attempt looks, gone when it commits

    loaded = load(store, io.BytesIO(data) if stream else path, progress=remove_all)
    assert attempts == [2, 2, 2]
    assert [store.images.get(image.id).names for image in loaded] == [("localhost/a:latest",), ("localhost/b:latest",)]
    assert Path(store.images.get(loaded[0].id).layers[1].diff, "etc/motd").read_bytes() == b"hello"
    assert os.listdir(f"{store.root}/tmp") == []


def test_what_a_callback_raises_ends_the_load(store: Store, tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        raise KeyboardInterrupt

    before = state(store)
    with pytest.raises(KeyboardInterrupt):
        load(store, write(tmp_path, docker_archive([([], [BASE])])), progress=stop)
    assert state(store) == before


@pytest.mark.parametrize("pack", [None, zipped, zstandard.compress])
@pytest.mark.parametrize("format", ["docker-archive", "oci-archive"])
def test_a_saved_image_has_the_same_digests(
    store: Store, tmp_path: Path, pack: Callable[[bytes], bytes] | None, format: str
) -> None:
    load(store, write(tmp_path, docker_archive([(["a:1"], [BASE, TOP]), (["b:1"], [BASE])], pack)))
    images = store.images.all()
    out = tmp_path / "out.tar"
    save(store, [(images[0], ["a:1", "quay.io/b:2"]), (images[1], [])], out, format)
    first = out.read_bytes()
    save(store, [(images[0], ["a:1", "quay.io/b:2"]), (images[1], [])], out, format)
    assert out.read_bytes() == first  # the same images, the same bytes
    with Store(tmp_path / "second", tmp_path / "run", single_id=True) as second:
        loaded = load(second, out)
        assert [image.names for image in loaded] == [("docker.io/library/a:1", "quay.io/b:2"), ()]
        for old, new in zip(images, second.images.all(), strict=True):
            assert (old.id, old.config) == (new.id, new.config)
            assert [layer.diff_id for layer in old.layers] == [layer.diff_id for layer in new.layers]
            if format == "oci-archive" or pack is None:
                assert (old.digest, old.manifest) == (new.digest, new.manifest)
    assert sorted(path.name for path in tmp_path.iterdir() if "partial" in path.name) == []


def test_saving_refuses_what_it_cannot_do(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="unknown format 'zip'"):
        save(store, [], tmp_path / "x", "zip")
    with pytest.raises(InvalidValue, match="nothing to save"):
        save(store, [], tmp_path / "x")
    load(store, write(tmp_path, docker_archive([([], [BASE])])))
    with pytest.raises(KernelError, match="No such file"):
        save(store, [(store.images.all()[0], [])], tmp_path / "missing" / "x")


@pytest.mark.parametrize("pack", [bytes, zipped, zstandard.compress, lzma.compress, bz2.compress])
def test_a_root_file_system_becomes_an_image(store: Store, tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = write(tmp_path, pack(BASE))
    os.utime(path, ns=(0, 1_500_000_000_123_000_000))
    loaded = import_rootfs(store, path, "base:1", changes=["CMD echo hi", "ENV A=1"], message="mine")
    image = store.images.get(loaded.id)
    assert loaded.names == image.names == ("docker.io/library/base:1",)
    config = image.decode_config()
    assert config.config.cmd == ["/bin/sh", "-c", "echo hi"]
    assert (config.created, config.os) == ("2017-07-14T02:40:00.123Z", "linux")
    assert config.history[0].comment == "mine"
    assert config.history[0].created_by == f"/bin/sh -c #(nop) ADD file:{hashlib.sha256(BASE).hexdigest()} in /"
    assert str(image.layers[0].diff_id) == sha256(BASE)
    save(store, [(image, image.names)], tmp_path / "out.tar")
    assert import_rootfs(store, io.BytesIO(pack(BASE))).names == ()


def test_a_bad_root_file_system_changes_nothing(store: Store, tmp_path: Path) -> None:
    before = state(store)
    for data, error, message in (
        (BASE[:700], ArchiveError, "truncated"),
        (zipped(BASE)[:-5], ArchiveError, "truncated"),
        (archive(symlink("../x", "y")), UnsafeEntry, r"'\.\.'"),
    ):
        with pytest.raises(error, match=message):
            import_rootfs(store, write(tmp_path, data), "base")
    with pytest.raises(InvalidValue, match="is malformed"):
        import_rootfs(store, write(tmp_path, BASE), "base", changes=["nonsense"])
    assert state(store) == before
