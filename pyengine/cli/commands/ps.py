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
_SORT: dict[str, Callable[[dict[str, Any]], Any]] = {
    "command": lambda row: row["Command"],
    "created": lambda row: row["created_ns"],
    "id": lambda row: row["Id"],
    "image": lambda row: row["Image"],
    "names": lambda row: row["Names"],
    "runningfor": lambda row: row["created_ns"],
    "status": lambda row: row["Status"],
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
        rows = [_row(c, now, no_trunc, size) for c in _choose(engine, all, filter, last, latest)]
    rows.sort(key=_SORT[sort])
    if quiet and not format:
        output.write("".join(f"{row['ID']}\n" for row in rows))
        return 0
    if format:
        documents = [row["document"] for row in rows]
        output.print_records(rows, format, documents=documents, headings=_HEADINGS, heading=not noheading)
        return 0
    columns = {**_COLUMNS, "Size": "SIZE"} if size else _COLUMNS
    output.print_table(
        list(columns.values()), ([row[field] for field in columns] for row in rows), heading=not noheading
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


def _row(container: Container, now: int, no_trunc: bool, size: bool) -> dict[str, Any]:
    state = container.state()
    command = " ".join(container.command)
    if not no_trunc and len(command) > _COMMAND_LENGTH:
        command = f"{command[:_COMMAND_LENGTH]}..."
    row: dict[str, Any] = {
        "Id": container.id,
        "ID": container.id if no_trunc else container.short_id,
        "Names": container.name,
        "Image": container.image_name,
        "ImageID": container.image_id,
        "Command": command,
        "created_ns": container.created_ns,
        "CreatedAt": describe_moment(container.created_ns),
        "RunningFor": describe_age(container.created_ns, now),
        "Status": describe_status(state, now),
        "State": state.status,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Ports": "",
        "Labels": container.labels,
        "Mounts": list(container.config.user_volumes),
        "Restarts": state.restarts,
    }
    document = {
        "Id": container.id,
        "Names": [container.name],
        "Image": container.image_name,
        "ImageID": container.image_id,
        "Command": list(container.command),
        "Created": container.created_ns // SECOND,
        "CreatedAt": format_rfc3339(container.created_ns),
        "State": state.status,
        "Status": row["Status"],
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "StartedAt": format_rfc3339(state.started_ns) if state.started_ns else None,
        "ExitedAt": format_rfc3339(state.finished_ns) if state.finished_ns else None,
        "Labels": container.labels,
        "Mounts": row["Mounts"],
        "Restarts": state.restarts,
    }
    if size:
        sizes = container.inspect(size=True)
        written, whole = sizes.get("SizeRw", 0), sizes.get("SizeRootFs", 0)
        row["Size"] = f"{describe_size(written)} (virtual {describe_size(whole)})"
        document["Size"] = {"rootFsSize": whole, "rwSize": written}
    row["Created"] = row["RunningFor"]
    row["document"] = document
    return row


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
