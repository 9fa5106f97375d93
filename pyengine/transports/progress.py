"""What a transfer tells while it runs. Events are values; a callback gets them in the thread that made the call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageFound:
    """An image of the source is about to be loaded: its ID, its names and the number of its layers."""

    id: str
    names: tuple[str, ...]
    layers: int


@dataclass(frozen=True, slots=True)
class LayerPresent:
    """A layer was in the store already. ``diff_id`` is a digest as text, as in all events."""

    diff_id: str


@dataclass(frozen=True, slots=True)
class LayerProgress:
    """``done`` bytes of the layer's uncompressed tar went through; at most a few events a second come."""

    diff_id: str
    done: int


@dataclass(frozen=True, slots=True)
class LayerDone:
    """A layer is unpacked and verified: ``size`` bytes of tar, ``dropped`` lines about what was left out on purpose."""

    diff_id: str
    size: int
    dropped: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Committing:
    """Everything is being made durable and visible."""

    images: int


@dataclass(frozen=True, slots=True)
class Saving:
    """A blob is being written to an archive: its digest, or a layer's diff id, and its bytes."""

    digest: str
    size: int


Event = ImageFound | LayerPresent | LayerProgress | LayerDone | Committing | Saving
Progress = Callable[[Event], None]
