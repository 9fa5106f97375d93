"""skopeo, umoci and podman read what we write, and we read what they write, with the same digests."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

sys.path.insert(0, str(Path(__file__).parent.parent / "unit" / "store"))

from layer_archives import archive, directory, docker_archive, file, hard_link, symlink

from pyengine.store.images import Image
from pyengine.store.store import Store
from pyengine.transports import load, save

BASE = archive(
    directory("bin"), file("bin/sh", b"#!", mode=0o4755, mtime_ns=10**18 + 5), hard_link("bin/ash", "bin/sh")
)
TOP = archive(file("etc/motd", b"hello", uid=5, gid=6), file("bin/.wh.ash", b""), symlink("l", "bin/sh"))
POLICY = '{"default":[{"type":"insecureAcceptAnything"}]}'


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "root", tmp_path / "run") as opened:
        yield opened


@pytest.fixture
def image(store: Store, tmp_path: Path) -> Image:
    (tmp_path / "start.tar").write_bytes(docker_archive([(["quay.io/peer/image:1"], [BASE, TOP])], gzip.compress))
    load(store, tmp_path / "start.tar")
    return store.images.find("image:1")


def run(*command: object) -> str:
    return subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True).stdout


def skopeo(tmp_path: Path, *command: object) -> str:
    (tmp_path / "policy.json").write_text(POLICY)
    return run("skopeo", "--policy", tmp_path / "policy.json", "--tmpdir", tmp_path, *command)


def podman(tmp_path: Path, *command: object) -> str:
    runtime = f"/run/podman-{tmp_path.name[-20:]}"  # podman wants at most 50 characters
    place = ["--root", tmp_path / "podman", "--runroot", runtime, "--storage-driver", "vfs"]
    return run("podman", "--cgroup-manager=cgroupfs", "--events-backend=none", *place, *command)


def loaded_again(tmp_path: Path, source: Path) -> Image:
    with Store(tmp_path / "again", tmp_path / "run") as second:
        (loaded,) = load(second, source)
        return second.images.get(loaded.id)


@pytest.mark.parametrize("format", ["docker-archive", "oci-archive"])
def test_skopeo_copies_what_we_save(store: Store, image: Image, tmp_path: Path, format: str) -> None:
    out = tmp_path / "out.tar"
    save(store, [(image, image.names)], out, format)
    config: dict[str, Any] = json.loads(skopeo(tmp_path, "inspect", "--config", "--raw", f"{format}:{out}"))
    assert config == json.loads(image.config)
    if format == "oci-archive":
        assert skopeo(tmp_path, "inspect", "--raw", f"{format}:{out}").encode() == image.manifest
    # skopeo verifies every digest on the way; back here the image is the same
    # (from Docker's form to OCI's it writes the configuration anew, in its own order).
    targets = (
        ("docker-archive", "dir") if format == "docker-archive" else ("docker-archive", "oci-archive", "oci", "dir")
    )
    for target in targets:
        copy = tmp_path / target
        skopeo(tmp_path, "copy", "-q", f"{format}:{out}", f"{target}:{copy}")
        again = loaded_again(tmp_path, copy)
        assert (again.id, again.config) == (image.id, image.config)
        assert [layer.diff_id for layer in again.layers] == [layer.diff_id for layer in image.layers]


@pytest.mark.parametrize("format", ["docker-archive", "oci-archive"])
def test_podman_loads_what_we_save_and_we_load_what_podman_saves(
    store: Store, image: Image, tmp_path: Path, format: str
) -> None:
    out, back = tmp_path / "out.tar", tmp_path / "back.tar"
    save(store, [(image, image.names)], out, format)
    assert "quay.io/peer/image:1" in podman(tmp_path, "load", "-q", "-i", out)
    seen = json.loads(podman(tmp_path, "image", "inspect", "quay.io/peer/image:1"))[0]
    assert seen["Id"] == image.id
    assert seen["RootFS"]["Layers"] == [str(layer.diff_id) for layer in image.layers]
    if format == "oci-archive":
        assert seen["Digest"] == str(image.digest)
    podman(tmp_path, "save", "-q", "--format", format, "-o", back, "quay.io/peer/image:1")
    again = loaded_again(tmp_path, back)
    assert (again.id, again.names) == (image.id, image.names)
    assert [layer.diff_id for layer in again.layers] == [layer.diff_id for layer in image.layers]


def test_podman_loads_several_images_of_one_archive(store: Store, tmp_path: Path) -> None:
    (tmp_path / "two.tar").write_bytes(
        docker_archive([(["a.io/a:1"], [BASE]), (["b.io/b:1", "b.io/c:2"], [BASE, TOP])])
    )
    load(store, tmp_path / "two.tar")
    save(store, [(one, one.names) for one in store.images.all()], tmp_path / "out.tar")
    podman(tmp_path, "load", "-q", "-i", tmp_path / "out.tar")
    listed = json.loads(podman(tmp_path, "images", "--format", "json"))
    assert {name for one in listed for name in one["Names"]} == {"a.io/a:1", "b.io/b:1", "b.io/c:2"}
    assert {one["Id"] for one in listed} == {one.id for one in store.images.all()}


def test_umoci_unpacks_what_we_save_to_the_same_files(store: Store, image: Image, tmp_path: Path) -> None:
    save(store, [(image, image.names)], tmp_path / "out.tar", "oci-archive")
    (tmp_path / "layout").mkdir()
    run("tar", "-xf", tmp_path / "out.tar", "-C", tmp_path / "layout")
    skopeo(tmp_path, "copy", "-q", f"oci:{tmp_path}/layout", f"oci:{tmp_path}/tagged:t")
    run("umoci", "unpack", "--image", f"{tmp_path}/tagged:t", tmp_path / "bundle")
    rootfs = tmp_path / "bundle/rootfs"
    assert (rootfs / "bin/sh").stat().st_mode & 0o7777 == 0o4755
    assert (rootfs / "etc/motd").stat().st_uid == 5
    assert not (rootfs / "bin/ash").exists()


def test_the_store_itself_is_a_layout_that_skopeo_and_umoci_read(store: Store, image: Image, tmp_path: Path) -> None:
    store.images.tag(image.id, "localhost/second:2")
    assert run("umoci", "ls", "--layout", store.root).split() == ["quay.io/peer/image:1", "localhost/second:2"]
    for name in ("quay.io/peer/image:1", "localhost/second:2"):
        raw = skopeo(tmp_path, "inspect", "--raw", f"oci:{store.root}:{name}")
        assert raw.encode() == image.manifest
    skopeo(tmp_path, "copy", "-q", f"oci:{store.root}:localhost/second:2", f"dir:{tmp_path}/copy")
    store.images.untag(image.id, "localhost/second:2")
    assert run("umoci", "ls", "--layout", store.root).split() == ["quay.io/peer/image:1"]


def test_we_load_zstd_layers_that_skopeo_made(store: Store, image: Image, tmp_path: Path) -> None:
    save(store, [(image, [])], tmp_path / "out.tar", "oci-archive")
    skopeo(tmp_path, "copy", "-q", "--dest-compress-format", "zstd", "--dest-compress", "--format", "oci",
           f"oci-archive:{tmp_path}/out.tar", f"dir:{tmp_path}/zstd")  # fmt: skip
    again = loaded_again(tmp_path, tmp_path / "zstd")
    assert again.id == image.id


def test_skopeo_reads_an_image_with_zstd_layers(store: Store, tmp_path: Path) -> None:
    (tmp_path / "z.tar").write_bytes(docker_archive([(["z.io/z:1"], [BASE])], zstandard.compress))
    load(store, tmp_path / "z.tar")
    image = store.images.find("z:1")
    save(store, [(image, image.names)], tmp_path / "out.tar")
    skopeo(tmp_path, "copy", "-q", f"docker-archive:{tmp_path}/out.tar", f"dir:{tmp_path}/copy")
    assert loaded_again(tmp_path, tmp_path / "copy").id == image.id
