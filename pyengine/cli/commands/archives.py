"""load, import, save."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, cast

import click

from pyengine.cli import output
from pyengine.cli.arguments import Command, switch, value, words
from pyengine.cli.progress import shown
from pyengine.cli.session import Session
from pyengine.errors import InvalidValue

if TYPE_CHECKING:
    from pyengine.engine.images import Format

_QUIET = "Do not show progress"


@click.pass_obj
def load(session: Session, /, *, names: tuple[str, ...], input: str, quiet: bool) -> int:
    if len(names) > 1:
        raise InvalidValue("at most one name can be given")
    where = _source(input, "an archive: use --input FILE, or redirect stdin")
    with where as source, session.engine() as engine:
        with shown("Loading", quiet=quiet) as progress:
            images = engine.images.load(source, name=names[0] if names else None, progress=progress)
        loaded = [name for image in images for name in image.names or [f"@{image.id}"]]
    output.line(f"Loaded image(s): {', '.join(output.visible(name) for name in loaded)}")
    return 0


@click.pass_obj
def import_(session: Session, /, *, names: tuple[str, ...], change: tuple[str, ...], message: str, quiet: bool) -> int:
    if not 1 <= len(names) <= 2:
        raise InvalidValue("import needs a tarball (- for stdin), and at most one name for the image")
    where = _source("" if names[0] == "-" else names[0], "a tarball: name a file, or redirect stdin")
    reference = names[1] if len(names) == 2 else None
    with where as source, session.engine() as engine, shown("Importing", quiet=quiet) as progress:
        image = engine.images.import_(source, reference, changes=change, message=message, progress=progress)
    output.line(image.id)
    return 0


@click.pass_obj
def save(session: Session, /, *, names: tuple[str, ...], output_file: str, format: Format, quiet: bool) -> int:
    from pyengine.cli.terminal import ending_raises, handlers

    if not names:
        raise InvalidValue("an image has to be named")
    if not output_file and output.is_terminal(sys.stdout):
        raise InvalidValue("an archive is not written to a terminal: use --output FILE, or redirect stdout")
    target = output_file or sys.stdout.buffer
    with session.engine() as engine, handlers(ending_raises()), shown("Saving", quiet=quiet) as progress:
        engine.images.save(names, target, format=format, progress=progress)
    return 0


@contextmanager
def _source(path: str, what: str) -> Iterator[str | BinaryIO]:
    """What to read, for the time of a transfer, which any signal that ends this process unwinds."""
    from pyengine.cli.files import Input
    from pyengine.cli.terminal import ending_raises, handlers, stdin_or_none

    if path:
        with handlers(ending_raises()):
            yield path
        return
    fd = stdin_or_none()
    if fd is None or output.is_terminal(sys.stdin):
        raise InvalidValue(f"a terminal is not {what}")
    with Input(fd) as input, handlers(ending_raises(first=input.cancel)):
        yield cast(BinaryIO, input)


COMMANDS = {
    "load": Command(
        "load",
        callback=load,
        help="Load images from a docker-archive, an oci-archive or a directory of either kind, compressed or not.",
        params=[
            value("--input", "-i", default="", metavar="FILE", help="Where it is (default: stdin)"),
            switch("--quiet", "-q", help=_QUIET),
            words("names", metavar="[NAME]"),
        ],
    ),
    "import": Command(
        "import",
        callback=import_,
        help="Make an image of a tarball of a root file system (- is stdin), compressed or not.",
        params=[
            value("--change", "-c", multiple=True, metavar="INSTRUCTION", help="Such as CMD=/bin/sh or ENV=K=V"),
            value(
                "--message",
                "-m",
                default="imported from tarball",
                metavar="TEXT",
                help="The comment of the image's history",
            ),
            switch("--quiet", "-q", help=_QUIET),
            words("names", metavar="FILE|- [NAME]"),
        ],
    ),
    "save": Command(
        "save",
        callback=save,
        help="Save images to an archive.",
        params=[
            value("--output", "-o", "output_file", default="", metavar="FILE", help="Where to (default: stdout)"),
            value(
                "--format",
                type=click.Choice(["docker-archive", "oci-archive"]),
                default="docker-archive",
                metavar="FORMAT",
                help="docker-archive (default) or oci-archive",
            ),
            switch("--quiet", "-q", help=_QUIET),
            words("names", metavar="IMAGE..."),
        ],
    ),
}
