from __future__ import annotations

import contextlib
import ctypes
import gzip
import lzma
import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from machine.compression import LARGEST, decompress
from machine.host import VMError
from machine.kernel import Kernel, find, load_order, module_name, parse_modules_dep, preference, unpack

ELF = b"\x7fELF" + b"code" * 100 + b"Xen\0" + bytes(200)
Compress = Callable[[bytes], bytes]


def lz4(content: bytes) -> bytes:
    library = ctypes.CDLL("liblz4.so.1")
    stream = b"\x02\x21\x4c\x18"
    for start in range(0, len(content), 8 << 20):
        block = content[start : start + (8 << 20)]
        output = ctypes.create_string_buffer(library.LZ4_compressBound(len(block)))
        length = library.LZ4_compress_default(block, output, len(block), len(output))
        stream += struct.pack("<I", length) + output.raw[:length]
    return stream


def zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(content)


COMPRESSORS = pytest.mark.parametrize("compress", [gzip.compress, lzma.compress, zstd, lz4])


def bzimage(payload: bytes) -> bytes:
    """A bzImage with two setup sectors whose payload lies 64 bytes into the protected-mode code."""
    header = bytearray(3 * 512)
    header[0x1F1] = 2
    header[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", header, 0x248, 64, len(payload))
    return bytes(header) + bytes(64) + payload + b"what follows"


@COMPRESSORS
def test_what_a_kernel_is_compressed_with_is_unpacked(compress: Compress) -> None:
    payload = compress(ELF) + struct.pack("<I", len(ELF))
    assert unpack(bzimage(payload)) == ELF


@COMPRESSORS
def test_what_a_module_is_compressed_with_is_unpacked(compress: Compress) -> None:
    assert decompress(compress(ELF)) == ELF


def test_lz4_of_several_blocks_is_unpacked() -> None:
    content = bytes(9 << 20)
    assert decompress(lz4(content)) == content


def test_an_elf_needs_no_unpacking() -> None:
    assert unpack(ELF) == ELF


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"MZ" + bytes(2000), "^not a bzImage$"),
        (b"", "^not a bzImage$"),
        (bzimage(gzip.compress(ELF))[:1620], "^the bzImage ends early$"),
        (bzimage(gzip.compress(b"no kernel") + struct.pack("<I", 9)), "^the bzImage holds no ELF with a PVH entry$"),
        (bzimage(gzip.compress(ELF[:50]) + struct.pack("<I", 50)), "^the bzImage holds no ELF with a PVH entry$"),
        (bzimage(b"\x00\x01\x02\x03" * 5), "^unknown compression"),
    ],
)
def test_other_images_are_refused(image: bytes, message: str) -> None:
    with pytest.raises(VMError, match=message):
        unpack(image)


