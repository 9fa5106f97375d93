from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyengine.errors import ArchiveError, ArchiveTooLarge
from pyengine.oci.image import (
    DOCKER_MANIFEST,
    DOCUMENT_LIMIT,
    OCI_INDEX,
    OCI_MANIFEST,
    Index,
    Manifest,
    decode_config,
    decode_document,
    decode_index,
    decode_manifest,
    effective_media_type,
    encode,
)
from pyengine.oci.time import nanoseconds, rfc3339

DIGEST = "sha256:" + "a" * 64
CONFIG = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": DIGEST, "size": 2}
LAYER = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": DIGEST, "size": 3}


def document(**members: Any) -> bytes:
    return json.dumps({"schemaVersion": 2} | members).encode()


IMAGE = document(mediaType=OCI_MANIFEST, config=CONFIG, layers=[LAYER])
INDEX = document(mediaType=OCI_INDEX, manifests=[LAYER | {"mediaType": OCI_MANIFEST}])


def test_a_manifest_and_an_index_are_told_apart() -> None:
    assert isinstance(decode_document(IMAGE), Manifest)
    assert isinstance(decode_document(INDEX), Index)
    assert decode_manifest(IMAGE, OCI_MANIFEST).layers[0].size == 3
    assert decode_index(INDEX).manifests[0].digest == DIGEST


def test_the_type_may_be_left_out_where_it_is_clear() -> None:
    data = document(config=CONFIG, layers=[])
    assert effective_media_type(decode_document(data)) == OCI_MANIFEST
    assert effective_media_type(decode_document(data, DOCKER_MANIFEST), DOCKER_MANIFEST) == DOCKER_MANIFEST
    assert effective_media_type(decode_document(document(manifests=[]))) == OCI_INDEX


# CVE-2021-41190: the same bytes, taken for an image by one reader and for an index by another.
@pytest.mark.parametrize(
    ("data", "named", "message"),
    [
        (document(config=CONFIG, layers=[], manifests=[]), None, "ambiguous"),
        (document(config=CONFIG, manifests=[]), None, "ambiguous"),
        (document(mediaType=OCI_INDEX, config=CONFIG, layers=[]), None, "contradicts its type"),
        (document(mediaType=OCI_MANIFEST, manifests=[]), None, "contradicts its type"),
        (IMAGE, OCI_INDEX, "contradicts its type"),
        (IMAGE, DOCKER_MANIFEST, "contradicts its type"),
        (document(config=CONFIG, layers=[]), OCI_INDEX, "contradicts its type"),
        (document(mediaType="text/plain", config=CONFIG, layers=[]), None, "contradicts its type"),
        (document(), None, "neither"),
        (document(config=CONFIG), None, "neither"),
        (document(fsLayers=[], history=[]), None, "schema 1"),
        (b'{"schemaVersion": 1, "config": %s, "layers": []}' % json.dumps(CONFIG).encode(), None, "schemaVersion 1"),
        (b"", None, "not valid"),
        (b"[]", None, "not valid"),
        (b"[" * 100000, None, "not valid"),
        (b'{"mediaType": "\xff"}', None, "not valid"),
        (document(config=CONFIG, layers=[LAYER | {"size": -1}]), None, "size is negative"),
        (document(config=CONFIG, layers=[LAYER | {"size": "1"}]), None, "not valid"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(data: bytes, named: str | None, message: str) -> None:
    with pytest.raises(ArchiveError, match=message):
        decode_document(data, named)


def test_the_wrong_kind_is_refused() -> None:
    with pytest.raises(ArchiveError, match="an index was found"):
        decode_manifest(INDEX)
    with pytest.raises(ArchiveError, match="manifest of one image was found"):
        decode_index(IMAGE)


def test_a_giant_document_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(ArchiveTooLarge, match=str(DOCUMENT_LIMIT)):
        decode_document(b" " * (DOCUMENT_LIMIT + 1))
    with pytest.raises(ArchiveTooLarge, match=str(DOCUMENT_LIMIT)):
        decode_config(b" " * (DOCUMENT_LIMIT + 1))


def test_a_docker_configuration_is_read_with_its_nulls_and_health_check() -> None:
    config = decode_config(
        json.dumps(
            {
                "architecture": "arm64",
                "os": "linux",
                "container": "unknown members are passed over",
                "config": {
                    "Env": ["A=1"],
                    "Cmd": None,
                    "Volumes": None,
                    "ExposedPorts": {"80/tcp": {}},
                    "Labels": None,
                    "OnBuild": None,
                    "Healthcheck": {"Test": ["CMD", "true"], "Interval": 5, "Retries": 2},
                },
                "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
                "history": [{"created": "2024-01-01T00:00:00Z", "empty_layer": True}],
            }
        ).encode()
    )
    assert config.config is not None
    assert config.config.healthcheck is not None
    assert (config.config.cmd, config.config.healthcheck.interval, config.config.env) == (None, 5, ["A=1"])
    assert str(config.diff_ids[0]) == DIGEST
    assert config.history is not None
    assert config.history[0].empty_layer


def test_a_configuration_without_a_file_system_is_refused() -> None:
    with pytest.raises(ArchiveError, match="not 'layers'"):
        decode_config(b'{"rootfs": {"type": "disk", "diff_ids": []}}')
    with pytest.raises(ArchiveError, match="not valid"):
        decode_config(b"{}")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_document_or_an_archive_error(data: bytes) -> None:
    for decode in (decode_document, decode_config):
        try:
            decode(data)
        except ArchiveError:
            pass


def test_writing_is_stable() -> None:
    assert encode(decode_manifest(IMAGE)) == encode(decode_manifest(encode(decode_manifest(IMAGE))))


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2019-10-02T01:02:03.306367897Z", 1569978123306367897),
        ("2019-10-02T03:02:03.5+02:00", 1569978123500000000),
        ("2019-10-02t01:02:03z", 1569978123000000000),
        ("0001-01-01T00:00:00Z", 0),
        (None, 0),
    ],
)
def test_times_are_nanoseconds(text: str | None, ns: int) -> None:
    assert nanoseconds(text) == ns


@pytest.mark.parametrize("text", ["", "yesterday", "2019-10-02", "2019-13-02T01:02:03Z", "2019-10-02T01:02:03"])
def test_what_is_no_time_is_an_error(text: str) -> None:
    with pytest.raises(ArchiveError, match="not a time"):
        nanoseconds(text)


@given(st.integers(min_value=-(10**18), max_value=9 * 10**18))
def test_a_time_survives_its_text(ns: int) -> None:
    assert nanoseconds(rfc3339(ns)) == ns
