from __future__ import annotations

import bz2
import gzip
import lzma
import tracemalloc
from collections.abc import Callable, Iterator

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pyengine.errors import ArchiveError
from pyengine.store.compression import OUTPUT_CHUNK, decompress, detect

PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}
FORMATS = sorted(PACK)


def split(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


@given(st.sampled_from(FORMATS), st.binary(max_size=3000), st.integers(1, 700), st.integers(1, 3))
def test_streams_come_back_whatever_the_chunks_are(name: str, data: bytes, size: int, members: int) -> None:
    packed = PACK[name](data) * members
    assert detect(packed[:6]) == name
    assert b"".join(decompress(split(packed, size), name)) == data * members


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("length", [OUTPUT_CHUNK - 1, OUTPUT_CHUNK, 2 * OUTPUT_CHUNK, 3 * OUTPUT_CHUNK + 1])
def test_outputs_that_end_with_a_chunk_are_whole(name: str, length: int) -> None:
    packed = PACK[name](bytes(length)) + b"\0" * 1000  # and zeros behind are padding
    assert sum(map(len, decompress(iter([packed]), name))) == length


@pytest.mark.parametrize("name", FORMATS)
def test_every_truncation_is_an_error(name: str) -> None:
    packed = PACK[name](b"some text, some text, other text" * 9)
    for length in range(len(packed)):
        with pytest.raises(ArchiveError, match=f"{name} stream is (truncated|corrupt)"):
            list(decompress(split(packed[:length], 7), name))


@pytest.mark.parametrize("name", FORMATS)
def test_garbage_behind_the_end_is_an_error(name: str) -> None:
    with pytest.raises(ArchiveError, match=f"{name} stream is (truncated|corrupt)"):
        list(decompress(iter([PACK[name](b"x") + b"garbage garbage"]), name))


@given(st.sampled_from(FORMATS), st.integers(0, 400), st.integers(1, 255))
def test_a_changed_byte_gives_the_same_bytes_or_an_error(name: str, position: int, change: int) -> None:
    data = bytes(range(256)) * 2
    packed = bytearray(
        zstandard.ZstdCompressor(write_checksum=True).compress(data) if name == "zstd" else PACK[name](data)
    )
    packed[position % len(packed)] ^= change
    try:
        result = b"".join(decompress(split(bytes(packed), 50), name))
    except ArchiveError:
        return
    assert result == data  # gzip's header has a time and a name, which nobody checks


@pytest.mark.parametrize("name", FORMATS)
def test_a_bomb_is_drained_in_small_pieces(name: str) -> None:
    if name == "zstd":  # a frame of run-length blocks: 4 bytes for 128 KiB each
        block = (131072 << 3 | 2).to_bytes(3, "little") + b"\0"
        bomb = b"\x28\xb5\x2f\xfd\x00\x58" + block * 4000
    else:
        bomb = PACK[name](bytes(64 << 20))
    tracemalloc.start()
    try:
        total = largest = 0
        for chunk in decompress(iter([bomb]), name):
            total += len(chunk)
            largest = max(largest, len(chunk))
            if total >= 64 << 20:
                break
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total >= 64 << 20
    assert largest <= 2 * OUTPUT_CHUNK
    assert peak < 24 << 20


def test_a_zstd_window_beyond_the_bound_is_refused() -> None:
    frame = b"\x28\xb5\x2f\xfd\x00" + bytes([21 << 3]) + (5 << 3 | 1).to_bytes(3, "little") + b"hello"  # 2 GiB window
    with pytest.raises(ArchiveError, match="zstd stream is corrupt"):
        list(decompress(iter([frame]), "zstd"))


def test_skippable_zstd_frames_are_skipped() -> None:
    skippable = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"12345"
    assert detect(skippable) == "zstd"
    packed = skippable + zstandard.compress(b"data") + skippable
    assert b"".join(decompress(split(packed, 3), "zstd")) == b"data"


def test_a_failing_source_keeps_its_own_error() -> None:
    def source() -> Iterator[bytes]:
        yield bz2.compress(b"x")[:10]
        raise OSError("the network is gone")

    with pytest.raises(OSError, match="the network is gone"):
        list(decompress(source(), "bzip2"))


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(ArchiveError, match="'lz4' is not supported"):
        decompress(iter([]), "lz4")
    assert detect(b"ustar") == ""
