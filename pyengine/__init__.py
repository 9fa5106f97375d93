"""A container engine that is a Python library.

>>> from pyengine import Engine
>>> with Engine() as engine:
...     engine.images.load("alpine.tar")
...     engine.containers.run("alpine", ["echo", "hello"]).stdout
b'hello\\n'

What is imported here is imported at its first use: ``import pyengine`` itself costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyengine import errors
    from pyengine.engine.container import Container
    from pyengine.engine.engine import Engine
    from pyengine.engine.images import Image
    from pyengine.engine.result import Result

__all__ = ["Container", "Engine", "Image", "Result", "errors"]
__version__ = "0.1.0"

_HOMES = {
    "Container": "pyengine.engine.container",
    "Engine": "pyengine.engine.engine",
    "Image": "pyengine.engine.images",
    "Result": "pyengine.engine.result",
}


def __getattr__(name: str) -> object:
    if name == "errors":
        return import_module("pyengine.errors")
    if name not in _HOMES:
        raise AttributeError(f"module 'pyengine' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, "errors"])
