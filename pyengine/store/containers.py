"""The containers that a store knows: their names and what was asked for, as JSON text that only the engine reads."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pyengine.errors import AmbiguousName, ContainerNotFound, ImageNotFound, NameInUse
from pyengine.store.database import Database
from pyengine.store.work import WorkDirectory

_SELECT = "SELECT id, name, config, created_ns, image, layer FROM containers "


@dataclass(frozen=True, slots=True)
class ContainerRecord:
    """A row: ``config`` is JSON text, ``created_ns`` nanoseconds since 1970, ``image`` the ID of the image and
    ``layer`` the number of the top layer that it stands on, if any."""

    id: str
    name: str
    config: str
    created_ns: int
    image: str | None
    layer: int | None


class Containers:
    """The rows of containers. Names are shared with pods: one name space."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self,
        id: str,
        name: str,
        config: str,
        created_ns: int,
        *,
        image: str | None = None,
        layer: int | None = None,
        place: Callable[[], None] | None = None,
    ) -> ContainerRecord:
        """Claim ``name`` and add the container, in one transaction.

        ``place`` renames the container's directory into place inside the transaction: a directory that no row names
        while somebody else holds the transaction was left by a crash.
        ``image`` and ``layer`` keep that image and that layer, with all below it, from being removed.

        :raises NameInUse: the name or the ID belongs to another container or pod
        :raises ImageNotFound: the image or the layer is gone by now
        """
        with self._database.transaction() as cursor:
            claim_name(cursor, name, "container", id)
            if cursor.execute("SELECT 1 FROM containers WHERE id = ?", (id,)).fetchone():
                raise NameInUse(id, id)
            _check_image(cursor, image, layer)
            cursor.execute(
                "INSERT INTO containers (id, name, config, created_ns, image, layer) VALUES (?, ?, ?, ?, ?, ?)",
                (id, name, config, created_ns, image, layer),
            )
            if place is not None:
                place()
        return ContainerRecord(id, name, config, created_ns, image, layer)

    def get(self, id: str) -> ContainerRecord:
        """The container with exactly this ID."""
        rows = self._database.query(_SELECT + "WHERE id = ?", (id,))
        if not rows:
            raise ContainerNotFound(id, f"no container with ID {id} found: no such container")
        return _record(rows[0])

    def find(self, name_or_prefix: str) -> ContainerRecord:
        """Look a container up: exact ID, else exact name, else a prefix that only one ID has.

        :raises ContainerNotFound: nothing matches, or the name is a pod's
        :raises AmbiguousName: several IDs have the prefix
        """
        text = name_or_prefix
        if not text:
            raise ContainerNotFound(text, "name or ID cannot be empty")
        with self._database.snapshot() as cursor:
            for condition in ("WHERE id = ?", "WHERE name = ?"):
                row = cursor.execute(_SELECT + condition, (text,)).fetchone()
                if row:
                    return _record(row)
            rows = []
            if not cursor.execute("SELECT 1 FROM names_in_use WHERE name = ?", (text,)).fetchone():
                rows = cursor.execute(_SELECT + "WHERE substr(id, 1, length(?1)) = ?1 LIMIT 2", (text,)).fetchall()
        if not rows:
            raise ContainerNotFound(text, f"no container with name or ID {text} found: no such container")
        if len(rows) > 1:
            raise AmbiguousName(text, f"more than one result for container ID {text}: container already exists")
        return _record(rows[0])

    def all(self) -> list[ContainerRecord]:
        """Every container, ordered by ID."""
        return [_record(row) for row in self._database.query(_SELECT + "ORDER BY id")]

    def remove(self, id: str) -> None:
        """Forget the container and free its name; :class:`ContainerNotFound` if it is not there."""
        with self._database.transaction() as cursor:
            cursor.execute("DELETE FROM names_in_use WHERE kind = 'container' AND owner = ?", (id,))
            if cursor.execute("DELETE FROM containers WHERE id = ?", (id,)).rowcount == 0:
                raise ContainerNotFound(id, f"no container with ID {id} found: no such container")

    def rename(self, id: str, name: str) -> None:
        """Give the container another name; :class:`NameInUse` if it is taken."""
        with self._database.transaction() as cursor:
            cursor.execute("DELETE FROM names_in_use WHERE kind = 'container' AND owner = ?", (id,))
            claim_name(cursor, name, "container", id)
            if cursor.execute("UPDATE containers SET name = ? WHERE id = ?", (name, id)).rowcount == 0:
                raise ContainerNotFound(id, f"no container with ID {id} found: no such container")

    def update_config(self, id: str, config: str) -> None:
        """Replace the container's JSON text."""
        with self._database.transaction() as cursor:
            if cursor.execute("UPDATE containers SET config = ? WHERE id = ?", (config, id)).rowcount == 0:
                raise ContainerNotFound(id, f"no container with ID {id} found: no such container")

    def remove_debris(self, directory: str, work: WorkDirectory) -> None:
        """Move every directory of a container that no row names into ``work``, to go with it."""
        with self._database.transaction() as cursor:
            known = {str(id) for (id,) in cursor.execute("SELECT id FROM containers")}
            for name in os.listdir(directory):
                if name not in known:
                    os.rename(f"{directory}/{name}", work.new_path("debris"))

    def using_image(self, image: str) -> list[str]:
        """The IDs of the containers that were made from the image with this ID."""
        rows = self._database.query("SELECT id FROM containers WHERE image = ? ORDER BY id", (image,))
        return [str(id) for (id,) in rows]


def claim_name(cursor: sqlite3.Cursor, name: str, kind: str, owner: str) -> None:
    """Take a name of the name space that containers and pods share; :class:`NameInUse` if it is taken.

    The unique index decides, so that two processes cannot both have it.
    """
    try:
        cursor.execute("INSERT INTO names_in_use (name, kind, owner) VALUES (?, ?, ?)", (name, kind, owner))
    except sqlite3.IntegrityError as error:
        row = cursor.execute("SELECT owner FROM names_in_use WHERE name = ?", (name,)).fetchone()
        raise NameInUse(name, row[0] if row else owner) from error


def _check_image(cursor: sqlite3.Cursor, image: str | None, layer: int | None) -> None:
    if image is not None and not cursor.execute("SELECT 1 FROM images WHERE id = ?", (image,)).fetchone():
        raise ImageNotFound(image, f"unable to find '{image}' in local storage: no such image")
    if layer is not None and not cursor.execute("SELECT 1 FROM layers WHERE n = ?", (layer,)).fetchone():
        raise ImageNotFound(image or str(layer), f"layer {layer} was removed meanwhile: no such image")


def _record(row: Any) -> ContainerRecord:
    return ContainerRecord(*row)
