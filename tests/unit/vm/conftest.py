"""Makes the modules of vm/ importable: they are a program's, not the package's."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "vm"))
