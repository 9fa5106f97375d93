"""All benchmarks, one after the other: ``make bench``. Figures are ratios to other engines in the same run."""

from __future__ import annotations

import importlib
import sys
import tempfile

NAMES = ["lifecycle", "logs", "imports", "load"]


def main() -> None:
    for name in sys.argv[1:] or NAMES:
        with tempfile.TemporaryDirectory(prefix=f"pyengine-bench-{name}-") as directory:
            importlib.import_module(name).main(directory)


if __name__ == "__main__":
    main()
