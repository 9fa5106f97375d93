"""Logs: k8s-file lines, follow, since, tail, rotation, none."""

from __future__ import annotations

import os
import re
import threading
import time

import pytest
from engines import IMAGE, eventually

from pyengine import Engine
from pyengine.engine.container import Container
from pyengine.errors import InvalidValue
from pyengine.runtime.logs import LogLine, nanoseconds

pytestmark = pytest.mark.rootless


def ended(engine: Engine, script: str, **options: object) -> Container:
    box = engine.containers.create(IMAGE, ["sh", "-c", script], **options)
    box.start()
    assert box.wait(30) == 0
    return box


def texts(box: Container, **options: object) -> list[bytes]:
    return [line.text for line in box.logs(**options)]  # type: ignore[arg-type]


def test_the_file_has_k8s_lines(engine: Engine) -> None:
    box = ended(engine, "echo one; echo two >&2; printf three")
    with open(box.log_path, "rb") as file:
        lines = file.read().splitlines()
    form = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}[+-]\d\d:\d\d|\S+Z) (stdout|stderr) ([FP]) (.*)")
    matches = [form.fullmatch(line) for line in lines]
    assert all(matches), lines
    found = sorted((match[2], match[3], match[4]) for match in matches if match)
    assert found == [(b"stderr", b"F", b"two"), (b"stdout", b"F", b"one"), (b"stdout", b"P", b"three")]
    assert os.stat(box.log_path).st_mode & 0o077 == 0


def test_lines_have_their_time_stream_and_text(engine: Engine) -> None:
    before = time.time_ns()
    box = ended(engine, "echo one; sleep 0.02; echo two >&2; sleep 0.02; printf three")
    lines = list(box.logs())
    assert [(line.stream, line.text, line.partial) for line in lines] == [
        ("stdout", b"one", False),
        ("stderr", b"two", False),
        ("stdout", b"three", True),
    ]
    times = [nanoseconds(line.time) for line in lines]
    assert before < times[0] < times[1] < times[2] < time.time_ns()
    assert texts(box, stderr=False) == [b"one", b"three"]
    assert texts(box, stdout=False) == [b"two"]
    assert texts(box, since=times[0]) == [b"two", b"three"]
    assert texts(box, tail=1) == [b"three"]
    assert texts(box, tail=0) == []
    assert texts(box, tail=99) == [b"one", b"two", b"three"]


def test_all_bytes_come_back(engine: Engine) -> None:
    box = ended(engine, "printf 'a\\000b\\377\\r\\nlast\\n'; yes 0123456789 | head -c 100000 | tr -d '\\n'; echo")
    lines = texts(box)
    assert lines[:2] == [b"a\0b\xff\r", b"last"]
    assert lines[2] == (b"0123456789" * 10000)[: len(lines[2])]
    assert len(lines[2]) == 90909 or len(lines[2]) == 90910


def test_no_line_is_lost_or_mixed_up(engine: Engine) -> None:
    box = ended(engine, "i=0; while [ $i -lt 3000 ]; do echo $i; i=$((i+1)); done; seq 20000 25000 >&2")
    assert texts(box, stderr=False) == [str(number).encode() for number in range(3000)]
    assert texts(box, stdout=False) == [str(number).encode() for number in range(20000, 25001)]


def test_following_ends_with_the_container(engine: Engine) -> None:
    box = engine.containers.create(IMAGE, ["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.05; done; printf end"])
    box.start()
    lines = list(box.logs(follow=True))
    assert [(line.text, line.partial) for line in lines] == [
        (b"1", False),
        (b"2", False),
        (b"3", False),
        (b"end", True),
    ]
    assert box.status == "exited"
    assert texts(box, follow=True) == [b"1", b"2", b"3", b"end"]


