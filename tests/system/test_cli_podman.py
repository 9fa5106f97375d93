"""The flags are podman's: what ours and podman's help say of each command, side by side."""

from __future__ import annotations

import re
import subprocess

import click
import pytest

from pyengine.cli.main import COMMANDS, cli

OWN = {"explain"}
"""Commands that podman does not have."""

OLDER = {("run", "--net"), ("create", "--net"), ("stop", "--timeout"), ("restart", "--timeout")}
"""Flags of podman 1.6 that later ones still take, or took for long, without a word about them in their help."""


def podmans_flags(command: str) -> dict[str, str]:
    """Long names to short ones (or nothing)."""
    done = subprocess.run(["podman", command, "--help"], capture_output=True, text=True, check=True)
    return {f"--{match[2]}": match[1] or "" for match in re.finditer(r"^ +(?:-(\w), )?--([\w-]+)", done.stdout, re.M)}


def our_flags(command: str) -> dict[str, str]:
    found = cli.get_command(click.Context(cli), command)
    assert found is not None
    flags = {}
    for param in found.params:
        if isinstance(param, click.Option):
            short = "".join(name[1:] for name in param.opts if not name.startswith("--"))
            flags |= {name: short for name in param.opts if name.startswith("--")}
    return flags


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - OWN))
def test_every_flag_is_one_of_podman_with_the_same_letter(command: str) -> None:
    theirs = podmans_flags(command)
    ours = {name: short for name, short in our_flags(command).items() if (command, name) not in OLDER}
    assert ours == {name: theirs.get(name, "podman has none") for name in ours}
