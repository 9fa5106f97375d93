from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyengine.errors import InvalidDigest
from pyengine.oci.digest import Digest


@given(st.binary(max_size=64), st.sampled_from(["sha256", "sha512"]))
def test_the_digest_of_bytes_survives_its_text(data: bytes, algorithm: str) -> None:
    digest = Digest.of(data, algorithm)
    assert digest.hex == hashlib.new(algorithm, data).hexdigest()
    assert Digest.parse(str(digest)) == digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no algorithm"),
        ("a" * 64, "no algorithm"),
        ("sha256:", "is malformed"),
        ("sha256:" + "a" * 63, "is malformed"),
        ("sha256:" + "a" * 65, "is malformed"),
        ("sha256:" + "A" * 64, "is malformed"),
        ("sha256:" + "a" * 63 + "\n", "is malformed"),
        ("sha256:" + "../" * 21 + "a", "is malformed"),
        ("sha512:" + "a" * 64, "is malformed"),
        ("md5:" + "a" * 32, "not supported"),
        ("../sha256:" + "a" * 64, "not supported"),
        ("SHA256:" + "a" * 64, "not supported"),
    ],
)
def test_what_could_become_another_file_name_is_no_digest(text: str, message: str) -> None:
    with pytest.raises(InvalidDigest, match=message):
        Digest.parse(text)


@given(st.text(max_size=80))
def test_any_text_is_a_digest_that_writes_back_or_an_error(text: str) -> None:
    try:
        assert str(Digest.parse(text)) == text
    except InvalidDigest:
        pass


def test_an_unknown_algorithm_cannot_be_computed() -> None:
    with pytest.raises(InvalidDigest, match="not supported"):
        Digest.of(b"", "md5")
