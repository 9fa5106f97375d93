"""Images to and from files: docker-archive, oci-archive, OCI layouts, ``dir``, and bare root file systems."""

from __future__ import annotations

from pyengine.transports.load import LoadedImage, load
from pyengine.transports.rootfs import import_rootfs
from pyengine.transports.save import save

__all__ = ["LoadedImage", "import_rootfs", "load", "save"]
