"""images, tag, rmi, load, import, save, info, version, against an engine of the test's own."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fake_engine import SECOND, Engine, Image
from hypothesis import given
from hypothesis import strategies as st

from pyengine.cli.files import Input
from pyengine.cli.image_filters import split_name
from pyengine.errors import ArchiveError, ImageNotFound, InUse

NOW = time.time_ns()
BOX = Image(
    "ab" * 32, ("docker.io/library/box:1", "localhost:5000/x/box:2"), NOW - 3 * 3600 * SECOND, labels={"a": "1"}
)
BARE = Image("cd" * 32, (), NOW - 20 * 86400 * SECOND, size=170_000_000)


@pytest.fixture
def engine() -> Engine:
    engine = Engine()
    engine.images.all = [BARE, BOX]
    return engine


def test_images_has_a_line_a_name_newest_first(engine: Engine) -> None:
    lines = engine.run("images").stdout.splitlines()
    assert lines == [
        "REPOSITORY             TAG     IMAGE ID      CREATED      SIZE",
        "docker.io/library/box  1       abababababab  3 hours ago  5.86 MB",
        "localhost:5000/x/box   2       abababababab  3 hours ago  5.86 MB",
        "<none>                 <none>  cdcdcdcdcdcd  2 weeks ago  170 MB",
    ]


def test_images_options(engine: Engine) -> None:
    assert engine.run("images", "-q").stdout == "abababababab\ncdcdcdcdcdcd\n"
    assert engine.run("images", "-q", "--no-trunc").stdout == f"sha256:{BOX.id}\nsha256:{BARE.id}\n"
    assert engine.run("images", "--noheading", "--sort", "size").stdout.split()[-2:] == ["170", "MB"]
    assert BOX.digest in engine.run("images", "--digests").stdout
    assert engine.run("images", "-a").stdout == engine.run("images").stdout
    assert engine.run("images", "--format", "{{.Repository}}:{{.Tag}} {{.Labels}}", "box:1").stdout.splitlines() == [
        "docker.io/library/box:1 map[a:1]",
        "localhost:5000/x/box:2 map[a:1]",
    ]


def test_images_json_has_facts(engine: Engine) -> None:
    first, second = json.loads(engine.run("images", "--format=json").stdout)
    assert set(first) == {"id", "names", "digest", "created", "size", "readonly"}
    assert (first["id"], first["names"], first["size"]) == (BOX.id, list(BOX.names), BOX.size)
    assert second["names"] == []


@pytest.mark.parametrize(
    ("filter", "found"),
    [
        ("dangling=true", [BARE]),
        ("dangling=false", [BOX]),
        ("label=a", [BOX]),
        ("label=a=1", [BOX]),
        ("label=a=2", []),
        ("reference=box", [BOX]),
        ("reference=*/library/*", [BOX]),
        ("reference=nope", []),
        (f"id={BARE.id}", [BARE]),
        (f"before={BOX.id}", [BARE]),
        (f"since={BARE.id}", [BOX]),
        (f"after={BARE.id}", [BOX]),
    ],
)
def test_images_can_be_filtered(engine: Engine, filter: str, found: list[Image]) -> None:
    expected = "".join(f"{image.short_id}\n" for image in found)
    assert engine.run("images", "-q", "--filter", filter).stdout == expected


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["images", "-f", "dangling"], "expected KEY=VALUE"),
        (["images", "-f", "dangling=maybe"], "expected true or false"),
        (["images", "-f", "color=red"], "expected one of before, since"),
        (["images", "-f", "before=nope"], "no such image"),
        (["images", "a", "b"], "at most one image can be named"),
        (["tag", "a"], "tag needs an image and a name"),
        (["rmi"], "an image has to be named"),
        (["rmi", "-a", "x"], "--all and names contradict each other"),
        (["load", "a", "b"], "at most one name"),
        (["import"], "import needs a tarball"),
        (["save"], "an image has to be named"),
        (["save", "--format=docker-dir", "x"], "'docker-dir' is not one of"),
    ],
)
def test_nonsense_is_refused(engine: Engine, args: list[str], text: str) -> None:
    result = engine.run(*args)
    assert (result.exit_code, result.stdout) == (125, "")
    assert text in result.stderr


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("docker.io/library/a:1", ("docker.io/library/a", "1")),
        ("localhost:5000/a:1", ("localhost:5000/a", "1")),
        ("localhost:5000/a", ("localhost:5000/a", "<none>")),
        ("a@sha256:" + "0" * 64, ("a", "<none>")),
    ],
)
def test_a_name_has_a_repository_and_a_tag(name: str, parts: tuple[str, str]) -> None:
    assert split_name(name) == parts


@given(
    st.from_regex(r"[a-z.]+(:[0-9]+)?(/[a-z]+){1,3}", fullmatch=True), st.from_regex(r"\w[\w.-]{0,20}", fullmatch=True)
)
def test_repository_and_tag_make_the_name_again(repository: str, tag: str) -> None:
    assert split_name(f"{repository}:{tag}") == (repository, tag)


def test_tag_gives_every_name(engine: Engine) -> None:
    assert engine.run("tag", "docker.io/library/box:1", "a", "b:2").exit_code == 0
    assert engine.calls == [("tag", BOX.id, "a"), ("tag", BOX.id, "b:2")]
    assert engine.run("tag", "nope", "a").exit_code == 125


def test_rmi_prints_what_was_done(engine: Engine) -> None:
    result = engine.run("rmi", "-f", BARE.id)
    assert (result.exit_code, result.stdout) == (0, f"Deleted: {BARE.id}\n")
    assert engine.calls == [("remove", BARE.id, True)]


@pytest.mark.parametrize(
    ("names", "code"), [(["nope"], 1), (["nope", "nada"], 1), (["used"], 2), (["nope", "used"], 2)]
)
def test_rmi_tells_unknown_from_other_errors(engine: Engine, names: list[str], code: int) -> None:
    engine.images.errors = {"used": InUse("image used is in use by 1 container")}
    result = engine.run("rmi", *names, BARE.id)
    assert (result.exit_code, result.stdout) == (code, f"Deleted: {BARE.id}\n")
    assert result.stderr.count("Error: ") == len(names)


def test_rmi_all_goes_on_until_nothing_more_can_go(engine: Engine) -> None:
    engine.images.errors = {BARE.id: InUse("image is in use")}
    result = engine.run("rmi", "-a")
    assert result.exit_code == 2
    assert engine.images.all == [BARE]
    assert result.stderr == "Error: image is in use\n"
    engine.images.errors = {}
    assert engine.run("rmi", "-a").exit_code == 0
    assert engine.images.all == []


@contextmanager
def stdin(data: bytes) -> Iterator[None]:
    """The process's own stdin, as a pipe with something in it."""
    before = os.dup(0)
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    os.dup2(reader, 0)
    os.close(reader)
    try:
        yield
    finally:
        os.dup2(before, 0)
        os.close(before)


