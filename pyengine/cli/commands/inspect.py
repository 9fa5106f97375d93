"""inspect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pyengine.cli import output
from pyengine.cli.arguments import Command, switch, value, words
from pyengine.cli.failures import describe
from pyengine.cli.session import Session
from pyengine.errors import ContainerNotFound, ImageNotFound, InvalidValue, NotFound, PyengineError

if TYPE_CHECKING:
    from pyengine.engine.engine import Engine

_ALIASES = {"ID": "Id", "ImageID": "Image", "Config.DomainName": "Domainname", "RepoTag": "RepoTags"}
"""Go's names of fields whose JSON keys are others."""


@click.pass_obj
def inspect(session: Session, /, *, names: tuple[str, ...], format: str, latest: bool, size: bool, type: str) -> int:
    from pyengine.cli import containers
    from pyengine.cli.template import parse_template

    if bool(names) == latest:
        raise InvalidValue("--latest and names contradict each other" if latest else "name a container or an image")
    template = parse_template(format, _ALIASES) if format not in ("", "json") else None
    documents: list[dict[str, Any]] = []
    code = 0
    with session.engine() as engine:
        if latest:
            documents.append(containers.latest(engine).inspect(size=size))
        for name in names:
            try:
                documents.append(_document(engine, name, type, size))
            except PyengineError as error:
                output.report(describe(error))
                code = 125
    if template is not None:
        output.write("".join(f"{output.visible(template.render(d), lines=True)}\n" for d in documents))
    else:
        output.line(output.to_json(documents, indent=4))
    return code


def _document(engine: Engine, name: str, type: str, size: bool) -> dict[str, Any]:
    if type != "image":
        try:
            document: dict[str, Any] = engine.containers.get(name).inspect(size=size)
            return document
        except ContainerNotFound:
            if type == "container":
                raise
    try:
        return engine.images.get(name).inspect()
    except ImageNotFound:
        if type == "image":
            raise
        raise NotFound(name, f"no container and no image is called {name!r}") from None


COMMANDS = {
    "inspect": Command(
        "inspect",
        callback=inspect,
        help="Show containers, else images, of these names in full.",
        params=[
            value("--format", "-f", default="", metavar="FORMAT", help="json (the default) or a Go template"),
            switch("--latest", "-l", help="The container that was created last"),
            switch("--size", "-s", help="With the sizes of containers"),
            value(
                "--type",
                "-t",
                type=click.Choice(["all", "container", "image"]),
                default="all",
                metavar="TYPE",
                help="Only a container, or only an image (default: all)",
            ),
            words("names", metavar="[CONTAINER|IMAGE...]"),
        ],
    )
}
