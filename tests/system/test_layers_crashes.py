"""kill -9 at every step of load, import, tag and remove, and many processes at once: the store is always whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "unit" / "store"))

from layer_archives import archive, directory, docker_archive, file

from pyengine.linux.faults import declared
from pyengine.oci.digest import Digest
from pyengine.store.store import Store
from pyengine.transports import load, save

HERE = str(Path(__file__).parent.parent.parent)
BASE = archive(directory("bin"), file("bin/sh", b"#!"))
TOP = archive(file("etc/motd", b"hello"), file("bin/.wh.sh"))
OTHER = archive(file("other", b"z" * 5000))

STEPS = """
import sys
sys.path.insert(0, {here!r})
from pyengine.store.store import Store
from pyengine.transports import import_rootfs, load
root, run, operation, argument = sys.argv[1:]
with Store(root, run) as store:
    if operation == 'load': load(store, argument)
    elif operation == 'import': import_rootfs(store, argument, 'base:1')
    elif operation == 'tag': store.images.tag(store.images.find('a:1').id, 'localhost/' + argument)
    elif operation == 'untag': store.images.untag(store.images.find('a:1').id, argument)
    elif operation == 'remove': store.images.remove(store.images.find(argument).id)
"""

OPERATIONS = {
    "load": {
        "work-made", "load-opened", "load-layer-unpacked", "load-blob-kept", "load-before-commit", "image-synced",
        "image-layer-renamed", "image-blob-renamed", "image-inserted", "image-index-written", "image-committed",
    },
    "import": {
        "work-made", "image-synced", "image-layer-renamed", "image-blob-renamed", "image-inserted",
        "image-index-written", "image-committed",
    },
    "tag": {"work-made"},
    "untag": {"work-made"},
    "remove": {"work-made", "image-remove-rows", "image-remove-committed", "image-remove-moved"},
}  # fmt: skip
CASES = [(operation, fault, n) for operation, faults in OPERATIONS.items() for fault in sorted(faults) for n in (1, 2)]


def start(tmp_path: Path, operation: str, argument: str, fault: str | None = None) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **({"PYENGINE_FAULT": fault} if fault else {})}
    command = [sys.executable, "-c", STEPS.format(here=HERE), str(tmp_path / "root"), str(tmp_path / "run")]
    return subprocess.Popen([*command, operation, argument], env=environment)


def check(store: Store) -> None:
    """Rows, layers, blobs and index say the same, and nothing else is there."""
    store.database.check()
    images = store.images.all()
    assert sorted(os.listdir(f"{store.root}/layers")) == sorted(str(layer.n) for layer in store.layers.all())
    assert {layer.n for layer in store.layers.all()} == {layer.n for image in images for layer in image.layers}
    for layer in store.layers.all():
        assert os.listdir(layer.diff)
    needed = set()
    for image in images:
        manifest = image.decode_manifest()
        needed |= {image.digest, *(Digest.parse(one.digest) for one in (manifest.config, *manifest.layers))}
    assert set(store.blobs.stored()) == needed
    for digest in needed:
        store.blobs.read(digest)  # verifies
    index = json.loads(Path(store.root, "index.json").read_text())
    assert [one["digest"] for one in index["manifests"]] == [
        str(image.digest) for image in images for _ in image.names or [None]
    ]
    assert os.listdir(f"{store.root}/tmp") == []


def test_every_fault_point_is_tried() -> None:
    known = set().union(*OPERATIONS.values()) | {"work-sweep"}
    ours = {name for name in declared() if name.split("-")[0] in ("image", "load", "work", "import")}
    assert ours == known


@pytest.mark.parametrize(("operation", "fault", "n"), CASES, ids=[f"{o}-at-{f}-{n}" for o, f, n in CASES])
def test_a_crash_loses_nothing_and_leaves_nothing(tmp_path: Path, operation: str, fault: str, n: int) -> None:
    first, second = tmp_path / "first.tar", tmp_path / "second.tar"
    first.write_bytes(docker_archive([(["a:1", "a:2"], [BASE]), (["b:1"], [BASE, OTHER])]))
    second.write_bytes(docker_archive([(["c:1", "a:2"], [BASE, TOP]), (["d:1"], [BASE, TOP, OTHER])]))
    (tmp_path / "rootfs.tar").write_bytes(archive(file("only", b"here")))
    with Store(tmp_path / "root", tmp_path / "run") as store:
        load(store, first)
        before = {image.id: image.names for image in store.images.all()}
    argument = {
        "load": str(second), "import": str(tmp_path / "rootfs.tar"), "tag": "new:1", "untag": "localhost/a:2",
        "remove": "b:1",
    }[operation]  # fmt: skip
    ended = start(tmp_path, operation, argument, f"{fault}:{n}").wait(60)
    assert ended == -signal.SIGKILL or (ended == 0 and n > 1)  # not every point is passed twice
    with Store(tmp_path / "root", tmp_path / "run") as store:
        check(store)
        after = {image.id: image.names for image in store.images.all()}
        if ended and fault not in ("image-committed", "image-remove-committed", "image-remove-moved"):
            assert after == before
        else:
            assert after != before
        save(store, [(image, image.names) for image in store.images.all()], tmp_path / "out.tar")
    if ended and after == before:
        assert start(tmp_path, operation, argument).wait(60) == 0
    with Store(tmp_path / "root", tmp_path / "run") as store:
        check(store)
        assert {image.id: image.names for image in store.images.all()} != before


def test_a_crash_while_sweeping_is_swept_as_well(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(docker_archive([(["a:1"], [BASE])]))
    assert start(tmp_path, "load", str(path), "image-index-written").wait(60) == -signal.SIGKILL
    assert start(tmp_path, "load", str(path), "work-sweep").wait(60) == -signal.SIGKILL
    assert len(os.listdir(tmp_path / "root/tmp")) == 1
    with Store(tmp_path / "root", tmp_path / "run") as store:
        check(store)
        assert store.images.all() == []


def test_work_of_living_processes_is_not_swept(tmp_path: Path) -> None:
    with Store(tmp_path / "root", tmp_path / "run") as store, store.work() as work:
        Path(work.path, "file").write_text("x")
        with Store(tmp_path / "root", tmp_path / "run") as other:
            assert other.sweep() == 0
        assert Path(work.path, "file").exists()


def test_many_processes_load_tag_and_remove_the_same_image(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(docker_archive([(["a:1"], [BASE, TOP]), (["b:1"], [BASE, OTHER])]))
    script = STEPS.format(here=HERE).rpartition("with Store")[0] + (
        "from pyengine.errors import ImageNotFound\n"
        "for n in range(8):\n"
        "  with Store(root, run) as store:\n"
        "    load(store, argument)\n"
        "    for name in ('a:1', 'b:1'):\n"
        "      try: store.images.remove(store.images.find(name).id)\n"
        "      except ImageNotFound: pass\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "root"), str(tmp_path / "run"), "", str(path)]
    processes = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait(100) for process in processes] == [0] * 4
    with Store(tmp_path / "root", tmp_path / "run") as store:
        check(store)
        load(store, path)
        check(store)
        assert len(store.images.all()) == 2
