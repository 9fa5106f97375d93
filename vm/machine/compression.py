"""Unpacks what Debian compresses kernels and modules with."""

from __future__ import annotations

import ctypes
import lzma
import struct
import zlib
from typing import Protocol

from machine.host import VMError

LZ4_BLOCK = 8 << 20
LARGEST = 512 << 20


def decompress(data: bytes, size: int | None = None) -> bytes:
    """The content of one gzip, xz, zstd or legacy lz4 stream; what follows it is ignored.

    ``size`` is the content's where the stream does not say it (a kernel's zstd).
    Raises VMError for other formats, damaged data and more than 512 MiB.
    """
    if data.startswith(b"\x1f\x8b"):
        return _inflate(zlib.decompressobj(31), data)
    if data.startswith(b"\xfd7zXZ\0"):
        return _inflate(lzma.LZMADecompressor(), data)
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        return _zstd(data, size)
    if data.startswith(b"\x02\x21\x4c\x18"):
        return _lz4(data)
    raise VMError(f"unknown compression (starts with {data[:4].hex()!r})")


class _Inflater(Protocol):
    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _inflate(inflater: _Inflater, data: bytes) -> bytes:
    try:
        content = inflater.decompress(data, LARGEST)
    except (zlib.error, lzma.LZMAError) as error:
        raise VMError(f"the stream is damaged: {error}") from error
    if not inflater.eof:
        raise VMError("the stream ends early")
    return content


def _library(name: str) -> ctypes.CDLL:
    # apt and dpkg need both libraries, so every Debian has them; Python has no zstd before 3.14 and no lz4 at all
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise VMError(f"cannot load {name}: {error}") from error


def _zstd(data: bytes, size: int | None) -> bytes:
    library = _library("libzstd.so.1")
    for function in (library.ZSTD_findFrameCompressedSize, library.ZSTD_decompress):
        function.restype = ctypes.c_size_t
    library.ZSTD_getFrameContentSize.restype = ctypes.c_ulonglong
    library.ZSTD_isError.argtypes = [ctypes.c_size_t]
    frame = library.ZSTD_findFrameCompressedSize(data, ctypes.c_size_t(len(data)))
    if library.ZSTD_isError(frame):
        raise VMError("zstd: the stream is damaged or ends early")
    room = library.ZSTD_getFrameContentSize(data, ctypes.c_size_t(len(data))) if size is None else size
    if room > LARGEST:  # also what says that the frame does not tell
        raise VMError("zstd: the content's size is unknown or too large")
    output = ctypes.create_string_buffer(room)
    written = library.ZSTD_decompress(output, ctypes.c_size_t(room), data, ctypes.c_size_t(frame))
    if library.ZSTD_isError(written):
        raise VMError("zstd: the stream is damaged or larger than it says")
    return ctypes.string_at(output, written)


def _lz4(data: bytes) -> bytes:
    library = _library("liblz4.so.1")
    output = ctypes.create_string_buffer(LZ4_BLOCK)
    content, at = bytearray(), 4
    # a kernel's stream is followed by four bytes of size, which cannot be a block
    while at + 4 < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        at += 4
        if at + length > len(data):
            raise VMError("lz4: the stream ends early")
        written = library.LZ4_decompress_safe(data[at : at + length], output, length, LZ4_BLOCK)
        if written < 0:
            raise VMError("lz4: a block is damaged")
        content += ctypes.string_at(output, written)
        if len(content) > LARGEST:
            raise VMError("lz4: the content is too large")
        at += length
    return bytes(content)
