from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyengine.errors import InvalidValue
from pyengine.linux import idmap
from pyengine.linux.idmap import ID_LIMIT, IdMap, SubordinateRange

ids = st.integers(0, ID_LIMIT - 1)
ranges = st.builds(SubordinateRange, st.integers(1, 1 << 31), st.integers(1, 1 << 18))


@given(ids, ids, st.integers(1, 1 << 32))
def test_a_map_is_within_the_ids_there_are_or_invalid(container: int, host: int, size: int) -> None:
    valid = max(container, host) + size <= ID_LIMIT
    if valid:
        assert IdMap.parse(str(IdMap(container, host, size))) == IdMap(container, host, size)
    else:
        with pytest.raises(InvalidValue, match="the last id at most 4294967294"):
            IdMap(container, host, size)


@pytest.mark.parametrize(
    "text", ["", "1", "1:2:3:4", "a:1:1", "-1:0:1", "0:0:0", "0:0:99999999999999", "\u0660:0:1", "0: 1:1"]
)
def test_text_that_is_no_map_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue, match="id map"):
        IdMap.parse(text)


@pytest.mark.parametrize(
    ("maps", "text"),
    [
        ([], "takes 1 to 340 id maps, not 0"),
        ([IdMap(0, 1000, 10), IdMap(9, 5000, 1)], "id maps 0:1000:10 and 9:5000:1 overlap: they share a container id"),
        ([IdMap(0, 1000, 10), IdMap(10, 1009, 1)], "they share a host id"),
        ([IdMap(i, i, 1) for i in range(341)], "takes 1 to 340 id maps, not 341"),
    ],
)
def test_maps_that_the_kernel_would_refuse_are_refused(maps: list[IdMap], text: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        idmap.check_maps(maps)
    assert text in str(caught.value)


@given(st.integers(0, 70000), st.lists(ranges, max_size=6))
def test_the_default_map_is_valid_and_both_ways_agree(own: int, given_ranges: list[SubordinateRange]) -> None:
    maps = idmap.default_map(own, given_ranges)
    assert idmap.check_maps(maps) == maps
    assert maps[0] == IdMap(0, own, 1)
    total = sum(item.size for item in maps)
    for container in (0, 1, total - 1, total):
        host = idmap.to_host(maps, container)
        assert (host is None) == (container >= total)
        if host is not None:
            assert idmap.to_container(maps, host) == container
            assert host == own or any(item.start <= host < item.start + item.size for item in given_ranges)


HOSTILE = b"""
alice:100000:65536
alice:100000
alice:-5:10
alice:5:-10
alice:99999999999999999999:1
alice:4294967290:100
alice:0:10
alice:300000:0
alice:4000:5:6
1000:400000:10
:500000:10
alicee:600000:10
\xff\xfe:1:1
  alice:700000:7
"""


def test_hostile_lines_belong_to_nobody() -> None:
    expected = [SubordinateRange(100000, 65536), SubordinateRange(400000, 10), SubordinateRange(700000, 7)]
    assert idmap.parse_subids(HOSTILE, "alice", 1000) == expected
    assert idmap.parse_subids(HOSTILE, "", 1000) == [SubordinateRange(400000, 10)]


@given(st.binary(max_size=300))
def test_any_content_of_subuid_parses(content: bytes) -> None:
    for item in idmap.parse_subids(content, "a", 1):
        assert item.size > 0
        assert 0 < item.start < item.start + item.size <= ID_LIMIT


def test_the_map_of_the_first_namespace_parses() -> None:
    assert idmap.parse_proc_map("         0          0 4294967295\n") == (IdMap(0, 0, ID_LIMIT),)
    with pytest.raises(InvalidValue, match="not a line of an id map"):
        idmap.parse_proc_map("0 0\n")


def test_without_a_range_in_both_files_there_is_a_single_id(tmp_path: object) -> None:
    import os

    subuid, subgid = os.path.join(str(tmp_path), "subuid"), os.path.join(str(tmp_path), "subgid")
    with open(subuid, "w") as file:
        file.write("54321:200000:65536\n")
    maps = idmap.rootless_maps(54321, 54321, subuid, subgid)
    assert maps.single_id
    with open(subgid, "w") as file:
        file.write("54321:300000:65536\n")
    maps = idmap.rootless_maps(54321, 54321, subuid, subgid)
    assert not maps.single_id
    assert maps.gids == (IdMap(0, 54321, 1), IdMap(1, 300000, 65536))
