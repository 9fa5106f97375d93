"""Streams of gzip, zstd, xz and bzip2 as iterators of chunks, with memory that does not depend on the input.

Every decompressor is fed and drained in small steps, because a kilobyte of any of these formats may stand for
a gigabyte. A stream that ends too early is an error, also where the library keeps quiet about it. Several
streams one behind the other are one stream, as gzip(1), zstd(1), xz(1) and bzip2(1) have it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pyengine.errors import ArchiveError

OUTPUT_CHUNK = 1 << 20
_INPUT_STEP = 128 << 10
_XZ_MEMORY = 256 << 20
_ZSTD_WINDOW = 128 << 20

_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"BZh", "bzip2"),
)
DETECT_BYTES = 6


def detect(head: bytes) -> str:
    """The compression that starts with these bytes, or an empty string. Skippable zstd frames count as zstd."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if len(head) >= 4 and head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F:
        return "zstd"
    return ""


def decompress(chunks: Iterable[bytes], compression: str) -> Iterator[bytes]:
    """The uncompressed stream of ``chunks``; ``compression`` is a name that :func:`detect` gives.

    :raises ArchiveError: while iterating, if the stream is corrupt, ends early or needs too much memory
    """
    if compression == "":
        return iter(chunks)
    if compression == "zstd":
        return _zstd(chunks)
    if compression == "gzip":
        from isal import isal_zlib

        return _members(chunks, lambda: isal_zlib.decompressobj(wbits=31), isal_zlib.error, "gzip", zlib_like=True)
    if compression == "xz":
        import lzma

        return _members(
            chunks, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY), lzma.LZMAError, "xz"
        )
    if compression == "bzip2":
        import bz2

        return _members(chunks, bz2.BZ2Decompressor, OSError, "bzip2")
    raise ArchiveError(f"compression {compression!r} is not supported")


def _members(
    chunks: Iterable[bytes],
    make: Callable[[], Any],
    error: type[Exception] | Any,
    name: str,
    *,
    zlib_like: bool = False,
) -> Iterator[bytes]:
    """gzip, xz and bzip2: members that know their own end."""

    def step(data: bytes) -> bytes:
        try:
            output: bytes = decoder.decompress(data, OUTPUT_CHUNK)
        except (error, EOFError, MemoryError) as problem:
            raise ArchiveError(f"{name} stream is corrupt: {problem}") from problem
        return output

    decoder: Any = None
    begun = False
    for chunk in chunks:
        for start in range(0, len(chunk), _INPUT_STEP):
            data = chunk[start : start + _INPUT_STEP]
            while data:
                if decoder is None:
                    if begun:
                        # Zeros behind the last member are padding (tapes, and some registries).
                        data = data.lstrip(b"\0")
                        if not data:
                            break
                    decoder, begun = make(), True
                output = step(data)
                # A full output may leave more inside, also when all of the input is used up.
                while not decoder.eof and len(output) == OUTPUT_CHUNK:
                    yield output
                    output = step(decoder.unconsumed_tail if zlib_like else b"")
                if output:
                    yield output
                if not decoder.eof:
                    break
                data, decoder = decoder.unused_data, None
    if decoder is not None or not begun:
        raise ArchiveError(f"{name} stream is truncated")


class _Input:
    """Exact numbers of bytes out of chunks of any size."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._buffer = b""
        self._position = 0

    def take(self, count: int) -> bytes:
        """``count`` bytes; fewer only at the end of the input."""
        end = self._position + count
        if end <= len(self._buffer):
            data = self._buffer[self._position : end]
            self._position = end
            return data
        parts = [self._buffer[self._position :]]
        have = len(parts[0])
        self._buffer, self._position = b"", 0
        while have < count:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            need = count - have
            if len(chunk) > need:
                self._buffer, self._position = chunk, need
                chunk = chunk[:need]
            parts.append(chunk)
            have += len(chunk)
        return b"".join(parts)

    def need(self, count: int) -> bytes:
        """``count`` bytes, or the error that the stream ends here."""
        data = self.take(count)
        if len(data) < count:
            raise ArchiveError("zstd stream is truncated")
        return data


def _zstd(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """zstd, block by block (RFC 8878 §3.1.1).

    The library neither bounds what one call gives nor says when the input stops in mid-frame; a block never gives
    more than 128 KiB, and the frames' own structure says where they end.
    """
    import zstandard

    stream = _Input(chunks)
    context = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    begun = False
    while True:
        magic = stream.take(4)
        if not magic or (begun and not magic.strip(b"\0")):
            if not begun:
                raise ArchiveError("zstd stream is truncated")
            return
        if len(magic) < 4:
            raise ArchiveError("zstd stream is truncated")
        begun = True
        if detect(magic) != "zstd":
            raise ArchiveError("zstd stream is corrupt: unknown frame")
        if magic[1:] == b"\x2a\x4d\x18":
            remaining = int.from_bytes(stream.need(4), "little")
            while remaining:
                remaining -= len(stream.need(min(remaining, _INPUT_STEP)))
            continue
        try:
            yield from _zstd_frame(stream, magic, context.decompressobj())
        except zstandard.ZstdError as problem:
            raise ArchiveError(f"zstd stream is corrupt: {problem}") from problem


def _zstd_frame(stream: _Input, magic: bytes, decoder: Any) -> Iterator[bytes]:
    descriptor = stream.need(1)
    single_segment = descriptor[0] >> 5 & 1
    content_size = (1 if single_segment else 0, 2, 4, 8)[descriptor[0] >> 6]
    header_length = (0 if single_segment else 1) + (0, 1, 2, 4)[descriptor[0] & 3] + content_size
    data = magic + descriptor + stream.need(header_length)
    parts: list[bytes] = []
    size = 0
    last = False
    while not last:
        header = stream.need(3)
        fields = int.from_bytes(header, "little")
        last = bool(fields & 1)
        # A block of type 1 is one byte that is repeated.
        body = stream.need(1 if fields >> 1 & 3 == 1 else fields >> 3)
        output = decoder.decompress(data + header + body)
        data = b""
        parts.append(output)
        size += len(output)
        if size >= OUTPUT_CHUNK:
            yield b"".join(parts)
            parts, size = [], 0
    if descriptor[0] & 4:
        parts.append(decoder.decompress(stream.need(4)))
    if not decoder.eof:
        raise ArchiveError("zstd stream is corrupt: a frame does not end with its last block")
    yield b"".join(parts)