def test_load_reads_a_file_or_stdin(engine: Engine) -> None:
    text = f"Loaded image(s): @{BARE.id}, docker.io/library/box:1, localhost:5000/x/box:2\n"
    result = engine.run("load", "-i", "a.tar")
    assert (result.exit_code, result.stdout) == (0, text)
    with stdin(b"bytes\xff"):
        assert engine.run("load", "-q", "name").stdout == text
    assert engine.calls == [("load", "a.tar", None, None), ("load", b"bytes\xff", "name", None)]


def test_import_makes_an_image_of_a_tarball(engine: Engine) -> None:
    engine.images.all = [BOX]
    result = engine.run("import", "-c", "CMD=/bin/sh", "--change", "ENV=A=b,c", "-m", "why", "r.tar", "box:1")
    assert (result.exit_code, result.stdout) == (0, f"{BOX.id}\n")
    with stdin(b"tar"):
        assert engine.run("import", "-").exit_code == 0
    assert engine.calls == [
        ("import", "r.tar", "box:1", ("CMD=/bin/sh", "ENV=A=b,c"), "why"),
        ("import", b"tar", None, (), "imported from tarball"),
    ]


def test_save_writes_a_file_or_stdout(engine: Engine) -> None:
    assert engine.run("save", "-o", "f.tar", "--format=oci-archive", "a", "b").stdout == ""
    assert engine.run("save", "a").stdout_bytes == b"\0archive"
    assert engine.calls == [("save", ("a", "b"), "f.tar", "oci-archive"), ("save", ("a",), "stream", "docker-archive")]


@pytest.mark.parametrize("args", [["load", "-i", "f"], ["import", "f"], ["save", "-o", "f", "x"]])
def test_a_transfer_that_fails_is_one_error(engine: Engine, args: list[str]) -> None:
    engine.images.error = ArchiveError("layer 1 ends in the middle of an entry")
    result = engine.run(*args)
    assert (result.exit_code, result.output) == (125, "Error: layer 1 ends in the middle of an entry\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("args", [["load", "-i", "f"], ["import", "f"], ["save", "-o", "f", "x"]])
def test_signals_unwind_a_transfer(engine: Engine, args: list[str], number: int, code: int) -> None:
    unwound: list[str] = []

    def transfer(*_: Any, **__: Any) -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        finally:
            unwound.append("cleaned up")

    engine.images.load = engine.images.import_ = engine.images.save = transfer  # type: ignore[assignment, method-assign]
    result = engine.run(*args)
    assert (result.exit_code, result.output, unwound) == (code, "", ["cleaned up"])
    assert engine.closed


def test_a_read_that_waits_can_be_cancelled() -> None:
    reader, writer = os.pipe()
    with Input(reader) as source:
        os.write(writer, b"abc")
        assert source.read(10) == b"abc"
        timer = threading.Timer(0.05, source.cancel)
        timer.start()
        with pytest.raises(OSError, match="canceled") as caught:
            source.read(10)
        assert caught.value.errno == errno.ECANCELED
        with pytest.raises(OSError, match="canceled"):
            source.read(10)
        timer.join()
        assert source.fileno() == reader
    source.cancel()
    os.write(writer, b"x")  # the descriptor is still open, it is not the source's to close
    assert os.read(reader, 1) == b"x"
    os.close(writer)
    with Input(reader) as source:
        assert source.read(10) == b""
    os.close(reader)


def test_info_is_yaml_json_or_a_field(engine: Engine) -> None:
    assert engine.run("info").stdout == "host:\n  kernel: '6.1'\n  cpus: 2\nstore:\n  root: /r\n"
    assert json.loads(engine.run("info", "--format", "json").stdout)["host"]["cpus"] == 2
    assert engine.run("info", "-f", "{{.host.kernel}}").stdout == "6.1\n"


def test_an_image_that_is_unknown_keeps_its_reason(engine: Engine) -> None:
    assert issubclass(ImageNotFound, LookupError)
    assert engine.run("rmi", "nope").stderr == "Error: unable to find 'nope' in local storage: no such image\n"
