from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from pyengine.linux.faults import declare, declared, killer

SCRIPT = "from pyengine.linux.faults import fault\nfor n in range(5): fault('here'); print(n, flush=True)"


@pytest.mark.parametrize(
    ("setting", "status", "output"),
    [
        (None, 0, "0\n1\n2\n3\n4\n"),
        ("here", -signal.SIGKILL, ""),
        ("here:3", -signal.SIGKILL, "0\n1\n"),
        ("elsewhere", 0, "0\n1\n2\n3\n4\n"),
    ],
)
def test_the_process_dies_at_the_step_that_is_named(setting: str | None, status: int, output: str) -> None:
    environment = {"PYENGINE_FAULT": setting} if setting else {}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (status, output)


def test_points_are_listed_and_a_bad_count_is_an_error() -> None:
    assert declare("made-for-this-test") == ("made-for-this-test",)
    assert "made-for-this-test" in declared()
    with pytest.raises(ValueError, match="invalid literal"):
        killer("x:y")
