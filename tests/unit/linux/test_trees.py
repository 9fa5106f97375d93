"""Trees that containers wrote are removed whatever they look like."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from pyengine.errors import KernelError
from pyengine.linux.trees import remove_tree


def test_a_tree_deeper_than_descriptors_and_paths_can_be(tmp_path: Path) -> None:
    top = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    os.mkdir("tree", dir_fd=top)
    at = os.open("tree", os.O_RDONLY | os.O_DIRECTORY, dir_fd=top)
    for _ in range(3000):
        os.mkdir("d" * 20, dir_fd=at)
        below = os.open("d" * 20, os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    os.close(top)
    remove_tree(str(tmp_path / "tree"))
    assert os.listdir(tmp_path) == []


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("x")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "link").symlink_to(tmp_path / "kept")
    os.mkfifo(tree / "fifo")
    remove_tree(str(tree))
    assert not tree.exists()
    (tmp_path / "alone").symlink_to(tmp_path / "kept")
    remove_tree(str(tmp_path / "alone"))
    assert os.listdir(tmp_path) == ["kept"]
    assert (tmp_path / "kept" / "file").read_text() == "x"


def test_what_is_not_there_is_fine(tmp_path: Path) -> None:
    remove_tree(str(tmp_path / "nothing"))


def test_a_path_through_a_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(KernelError, match=r"remove .*/file/below: Not a directory"):
        remove_tree(str(tmp_path / "file" / "below"))


def test_somebody_who_still_writes_does_not_keep_it(tmp_path: Path) -> None:
    """A monitor that ends wrote its last state while its run directory was removed, which then stayed for ever."""
    tree = tmp_path / "tree"
    (tree / "inner").mkdir(parents=True)
    begun, stop = threading.Event(), threading.Event()

    def write() -> None:
        at = os.open(tree / "inner", os.O_RDONLY | os.O_DIRECTORY)
        while not stop.is_set():
            try:
                os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=at))
            except FileNotFoundError:
                break  # the directory is gone
            begun.set()
        os.close(at)

    writer = threading.Thread(target=write)
    writer.start()
    begun.wait()
    remove_tree(str(tree))
    stop.set()
    writer.join()
    assert not tree.exists()
