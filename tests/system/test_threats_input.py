"""Bad input to the engine: one exception each, of the right class, with the fact that matters; all else as before.

As an ordinary user the same errors come out of the storage worker. Commands, users and directories that are not there:
test_containers_start.py; full disks: test_archives_full_disk.py; forms of archives one by one: tests/unit.
"""

from __future__ import annotations

import errno
import gzip
import io
import lzma
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import IMAGE, import_image, left_over, new_engine, root_tar

from pyengine import Engine, errors
from pyengine.errors import PyengineError, StepError

pytestmark = pytest.mark.rootless


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with new_engine(tmp_path_factory.mktemp("input")) as engine:
        import_image(engine)
        assert engine.containers.run(IMAGE, ["true"]).exit_code == 0
        yield engine


@pytest.fixture(scope="module")
def archive(engine: Engine) -> bytes:
    target = io.BytesIO()
    engine.images.save([IMAGE], target)
    return target.getvalue()


@pytest.fixture(scope="module")
def oci(engine: Engine) -> bytes:
    target = io.BytesIO()
    engine.images.save([IMAGE], target, format="oci-archive")
    return target.getvalue()


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Without images: what a store has is not read again."""
    with new_engine(tmp_path_factory.mktemp("target")) as engine:
        import_image(engine)
        assert engine.containers.run(IMAGE, ["true"]).exit_code == 0
        engine.images.remove(IMAGE)
        yield engine


@pytest.fixture(autouse=True)
def as_before(engine: Engine, target: Engine) -> Iterator[None]:
    """Whatever goes wrong, the stores are as they were."""

    before = [state(engine), state(target)]
    yield
    assert [state(engine), state(target)] == before


def state(engine: Engine) -> dict[str, Any]:
    engine.store.database.check()
    return {
        "images": [(image.id, image.names) for image in engine.images.list()],
        "containers": [box.id for box in engine.containers.list(all=True)],
        "layers": sorted(os.listdir(f"{engine.root}/layers")),
        "blobs": sorted(os.listdir(f"{engine.root}/blobs/sha256")),
        "index": Path(f"{engine.root}/index.json").read_bytes(),
        "left": left_over(engine),
    }


def changed(archive: bytes, change: Callable[[str, bytes], bytes | None]) -> bytes:
    """The archive with each member's content as `change` gives it; None leaves it out."""
    target = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(archive)) as old, tarfile.open(fileobj=target, mode="w") as new:
        for member in old:
            stream = old.extractfile(member)
            content = change(member.name, stream.read() if stream is not None else b"")
            if content is None:
                continue
            if member.isreg():
                member.size = len(content)
            new.addfile(member, io.BytesIO(content))
    return target.getvalue()


def flip(archive: bytes, suffix: str = "", *, smallest: int = 100_000) -> bytes:
    """One bit of the large members whose name ends so is another."""

    def change(name: str, content: bytes) -> bytes:
        if len(content) < smallest or not name.endswith(suffix):
            return content
        middle = len(content) // 2
        return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]

    return changed(archive, change)


