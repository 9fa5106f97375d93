"""What importing costs, and the shortest command."""

from __future__ import annotations

import statistics
import subprocess
import sys

from measure import seconds


def median_of(command: list[str], rounds: int = 15) -> float:
    return statistics.median(
        seconds(lambda: subprocess.run(command, check=True, capture_output=True)) for _ in range(rounds)
    )


def main(directory: str) -> None:
    bare = median_of([sys.executable, "-c", "pass"])
    imported = median_of([sys.executable, "-c", "import pyengine"])
    engine = median_of([sys.executable, "-c", "from pyengine import Engine"])
    options = ["--root", f"{directory}/ps/root", "--runroot", f"{directory}/ps/run"]
    listed = median_of([sys.executable, "-m", "pyengine.cli", *options, "ps"])
    print(
        f"{'import pyengine':44} {(imported - bare) * 1000:9.2f} ms   (Python alone {bare * 1000:.0f})  budget: <= 50"
    )
    print(f"{'from pyengine import Engine':44} {(engine - bare) * 1000:9.2f} ms")
    print(f"{'pyengine ps, as a process':44} {listed * 1000:9.2f} ms   budget: <= 120")
