"""info, version, explain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from pyengine.cli import output
from pyengine.cli.arguments import Command, value, words
from pyengine.cli.container_options import container_options, engine_options
from pyengine.cli.session import Session


@click.pass_obj
def info(session: Session, /, *, format: str) -> int:
    with session.engine() as engine:
        document = engine.info()
    if format:
        _print_formatted(document, format)
        return 0
    import yaml

    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, default_flow_style=False)
    output.write(output.visible(text, lines=True))
    return 0


@click.pass_obj
def version(session: Session, /, *, format: str) -> int:  # noqa: ARG001
    # no engine is opened for this: it has to work where no store can be made
    from pyengine.engine.info import version as versions

    document = versions()
    if format:
        _print_formatted(document, format)
        return 0
    rows = [(f"{key}:", str(text)) for key, text in document.items()]
    output.write("".join(f"{text}\n" for text in output.align(rows)))
    return 0


def _print_formatted(document: Mapping[str, Any], format: str) -> None:
    from pyengine.cli.template import parse_template

    if format == "json":
        output.line(output.to_json(document, indent=2))
    else:
        output.line(output.visible(parse_template(format).render(document), lines=True))


@click.pass_obj
def explain(session: Session, /, *, names: tuple[str, ...], **values: Any) -> int:
    from pyengine.cli.commands.run import split

    options = split(names, engine_options(values))
    with session.engine() as engine:
        if set(options) == {"image"} and engine.containers.exists(names[0]):
            explanation = engine.containers.get(names[0]).explain()
        else:
            explanation = engine.explain(**options)
    output.write(f"{output.visible(explanation.text().rstrip(), lines=True)}\n")
    return 0


def _format() -> click.Option:
    return value("--format", "-f", default="", metavar="FORMAT", help="json or a Go template")


COMMANDS = {
    "info": Command(
        "info",
        callback=info,
        help="Show what this machine gives the engine, and where the store is.",
        params=[_format()],
    ),
    "version": Command("version", callback=version, help="Show the versions.", params=[_format()]),
    "explain": Command(
        "explain",
        callback=explain,
        help="Show what a container is made of, or would be: OCI spec, plan, layers, namespaces and cgroup.",
        interspersed=False,
        help_names=("--help",),
        params=[*container_options(), words("names", metavar="CONTAINER|IMAGE [COMMAND [ARG...]]")],
    ),
}