SHA = "[0-9a-f]{64}"
NO_IMAGE = r"the archive holds no image: it has neither manifest\.json \(docker-archive\) nor index\.json .*"
Case = tuple[str, Callable[[bytes], bytes], type[PyengineError], str]
LOADS: dict[str, Case] = {
    "empty": ("docker", lambda _: b"", errors.ArchiveError, NO_IMAGE),
    "no archive": (
        "docker", lambda _: b"hello" * 1000,
        errors.ArchiveError, "tar header is corrupt: b'lohelloh' is not a number",
    ),
    "truncated": (
        "docker", lambda data: data[: len(data) // 2],
        errors.ArchiveError, "tar archive is truncated: it ends inside of a file",
    ),
    "truncated gzip": (
        "docker", lambda data: gzip.compress(data, 1)[:-20000],
        errors.ArchiveError, "gzip stream is truncated",
    ),
    "corrupt gzip": (
        "docker", lambda data: gzip.compress(data, 1)[:5000] + b"\xff" * 9000,
        errors.ArchiveError, "gzip stream is corrupt: Error -1 Invalid deflate block found",
    ),
    "without manifest": (
        "docker", lambda data: changed(data, lambda name, content: None if name == "manifest.json" else content),
        errors.ArchiveError, NO_IMAGE,
    ),
    "no json": (
        "docker", lambda data: changed(data, lambda name, content: b"{" if name == "manifest.json" else content),
        errors.ArchiveError, r"manifest\.json of the docker-archive is not valid: Expected `array`, got `object`",
    ),
    "corrupt layer": (
        "docker", flip,
        errors.DigestMismatch, rf"layer {SHA}\.tar: diff id: expected sha256:{SHA}, got sha256:{SHA}",
    ),
    "wrong digest": (
        "oci", flip,
        errors.DigestMismatch, f"layer sha256:{SHA}: digest: expected sha256:{SHA}, got sha256:{SHA}",
    ),
    "wrong digest of the config": (
        "oci", lambda data: changed(data, lambda _, content: content.replace(b'"amd64"', b'"arm64"')),
        errors.DigestMismatch, f"blob: digest: expected sha256:{SHA}, got sha256:{SHA}",
    ),
    "missing blob": (
        "oci", lambda data: changed(data, lambda _, content: None if len(content) > 100_000 else content),
        errors.ArchiveError, f"archive has no member 'blobs/sha256/{SHA}', which it needs",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LOADS)
def test_an_archive_that_cannot_be_loaded(
    target: Engine, archive: bytes, oci: bytes, tmp_path: Path, case: str
) -> None:
    form, spoil, kind, text = LOADS[case]
    bad = spoil(archive if form == "docker" else oci)
    (tmp_path / "bad.tar").write_bytes(bad)
    for source in (str(tmp_path / "bad.tar"), io.BytesIO(bad)):
        with pytest.raises(kind, match=f"^{text}$") as caught:
            target.images.load(source)
        assert type(caught.value) is kind


def test_the_archives_that_were_spoilt_can_be_loaded(target: Engine, archive: bytes, oci: bytes) -> None:
    for data in (archive, oci):
        (image,) = target.images.load(io.BytesIO(data))
        assert target.containers.run(image.id, ["echo", "works"]).stdout == b"works\n"
        target.images.remove(image.id)


@pytest.mark.parametrize("case", ["truncated", "corrupt gzip", "truncated xz", "a link that leads out"])
def test_a_root_file_system_that_cannot_be_imported(target: Engine, case: str) -> None:
    data = root_tar()
    bad = {
        "truncated": data[: len(data) // 2],
        "corrupt gzip": gzip.compress(data, 1)[:5000] + b"\xff" * 9000,
        "truncated xz": lzma.compress(data, preset=0)[:-1000],
        "a link that leads out": hostile_tar(),
    }[case]
    kind, text = {
        "truncated": (errors.ArchiveError, "tar archive is truncated: it ends inside of a file"),
        "corrupt gzip": (errors.ArchiveError, "gzip stream is corrupt: Error -1 Invalid deflate block found"),
        "truncated xz": (errors.ArchiveError, "xz stream is truncated"),
        "a link that leads out": (
            errors.UnsafeEntry,
            "tar member '../../outside' has '..' in its name, which could lead out of the layer",
        ),
    }[case]
    with pytest.raises(kind) as caught:
        target.images.import_(io.BytesIO(bad), "localhost/bad:1")
    assert str(caught.value) == text


def hostile_tar() -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("../../outside")
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    return archive.getvalue()


def test_a_mount_source_that_has_gone_since_is_an_error_of_the_start(engine: Engine, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with engine.containers.create(IMAGE, ["true"], volume=[f"{source}:/data"]) as box:
        source.rmdir()
        with pytest.raises(StepError) as caught:
            box.start()
        assert str(caught.value).startswith(f"bind {source} on /data: No such file or directory ")
        assert caught.value.errno == errno.ENOENT
        assert box.status == "configured"
        source.mkdir()
        box.start()
        assert box.wait(10) == 0


def test_a_root_directory_that_has_gone_since_is_an_error_of_the_start(engine: Engine, tmp_path: Path) -> None:
    root = tmp_path / "rootfs"
    root.mkdir(mode=0o755)
    with engine.containers.create(str(root), ["true"], rootfs=True) as box:
        root.rmdir()
        with pytest.raises(StepError) as caught:
            box.start()
        assert str(caught.value).startswith(f"bind {root} as the root: No such file or directory ")


@pytest.mark.parametrize("content", [b"", b"not a database" * 1000])
def test_a_store_whose_database_is_damaged_is_refused(tmp_path: Path, content: bytes) -> None:
    with Engine(f"{tmp_path}/root", f"{tmp_path}/run") as engine:
        before = engine.root
    Path(f"{before}/engine.db").write_bytes(content)
    for suffix in ("-wal", "-shm"):
        Path(f"{before}/engine.db{suffix}").unlink(missing_ok=True)
    if not content:  # as new
        Engine(f"{tmp_path}/root", f"{tmp_path}/run").close()
        return
    with pytest.raises(errors.StoreError) as caught:
        Engine(f"{tmp_path}/root", f"{tmp_path}/run")
    assert f"{before}/engine.db" in str(caught.value)
    assert Path(f"{before}/engine.db").read_bytes() == content
