"""Images to and from files: docker-archive, oci-archive, OCI layouts, ``dir``, and bare root file systems."""

from __future__ import annotations

from pyengine.transports.load import LoadedImage, load

__all__ = ["LoadedImage", "load"]
