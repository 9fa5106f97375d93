"""Images in the store: names, removal, what containers hold. They come through load, hence the place of this file."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from layer_archives import archive, docker_archive, file

from pyengine.errors import DigestMismatch, ImageNotFound, InUse, StoreError
from pyengine.oci.digest import Digest
from pyengine.oci.reference import Reference
from pyengine.store.images import Image
from pyengine.store.layers import lower_dirs
from pyengine.store.store import Store
from pyengine.store.work import WorkDirectory, abandoned
from pyengine.transports import load

BASE = archive(file("base"))
TOP = archive(file("top"))


@pytest.fixture
def images(store: Store, tmp_path: Path) -> tuple[Image, Image]:
    path = tmp_path / "images.tar"
    path.write_bytes(docker_archive([(["one:1", "both:1"], [BASE]), (["two:1"], [BASE, TOP])]))
    return tuple(store.images.get(one.id) for one in load(store, path))  # type: ignore[return-value]


def index_names(store: Store) -> list[str | None]:
    index = json.loads(Path(store.root, "index.json").read_text())
    return [(one.get("annotations") or {}).get("org.opencontainers.image.ref.name") for one in index["manifests"]]


def test_a_name_belongs_to_one_image(store: Store, images: tuple[Image, Image]) -> None:
    one, two = images
    assert store.images.tag(two.id, Reference.local("both:1"))
    assert store.images.get(one.id).names == ("localhost/one:1",)
    assert store.images.get(two.id).names == ("localhost/two:1", "localhost/both:1")
    assert not store.images.tag(two.id, "localhost/both:1")
    assert store.images.find("both:1").id == two.id
    assert index_names(store) == ["localhost/one:1", "localhost/two:1", "localhost/both:1"]


def test_an_image_without_names_is_dangling_and_stays(store: Store, images: tuple[Image, Image]) -> None:
    one, _ = images
    assert store.images.untag(one.id, "localhost/one:1")
    assert not store.images.untag(one.id, "localhost/one:1")
    assert not store.images.untag(one.id, "localhost/two:1")  # another's
    assert store.images.dangling() == []
    assert store.images.untag(one.id, "localhost/both:1")
    assert [image.id for image in store.images.dangling()] == [one.id]
    assert store.images.find(one.id[:6]).names == ()
    assert index_names(store) == [None, "localhost/two:1"]


def test_removing_takes_what_nothing_else_needs(store: Store, images: tuple[Image, Image]) -> None:
    one, two = images
    assert lower_dirs(two.layers) == [two.layers[1].diff, two.layers[0].diff]
    store.images.remove(two.id)
    assert [layer.n for layer in store.layers.all()] == [one.layers[0].n]
    assert not os.path.exists(two.layers[1].diff)
    assert os.path.exists(one.layers[0].diff)
    assert len(store.blobs.stored()) == 3
    store.images.remove(one.id)
    assert (store.layers.all(), store.blobs.stored(), os.listdir(f"{store.root}/layers")) == ([], [], [])
    for call in (store.images.get, store.images.find, store.images.remove, lambda id: store.images.untag(id, "x")):
        with pytest.raises(ImageNotFound, match="no such image"):
            call(one.id)
    with pytest.raises(ImageNotFound, match="no such image"):
        store.images.tag(one.id, "localhost/x:1")


def test_a_container_holds_its_image_and_its_layers(store: Store, images: tuple[Image, Image]) -> None:
    one, two = images
    assert two.top_layer is not None
    store.containers.add("c1", "name", "{}", 1, image=two.id, layer=two.top_layer.n)
    store.containers.add("c2", "other", "{}", 1, layer=two.top_layer.n)
    assert store.images.containers_of(two.id) == ["c1"]
    with pytest.raises(InUse, match="being used by 1 containers"):
        store.images.remove(two.id)
    store.images.remove(one.id)
    store.containers.remove("c1")
    store.images.remove(two.id)
    # the second container has no image but still its layers, with all below them
    assert [layer.n for layer in store.layers.chain(two.top_layer.n)] == [layer.n for layer in two.layers]
    assert all(os.path.exists(layer.diff) for layer in two.layers)


def test_layers_are_asked_for_by_number_and_chain_id(store: Store, images: tuple[Image, Image]) -> None:
    _, two = images
    base, top = two.layers
    assert store.layers.get(top.n) == store.layers.find(top.chain_id) == top
    assert (base.parent, top.parent, base.chain_id) == (None, base.n, base.diff_id)
    assert top.chain_id == Digest.of(f"{base.diff_id} {top.diff_id}".encode())
    assert store.layers.chain(None) == []
    for call in (store.layers.get, store.layers.chain):
        with pytest.raises(StoreError, match="layer 99 is not in the store"):
            call(99)


def test_a_damaged_or_missing_blob_is_said(store: Store, images: tuple[Image, Image]) -> None:
    digest = images[0].digest
    path = Path(store.blobs.path(digest))
    path.write_bytes(b"damage")
    with pytest.raises(StoreError, match="is damaged"):
        store.blobs.read(digest)
    path.unlink()
    for call in (store.blobs.read, store.blobs.size):
        with pytest.raises(StoreError, match="is missing from the store"):
            call(digest)


def test_a_blob_is_taken_in_only_if_it_is_the_right_one(store: Store) -> None:
    with store.work() as work:
        assert store.blobs.ingest(work, [b"a", b"b"], Digest.of(b"ab"), 2).size == 2
        for chunks, size, message in (([b"ab"], 3, "size: expected 3"), ([b"abcd"], 3, "size: expected 3, got more")):
            with pytest.raises(DigestMismatch, match=message):
                store.blobs.ingest(work, chunks, Digest.of(b"abc"), size)
        with pytest.raises(DigestMismatch, match="digest: expected sha256:"):
            store.blobs.ingest(work, [b"abd"], Digest.of(b"abc"), 3)


def test_a_root_that_overlayfs_cannot_name_is_refused(tmp_path: Path) -> None:
    for name in ("a:b", "a,b", "a\\b"):
        with pytest.raises(StoreError, match="contains a colon, comma or backslash"):
            Store(tmp_path / name, tmp_path / "run")
        assert not (tmp_path / name).exists()


def test_a_work_directory_is_abandoned_when_its_owner_is_gone(tmp_path: Path) -> None:
    work = WorkDirectory(str(tmp_path))
    assert abandoned(str(tmp_path)) == []
    Path(work.new_path("x")).mkdir()
    os.close(work._fd)  # type: ignore[arg-type]  # what the kernel does for a process that ends
    work._fd = None
    (found,) = abandoned(str(tmp_path))
    assert found[0] == work.path
    os.close(found[1])


def test_many_threads_load_into_one_store(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(docker_archive([(["x:1"], [BASE, TOP])]))
    results: list[object] = []
    threads = [threading.Thread(target=lambda: results.append(load(store, path))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    assert len(store.layers.all()) == 2
    assert len(os.listdir(f"{store.root}/layers")) == 2
