"""Content digests: ``sha256:<64 hex>`` and ``sha512:<128 hex>``.

Source: OCI image-spec, descriptor.md, "Digests". A digest becomes a file name in the store, so that nothing but
the two registered algorithms and lower-case hexadecimal digits of the exact length gets through here.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from pyengine.errors import InvalidDigest
from pyengine.typing import override

_LENGTH = {"sha256": 64, "sha512": 128}
_HEX = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """The digest of some bytes. ``hex`` is lower case and of the length that ``algorithm`` gives.

    :raises InvalidDigest: for any other algorithm or form
    """

    algorithm: str
    hex: str

    def __post_init__(self) -> None:
        length = _LENGTH.get(self.algorithm)
        if length is None:
            raise InvalidDigest(f"digest algorithm {self.algorithm[:32]!r} is not supported: sha256 and sha512 are")
        if len(self.hex) != length or _HEX.fullmatch(self.hex) is None:
            raise InvalidDigest(
                f"digest {self.algorithm}:{self.hex[:136]!r} is malformed: {length} lower-case hex digits are needed"
            )

    @classmethod
    def parse(cls, text: str) -> Digest:
        """``algorithm:hex`` as a value; :class:`InvalidDigest` for anything else."""
        algorithm, colon, digits = text.partition(":")
        if not colon:
            raise InvalidDigest(f"digest {text[:136]!r} is malformed: it has no algorithm in front")
        return cls(algorithm, digits)

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Digest:
        """The digest of ``data``."""
        if algorithm not in _LENGTH:
            raise InvalidDigest(f"digest algorithm {algorithm[:32]!r} is not supported: sha256 and sha512 are")
        return cls(algorithm, hashlib.new(algorithm, data).hexdigest())

    def hasher(self) -> hashlib._Hash:
        """A new hash object of this digest's algorithm, to compare a stream with it."""
        return hashlib.new(self.algorithm)

    @override
    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"
