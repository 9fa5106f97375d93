"""The first command that a new user types, on a machine of Debian 12 as systemd sets it up."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))


def check_demo() -> None:
    done = subprocess.run(
        [sys.executable, f"{CHECKOUT}/examples/demo.py"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    who = "root (uid 0)" if os.geteuid() == 0 else f"an ordinary user (uid {os.geteuid()})"
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert lines[0].startswith(f"pyengine as {who}, store /tmp/")
    expected = {
        "== engine.containers.run(…): exit code 3",
        "== exec in a running container",
        "exit code 137",
        "== An error says what happened: StartFailed",
        "0 containers",
    }
    assert expected <= set(lines), done.stdout


def test_the_demo_runs() -> None:
    check_demo()


@pytest.mark.needs_emulation
def test_the_demo_runs_on_debian_s_own_kernel() -> None:
    check_demo()