@COMPRESSORS
def test_a_truncated_stream_is_refused(compress: Compress) -> None:
    stream = compress(random.Random(1).randbytes(5000))
    with pytest.raises(VMError, match=r"ends early|damaged"):
        decompress(stream[: len(stream) // 2])


def test_zstd_of_unknown_size_needs_the_size() -> None:
    compressor = zstandard.ZstdCompressor().compressobj()
    stream = compressor.compress(ELF) + compressor.flush()
    with pytest.raises(VMError, match="size is unknown"):
        decompress(stream)
    assert decompress(stream, len(ELF)) == ELF
    with pytest.raises(VMError, match="larger than it says"):
        decompress(stream, len(ELF) - 1)


@given(st.sampled_from([gzip.compress, lzma.compress, zstd, lz4]), st.randoms(use_true_random=False))
def test_damage_gives_an_error_or_content(compress: Compress, chance: random.Random) -> None:
    stream = bytearray(compress(ELF))
    stream[chance.randrange(4, len(stream))] ^= 1 << chance.randrange(8)
    with contextlib.suppress(VMError):
        assert len(decompress(bytes(stream), len(ELF))) <= LARGEST


@given(st.binary(max_size=2000))
def test_no_bytes_are_mistaken_for_a_kernel(data: bytes) -> None:
    with pytest.raises(VMError):
        unpack(data.removeprefix(b"\x7fELF"))


DEP = """\
kernel/fs/fuse/fuse.ko.xz:
kernel/fs/virtiofs.ko.xz: kernel/fs/fuse/fuse.ko.xz kernel/virtio.ko.xz kernel/ring.ko.xz
kernel/virtio.ko.xz: kernel/ring.ko.xz
kernel/ring.ko.xz:
kernel/crypto/crc32c-generic.ko.xz:
"""


def test_modules_are_loaded_after_what_they_need() -> None:
    order = load_order(parse_modules_dep(DEP), ["ext4"], ["virtiofs", "ext4", "fuse", "crc32c_generic"])
    assert list(map(module_name, order)) == ["ring", "virtio", "fuse", "virtiofs", "crc32c_generic"]


def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(VMError, match=r"^the kernel has no module ext4$"):
        load_order(parse_modules_dep(DEP), [], ["ext4"])
    with pytest.raises(VMError, match=r"^modules.dep does not list b.ko$"):
        load_order({"a.ko": ["b.ko"]}, [], ["a"])


def test_modules_that_need_each_other_are_refused() -> None:
    with pytest.raises(VMError, match=r"^modules need each other: a.ko → b.ko → a.ko$"):
        load_order({"a.ko": ["b.ko"], "b.ko": ["a.ko"]}, [], ["a"])


@pytest.mark.parametrize("line", ["no colon", ": nothing", ""])
def test_a_line_of_modules_dep_without_module_is_refused(line: str) -> None:
    with pytest.raises(VMError, match=r"modules.dep line 1: no module"):
        parse_modules_dep(line + "\n")


@given(st.integers(1, 12).flatmap(lambda n: st.tuples(*(st.sets(st.integers(0, max(i - 1, 0))) for i in range(n)))))
def test_every_order_is_complete_and_has_needs_first(graph: tuple[set[int], ...]) -> None:
    needs = {f"m{i}.ko": [f"m{j}.ko" for j in below if j < i] for i, below in enumerate(graph)}
    wanted = f"m{len(graph) - 1}"
    order = load_order(needs, [], [wanted])
    assert order[-1] == wanted + ".ko"
    assert len(set(order)) == len(order)
    for place, path in enumerate(order):
        assert set(needs[path]) <= set(order[:place])


def test_a_cloud_kernel_comes_first_and_then_the_newest() -> None:
    releases = ["6.1.0-9-cloud-amd64", "6.12.1-amd64", "6.1.0-56-cloud-amd64", "6.1.0-56-amd64"]
    assert sorted(releases, key=preference, reverse=True) == [
        "6.1.0-56-cloud-amd64",
        "6.1.0-9-cloud-amd64",
        "6.12.1-amd64",
        "6.1.0-56-amd64",
    ]


def test_a_kernel_is_found_with_its_modules(tmp_path: Path) -> None:
    for release in ("6.1.0-1-amd64", "6.1.0-2-amd64", "6.1.0-3-amd64"):
        (tmp_path / f"vmlinuz-{release}").touch()
    for release in ("6.1.0-1-amd64", "6.1.0-2-amd64"):
        (tmp_path / release).mkdir()
        (tmp_path / release / "modules.dep").write_text(DEP)
        (tmp_path / release / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    kernel = find(str(tmp_path), str(tmp_path))
    assert kernel == Kernel(f"{tmp_path}/vmlinuz-6.1.0-2-amd64", f"{tmp_path}/6.1.0-2-amd64")
    assert kernel.load_order(["fuse", "ext4"]) == [f"{tmp_path}/6.1.0-2-amd64/kernel/fs/fuse/fuse.ko.xz"]


def test_the_package_of_a_missing_kernel_is_named(tmp_path: Path) -> None:
    with pytest.raises(VMError, match=r"apt-get install linux-image-cloud-amd64"):
        find(str(tmp_path), str(tmp_path))
    with pytest.raises(VMError, match=r"cannot read the modules of kernel 6.6"):
        Kernel("/x", str(tmp_path / "6.6")).load_order([])
