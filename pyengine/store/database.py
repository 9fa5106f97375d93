"""The database of a store: what was asked for, in SQLite.

One connection serves all threads of a process under a lock, because transactions are short by rule: nothing long
happens inside one. Between processes SQLite's own lock on the write-ahead log does the same. ``NORMAL`` is the usual
durability: a crash of any process loses nothing that was committed; a power cut may lose the last transactions, but
never their order. Transactions that name content just made durable ask for ``durable=True`` and survive that as well.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pyengine.errors import StoreError

SCHEMA_VERSION = 1
_BUSY_SECONDS = 60.0

_SCHEMA = """
CREATE TABLE layers (
    n         INTEGER PRIMARY KEY AUTOINCREMENT,
    chain_id  TEXT NOT NULL UNIQUE,
    diff_id   TEXT NOT NULL,
    parent    INTEGER REFERENCES layers (n),
    size      INTEGER NOT NULL
);
CREATE TABLE images (
    n             INTEGER PRIMARY KEY AUTOINCREMENT,
    id            TEXT NOT NULL UNIQUE,
    digest        TEXT NOT NULL,
    media_type    TEXT NOT NULL,
    manifest      BLOB NOT NULL,
    config        BLOB NOT NULL,
    size          INTEGER NOT NULL,
    created_ns    INTEGER NOT NULL
);
CREATE TABLE image_layers (
    image     TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    position  INTEGER NOT NULL,
    layer     INTEGER NOT NULL REFERENCES layers (n),
    PRIMARY KEY (image, position)
) WITHOUT ROWID;
CREATE INDEX image_layers_by_layer ON image_layers (layer);
CREATE TABLE image_blobs (
    image   TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    digest  TEXT NOT NULL,
    diff_id TEXT,
    PRIMARY KEY (image, digest)
) WITHOUT ROWID;
CREATE INDEX image_blobs_by_digest ON image_blobs (digest);
CREATE TABLE names (
    name      TEXT PRIMARY KEY,
    image     TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    position  INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX names_by_image ON names (image, position);
CREATE TABLE names_in_use (
    name   TEXT PRIMARY KEY,
    kind   TEXT NOT NULL,
    owner  TEXT NOT NULL
) WITHOUT ROWID;
CREATE UNIQUE INDEX names_in_use_by_owner ON names_in_use (kind, owner);
CREATE TABLE containers (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    config      TEXT NOT NULL,
    created_ns  INTEGER NOT NULL,
    image       TEXT REFERENCES images (id),
    layer       INTEGER REFERENCES layers (n)
) WITHOUT ROWID;
CREATE INDEX containers_by_image ON containers (image);
CREATE INDEX containers_by_layer ON containers (layer);
CREATE TABLE volumes (
    name        TEXT PRIMARY KEY,
    config      TEXT NOT NULL,
    created_ns  INTEGER NOT NULL
) WITHOUT ROWID;
"""


class Database:
    """The open database file ``path``. Safe for many threads; many processes may have it open.

    :raises StoreError: if the file is not a database of ours, is damaged, or was made by a newer version
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._process = os.getpid()
        try:
            self._connection = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
            )
        except sqlite3.Error as error:
            raise StoreError(f"open database {path}: {error}") from error
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._connection.close()
            raise StoreError(f"open database {path}: {error}") from error
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        execute = self._connection.execute
        execute("PRAGMA foreign_keys = ON")
        if execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = NORMAL")
        version = execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            self._create()
        elif version > SCHEMA_VERSION:
            raise StoreError(
                f"the store {self.path} has version {version}, this pyengine knows versions up to {SCHEMA_VERSION}: "
                "use the newer pyengine that made it, or another root directory"
            )

    def _create(self) -> None:
        with self.transaction() as cursor:
            # Another process may have been first while this one waited for the lock.
            if cursor.execute("PRAGMA user_version").fetchone()[0] != 0:
                return
            if cursor.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise StoreError(f"{self.path} is a database, but not one of pyengine: use another root directory")
            for statement in _SCHEMA.split(";"):
                cursor.execute(statement)
            cursor.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _check_process(self) -> None:
        """SQLite's locks belong to the process that took them, so a connection must not be used across a fork."""
        if os.getpid() != self._process:
            raise StoreError(
                f"the store {self.path} was opened before this process was forked: open an Engine of its own here"
            )

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[sqlite3.Cursor]:
        """A write transaction: committed at the end of the block, rolled back if it raises.

        It holds the lock of the whole store from the start (``BEGIN IMMEDIATE``), so that what is read in it stays
        true until it ends. ``durable``: the commit is on the disk when the block is left.
        """
        self._check_process()
        with self._lock:
            cursor = self._connection.cursor()
            try:
                if durable:
                    cursor.execute("PRAGMA synchronous = FULL")
                cursor.execute("BEGIN IMMEDIATE")
                try:
                    yield cursor
                except BaseException:
                    cursor.execute("ROLLBACK")
                    raise
                self._commit(cursor)
            except sqlite3.OperationalError as error:
                raise StoreError(f"database {self.path}: {error}") from error
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.IntegrityError):
                    raise
                raise StoreError(f"database {self.path}: {error}") from error
            finally:
                if durable:
                    cursor.execute("PRAGMA synchronous = NORMAL")
                cursor.close()

    @staticmethod
    def _commit(cursor: sqlite3.Cursor) -> None:
        try:
            cursor.execute("COMMIT")
        except sqlite3.Error:
            # A full disk may or may not have ended the transaction already.
            if cursor.connection.in_transaction:
                cursor.execute("ROLLBACK")
            raise

    def query(self, sql: str, parameters: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
        """All rows of a read-only statement; it sees one consistent state."""
        self._check_process()
        with self._lock:
            try:
                return self._connection.execute(sql, parameters).fetchall()
            except sqlite3.DatabaseError as error:
                raise StoreError(f"database {self.path}: {error}") from error

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Cursor]:
        """A read transaction: several statements that all see one state. Writers are not held up by it."""
        self._check_process()
        with self._lock:
            cursor = self._connection.cursor()
            try:
                cursor.execute("BEGIN")
                try:
                    yield cursor
                finally:
                    cursor.execute("COMMIT")
            except sqlite3.OperationalError as error:
                raise StoreError(f"database {self.path}: {error}") from error
            finally:
                cursor.close()

    def check(self) -> None:
        """Read the whole file; :class:`StoreError` if SQLite finds damage in it."""
        for (answer,) in self.query("PRAGMA integrity_check"):
            if answer != "ok":
                raise StoreError(f"database {self.path} is damaged: {answer}")

    def close(self) -> None:
        """Close the connection. Calling it again does nothing."""
        if os.getpid() != self._process:
            return  # the parent's
        with self._lock:
            self._connection.close()