def test_lines_come_as_they_are_written(engine: Engine) -> None:
    box = engine.containers.create(IMAGE, ["sh", "-c", "while read x; do echo $x; done"], interactive=True)
    seen: list[LogLine] = []
    with box.start_attached() as attachment:
        follower = threading.Thread(target=lambda: seen.extend(box.logs(follow=True, tail=0)))
        lines: list[bytes] = []
        reader = threading.Thread(target=lambda: lines.extend(line.text for line in box.logs(follow=True)))
        attachment.write(b"early\n")
        assert attachment.read() == ("stdout", b"early\n")
        assert eventually(lambda: texts(box) == [b"early"])
        follower.start()
        reader.start()
        assert eventually(lambda: lines == [b"early"])
        time.sleep(0.05)
        attachment.write(b"late\n")
        assert eventually(lambda: lines == [b"early", b"late"])
        attachment.close_stdin()
        follower.join(10)
        reader.join(10)
    assert [line.text for line in seen] == [b"late"]
    assert not reader.is_alive()


def test_a_follower_that_stops_early_leaves_nothing_open(engine: Engine) -> None:
    box = engine.containers.create(IMAGE, ["sh", "-c", "echo x; sleep 1000"])
    box.start()
    assert eventually(lambda: texts(box))
    before = len(os.listdir("/proc/self/fd"))
    lines = box.logs(follow=True)
    assert next(lines).text == b"x"
    lines.close()  # type: ignore[attr-defined]
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_log_is_rotated_at_its_size(engine: Engine) -> None:
    box = ended(engine, "seq 1 3000", log_opt={"max-size": "20k", "max-file": "2"})
    directory = os.path.dirname(box.log_path)
    names = sorted(name for name in os.listdir(directory) if name.startswith("ctr.log"))
    assert names == ["ctr.log", "ctr.log.1", "ctr.log.2"]
    assert all(os.path.getsize(f"{directory}/{name}") < 20480 + 60 for name in names)
    lines = texts(box)
    assert lines == [str(number).encode() for number in range(3001 - len(lines), 3001)]
    assert len(lines) > 300


def test_following_survives_rotation(engine: Engine) -> None:
    box = engine.containers.create(
        IMAGE,
        ["sh", "-c", "for i in $(seq 1 40); do seq $((i*100)) $((i*100+99)); sleep 0.02; done"],
        log_opt=["max-size=100k", "max-file=3"],
    )
    box.start()
    assert texts(box, follow=True) == [str(number).encode() for number in range(100, 4100)]
    assert os.path.exists(f"{box.log_path}.1")


def test_a_log_elsewhere(engine: Engine, tmp_path: os.PathLike[str]) -> None:
    path = f"{tmp_path}/my.log"
    box = ended(engine, "echo x", log_opt=[f"path={path}"])
    assert box.log_path == path
    with open(path) as file:
        assert file.read().endswith(" stdout F x\n")
    box.remove()
    assert os.path.exists(path)


def test_no_log(engine: Engine) -> None:
    box = ended(engine, "echo x", log_driver="none")
    assert box.log_path == ""
    with pytest.raises(
        InvalidValue, match=f"container {box.name} keeps no log: it was created with the log driver none"
    ):
        box.logs()
    assert not os.path.exists(f"{engine.root}/containers/{box.id}/ctr.log")


def test_options_that_cannot_be(engine: Engine) -> None:
    with pytest.raises(InvalidValue, match="log driver 'syslog': expected one of"):
        engine.containers.create(IMAGE, ["true"], log_driver="syslog")
    with pytest.raises(InvalidValue, match="log option 'color': expected path, max-size or max-file"):
        engine.containers.create(IMAGE, ["true"], log_opt=["color=red"])


def test_a_terminals_log_is_all_stdout_with_its_returns(engine: Engine) -> None:
    box = ended(engine, "echo one; echo two >&2", tty=True)
    assert [(line.stream, line.text) for line in box.logs()] == [("stdout", b"one\r"), ("stdout", b"two\r")]
