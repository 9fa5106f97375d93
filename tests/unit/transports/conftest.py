from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "store"))  # layer_archives

from pyengine.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store that needs no root: files keep the owner who runs the tests."""
    with Store(tmp_path / "root", tmp_path / "run", single_id=True) as opened:
        yield opened
        assert os.listdir(f"{opened.root}/tmp") == []  # whatever happened, nothing is left
        opened.database.check()
