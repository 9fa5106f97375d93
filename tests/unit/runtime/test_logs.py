"""Log files: what is written as k8s-file comes back as lines, whole, in order, and never without bound."""

from __future__ import annotations

import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyengine.errors import InvalidValue
from pyengine.runtime.logs import MAX_LINE, LineParser, LogLine, files, follow, nanoseconds, read

TIME = "2026-01-02T03:04:05.000000006+00:00"


def line(text: str, stream: str = "stdout", tag: str = "F", time: str = TIME) -> str:
    return f"{time} {stream} {tag} {text}\n"


texts = st.text(st.characters(blacklist_characters="\n", blacklist_categories=("Cs",)), max_size=40)
records = st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.sampled_from("FP"), texts), max_size=30)


@given(records, st.lists(st.integers(1, 50), max_size=60))
def test_how_the_bytes_are_cut_does_not_matter(entries: list[tuple[str, str, str]], cuts: list[int]) -> None:
    data = "".join(line(text, stream, tag) for stream, tag, text in entries).encode()
    whole = LineParser()
    expected = [*whole.feed(data), *whole.finish()]
    parser = LineParser()
    found: list[LogLine] = []
    rest = data
    for cut in cuts:
        found += parser.feed(rest[:cut])
        rest = rest[cut:]
    found += [*parser.feed(rest), *parser.finish()]
    assert found == expected


@given(records)
def test_every_byte_of_a_stream_comes_back_in_order(entries: list[tuple[str, str, str]]) -> None:
    data = "".join(line(text, stream, tag) for stream, tag, text in entries).encode()
    parser = LineParser()
    found = [*parser.feed(data), *parser.finish()]
    for stream in ("stdout", "stderr"):
        written = b"".join(t.encode() + (b"\n" if g == "F" else b"") for s, g, t in entries if s == stream)
        assert b"".join(x.text + (b"" if x.partial else b"\n") for x in found if x.stream == stream) == written


@given(st.binary(max_size=400))
def test_a_damaged_file_never_raises(data: bytes) -> None:
    parser = LineParser()
    for found in [*parser.feed(data), *parser.finish()]:
        assert found.stream in ("stdout", "stderr")


def test_pieces_are_joined_each_stream_by_itself() -> None:
    parser = LineParser()
    data = line("a", tag="P") + line("x", "stderr") + line("b", tag="P") + line("c")
    assert [(x.stream, x.text) for x in parser.feed(data.encode())] == [("stderr", b"x"), ("stdout", b"abc")]


def test_a_line_without_end_is_handed_out_in_pieces() -> None:
    parser = LineParser()
    piece = line("y" * 60000, tag="P").encode()
    found = [x for _ in range(40) for x in parser.feed(piece)]
    assert found
    assert all(x.partial and len(x.text) < MAX_LINE + 60000 for x in found)


def test_since_and_tail(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "ctr.log")
    with open(path, "w") as file:
        file.write("".join(line(str(n), time=f"2026-01-02T03:04:{n:02}.5+00:00") for n in range(10)))
    assert [str(x) for x in read(path, tail=2)] == ["8", "9"]
    assert list(read(path, tail=0)) == []
    since = nanoseconds("2026-01-02T03:04:06.5Z")
    assert [str(x) for x in read(path, since=since)] == ["7", "8", "9"]
    assert [str(x) for x in read(path, since=since, tail=1)] == ["9"]


def test_rotated_files_come_first(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "ctr.log")
    for suffix, text in ((".2", "one"), (".1", "two"), ("", "three")):
        with open(path + suffix, "w") as file:
            file.write(line(text))
    assert files(path) == [f"{path}.2", f"{path}.1", path]
    assert [str(x) for x in read(path)] == ["one", "two", "three"]


def test_follow_sees_every_line_across_rotations(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "ctr.log")
    total = 300
    done = threading.Event()
    reading, writing = os.pipe()

    def write() -> None:
        for n in range(total):
            with open(path, "a") as file:
                file.write(line(str(n)))
            if n % 25 == 24:
                for old in range(20, 0, -1):
                    if os.path.exists(f"{path}.{old}"):
                        os.rename(f"{path}.{old}", f"{path}.{old + 1}")
                os.rename(path, f"{path}.1")
        done.set()
        os.close(writing)

    writer = threading.Thread(target=write)
    writer.start()
    found = [int(str(x)) for x in follow(path, done.is_set, lambda: reading)]
    writer.join()
    os.close(reading)
    assert found == list(range(total))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("1970-01-01T01:00:00+01:00", 0),
        ("0001-01-01T00:00:00Z", -62135596800 * 10**9),
    ],
)
def test_times_are_nanoseconds(text: str, expected: int) -> None:
    assert nanoseconds(text) == expected


@pytest.mark.parametrize("text", ["", "now", "2026-13-01T00:00:00Z", "2026-01-01 00:00:00", "2026-01-01T00:00:00"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue, match="is not a"):
        nanoseconds(text)
