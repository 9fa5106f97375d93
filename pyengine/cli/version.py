"""The version of the installed package."""

from __future__ import annotations


def version() -> str:
    """As in the package's metadata."""
    from importlib.metadata import version as installed

    return installed("pyengine")
