"""ps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from pyengine.cli import output
from pyengine.cli.arguments import Command, switch, value
from pyengine.cli.containers import parse_filters
from pyengine.cli.human import SECOND, describe_age, describe_moment, describe_size, format_rfc3339
from pyengine.cli.session import Session
from pyengine.errors import ContainerNotFound

if TYPE_CHECKING:
    from pyengine.engine.container import Container
    from pyengine.engine.engine import Engine
    from pyengine.engine.states import ContainerState

_COMMAND_LENGTH = 17
_COLUMNS = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "RunningFor": "CREATED",
    "Status": "STATUS",
    "Ports": "PORTS",
    "Names": "NAMES",
}
_HEADINGS = {**_COLUMNS, "Id": "CONTAINER ID", "ImageID": "IMAGE ID", "CreatedAt": "CREATED AT", "Size": "SIZE"}
_SORT: dict[str, Callable[[tuple[Container, ContainerState]], Any]] = {
    "command": lambda pair: pair[0].command,
    "created": lambda pair: pair[0].created_ns,
    "id": lambda pair: pair[0].id,
    "image": lambda pair: pair[0].image_name,
    "names": lambda pair: pair[0].name,
    "runningfor": lambda pair: pair[0].created_ns,
    "status": lambda pair: pair[1].status,
}


def describe_status(state: ContainerState, now: int) -> str:
    """What a person wants to know first: ``Up 3 minutes ago``, ``Exited (1) 2 hours ago``, ``Created``, ``Paused``."""
    if state.status == "running":
        return f"Up {describe_age(state.started_ns, now)}"
    if state.status in ("stopped", "exited"):
        return f"Exited ({state.exit_code}) {describe_age(state.finished_ns, now)}"
    return {"paused": "Paused", "configured": "Created", "created": "Created"}.get(state.status, "Error")


@click.pass_obj
def ps(
    session: Session,
    /,
    *,
    all: bool,
    filter: tuple[str, ...],
    format: str,
    last: int,
    latest: bool,
    no_trunc: bool,
    noheading: bool,
    quiet: bool,
    size: bool,
    sort: str,
) -> int:
    now = time.time_ns()
    with session.engine() as engine:
        found = []
        for container in _choose(engine, all, filter, last, latest):
            try:
                found.append((container, container.state()))
            except ContainerNotFound:
                continue  # removed meanwhile
        found.sort(key=_SORT[sort])
        sizes = {container.id: container.inspect(size=True) for container, _ in found} if size else {}
    if quiet and not format:
        output.write("".join(f"{_id(container, no_trunc)}\n" for container, _ in found))
        return 0
    records = [_record(container, state, now, no_trunc) for container, state in found]
    documents = [_document(container, state, now) for container, state in found]
    if size:
        for record, document in zip(records, documents, strict=True):
            written, whole = (sizes[record["Id"]].get(key, 0) for key in ("SizeRw", "SizeRootFs"))
            record["Size"] = f"{describe_size(written)} (virtual {describe_size(whole)})"
            document["Size"] = {"rootFsSize": whole, "rwSize": written}
    if format:
        output.print_records(records, format, documents=documents, headings=_HEADINGS, heading=not noheading)
        return 0
    columns = {**_COLUMNS, "Size": "SIZE"} if size else _COLUMNS
    output.print_table(
        list(columns.values()), ([record[field] for field in columns] for record in records), heading=not noheading
    )
    return 0


def _choose(engine: Engine, all: bool, filters: tuple[str, ...], last: int, latest: bool) -> list[Container]:
    if not latest and last < 1:
        return engine.containers.list(all=all or _names_a_state(filters), filters=parse_filters(filters))
    containers = engine.containers.list(all=True, filters=parse_filters(() if latest else filters))
    newest = sorted(containers, key=lambda container: container.created_ns, reverse=True)
    return newest[: 1 if latest else last]


def _names_a_state(filters: tuple[str, ...]) -> bool:
    # "ps --filter status=exited" without -a would never show anything
    return any(text.startswith(("status=", "exited=")) for text in filters)


def _id(container: Container, no_trunc: bool) -> str:
    return container.id if no_trunc else container.short_id


def _record(container: Container, state: ContainerState, now: int, no_trunc: bool) -> dict[str, Any]:
    command = " ".join(container.command)
    if not no_trunc and len(command) > _COMMAND_LENGTH:
        command = f"{command[:_COMMAND_LENGTH]}..."
    age = describe_age(container.created_ns, now)
    return {
        "Id": container.id,
        "ID": _id(container, no_trunc),
        "Names": container.name,
        "Image": container.image_name,
        "ImageID": container.image_id,
        "Command": command,
        "CreatedAt": describe_moment(container.created_ns),
        "Created": age,
        "RunningFor": age,
        "Status": describe_status(state, now),
        "State": state.status,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Ports": "",
        "Labels": container.labels,
        "Mounts": list(container.config.user_volumes),
        "Restarts": state.restarts,
    }


def _document(container: Container, state: ContainerState, now: int) -> dict[str, Any]:
    return {
        "Id": container.id,
        "Names": [container.name],
        "Image": container.image_name,
        "ImageID": container.image_id,
        "Command": list(container.command),
        "Created": container.created_ns // SECOND,
        "CreatedAt": format_rfc3339(container.created_ns),
        "State": state.status,
        "Status": describe_status(state, now),
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "StartedAt": format_rfc3339(state.started_ns) if state.started_ns else None,
        "ExitedAt": format_rfc3339(state.finished_ns) if state.finished_ns else None,
        "Ports": [],
        "Labels": container.labels,
        "Mounts": list(container.config.user_volumes),
        "Restarts": state.restarts,
    }


COMMANDS = {
    "ps": Command(
        "ps",
        callback=ps,
        help="List containers: those that run, or all of them.",
        params=[
            switch("--all", "-a", help="All, not only those that run"),
            value(
                "--filter",
                "-f",
                multiple=True,
                metavar="KEY=VALUE",
                help="Only those that match: id, name, label, status, ancestor, exited, before, since, volume",
            ),
            value("--format", default="", metavar="FORMAT", help="json, a Go template, or table and a Go template"),
            value("--last", "-n", type=int, default=-1, metavar="N", help="The N that were created last, in any state"),
            switch("--latest", "-l", help="The one that was created last, in any state"),
            switch("--no-trunc", help="IDs and commands in full"),
            switch("--noheading", help="No line with the names of the columns"),
            switch("--quiet", "-q", help="IDs only"),
            switch("--size", "-s", help="How much each wrote, and how large it is with its image"),
            value("--sort", type=click.Choice(list(_SORT)), default="created", metavar="COLUMN", help=", ".join(_SORT)),
        ],
    )
}
