"""images, tag, rmi."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from pyengine.cli import output
from pyengine.cli.arguments import Command, switch, value, words
from pyengine.cli.failures import describe
from pyengine.cli.human import SECOND, describe_age, describe_moment, describe_size, format_rfc3339
from pyengine.cli.image_filters import make_filter, split_name
from pyengine.cli.session import Session
from pyengine.errors import ImageNotFound, InvalidValue, PyengineError

if TYPE_CHECKING:
    from pyengine.engine.engine import Engine
    from pyengine.engine.images import Image

_COLUMNS = {"Repository": "REPOSITORY", "Tag": "TAG", "ID": "IMAGE ID", "CreatedSince": "CREATED", "Size": "SIZE"}
_HEADINGS = {**_COLUMNS, "Id": "IMAGE ID", "Created": "CREATED", "CreatedAt": "CREATED AT", "Digest": "DIGEST"}
Row = tuple["Image", str, str]  # an image, and repository and tag of one of its names

_SORT: dict[str, Callable[[Row], Any]] = {
    "created": lambda row: -row[0].created_ns,
    "id": lambda row: row[0].id,
    "repository": lambda row: row[1:],
    "size": lambda row: row[0].size,
    "tag": lambda row: row[2],
}

ONLY_UNKNOWN = 1
SOME_FAILED = 2


@click.pass_obj
def images(
    session: Session,
    /,
    *,
    names: tuple[str, ...],
    all: bool,  # noqa: ARG001 - there are no intermediate images to hide
    digests: bool,
    filter: tuple[str, ...],
    format: str,
    no_trunc: bool,
    noheading: bool,
    quiet: bool,
    sort: str,
) -> int:
    if len(names) > 1:
        raise InvalidValue("at most one image can be named")
    now = time.time_ns()
    with session.engine() as engine:
        wanted = make_filter((*filter, *(f"reference={name}" for name in names)), engine.images.get)
        rows = [(image, *split) for image in engine.images.list() if wanted(image) for split in _names(image)]
        rows.sort(key=_SORT[sort])
        # labels are in the configurations, a file each: read only where they are asked for
        labels = {image.id: image.labels for image, _, _ in rows} if "{{" in format else {}
    if quiet and not format:
        output.write("".join(f"{id}\n" for id in dict.fromkeys(_id(image, no_trunc) for image, _, _ in rows)))
        return 0
    records = [_record(row, now, no_trunc, labels) for row in rows]
    if format:
        documents = [_document(image) for image in {image.id: image for image, _, _ in rows}.values()]
        output.print_records(records, format, documents=documents, headings=_HEADINGS, heading=not noheading)
        return 0
    fields = list(_COLUMNS)
    if digests:
        fields.insert(2, "Digest")
    output.print_table(
        [_HEADINGS[field] for field in fields], ([row[f] for f in fields] for row in records), heading=not noheading
    )
    return 0


def _names(image: Image) -> list[tuple[str, str]]:
    return [split_name(name) for name in image.names] or [("<none>", "<none>")]


def _id(image: Image, no_trunc: bool) -> str:
    return f"sha256:{image.id}" if no_trunc else image.short_id


def _document(image: Image) -> dict[str, Any]:
    return {
        "id": image.id,
        "names": list(image.names),
        "digest": image.digest,
        "created": format_rfc3339(image.created_ns),
        "size": image.size,
        "readonly": False,
    }


def _record(row: Row, now: int, no_trunc: bool, labels: Mapping[str, dict[str, str]]) -> dict[str, Any]:
    image, repository, tag = row
    age = describe_age(image.created_ns, now)
    return {
        "Id": image.id,
        "ID": _id(image, no_trunc),
        "Repository": repository,
        "Tag": tag,
        "Names": list(image.names),
        "Digest": image.digest,
        "CreatedSince": age,
        "Created": age,
        "CreatedAt": describe_moment(image.created_ns // SECOND * SECOND),
        "Size": describe_size(image.size),
        "Labels": labels.get(image.id, {}),
    }


@click.pass_obj
def tag(session: Session, /, *, names: tuple[str, ...]) -> int:
    if len(names) < 2:
        raise InvalidValue("tag needs an image and a name for it")
    with session.engine() as engine:
        image = engine.images.get(names[0])
        for name in names[1:]:
            engine.images.tag(image.id, name)
    return 0


@click.pass_obj
def rmi(session: Session, /, *, names: tuple[str, ...], all: bool, force: bool) -> int:
    if bool(names) == all:
        raise InvalidValue("--all and names contradict each other" if all else "an image has to be named")
    with session.engine() as engine:
        errors = _remove_all(engine, force) if all else list(_remove(engine, names, force))
    for error in errors:
        output.report(describe(error))
    if not errors:
        return 0
    return ONLY_UNKNOWN if {type(error) for error in errors} == {ImageNotFound} else SOME_FAILED


def _remove(engine: Engine, names: tuple[str, ...] | list[str], force: bool) -> Iterator[PyengineError]:
    for name in names:
        try:
            for line in engine.images.remove(name, force=force):
                output.line(line)
        except PyengineError as error:
            yield error


def _remove_all(engine: Engine, force: bool) -> list[PyengineError]:
    """An image with children goes after them, and a name at a time: until no round removes anything more."""
    before = None
    errors: list[PyengineError] = []
    while True:
        images = engine.images.list()
        left = {(image.id, tuple(image.names)) for image in images}
        if not left or left == before:
            return errors
        before = left
        errors = list(_remove(engine, [i.names[0] if len(i.names) > 1 else i.id for i in images], force))


COMMANDS = {
    "images": Command(
        "images",
        callback=images,
        help="List images, or those whose name holds a text.",
        params=[
            switch("--all", "-a", help="Intermediate images too (there are none before images are built)"),
            switch("--digests", help="With the digests of their manifests"),
            value(
                "--filter",
                "-f",
                multiple=True,
                metavar="KEY=VALUE",
                help="Only those for which this holds: before, since, dangling, label, reference, id",
            ),
            value("--format", default="", metavar="FORMAT", help="json, a Go template, or table and a Go template"),
            switch("--no-trunc", help="IDs in full"),
            switch("--noheading", "-n", help="No line with the names of the columns"),
            switch("--quiet", "-q", help="IDs only"),
            value("--sort", type=click.Choice(list(_SORT)), default="created", metavar="COLUMN", help=", ".join(_SORT)),
            words("names", metavar="[NAME]"),
        ],
    ),
    "tag": Command(
        "tag", callback=tag, help="Give an image more names.", params=[words("names", metavar="IMAGE NAME...")]
    ),
    "rmi": Command(
        "rmi",
        callback=rmi,
        help="Remove a name of an image, and with the last one the image. Exit code 1: no such image; 2: other errors.",
        params=[
            switch("--all", "-a", help="All images"),
            switch("--force", "-f", help="Also an image that has several names or containers: these are removed"),
            words("names", metavar="[IMAGE...]"),
        ],
    ),
}
