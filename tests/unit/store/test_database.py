from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyengine.errors import AmbiguousName, ContainerNotFound, ImageNotFound, NameInUse, StoreError
from pyengine.store.containers import Containers
from pyengine.store.database import SCHEMA_VERSION, Database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(str(tmp_path / "engine.db"))
    yield opened
    opened.close()


def test_a_newer_store_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = str(tmp_path / "engine.db")
    Database(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(StoreError, match="has version 2, this pyengine knows versions up to 1: use the newer"):
        Database(path)


def test_another_database_and_garbage_are_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(StoreError, match="not one of pyengine"):
        Database(str(tmp_path / "other.db"))
    (tmp_path / "garbage.db").write_bytes(b"garbage" * 1000)
    with pytest.raises(StoreError, match="not a database"):
        Database(str(tmp_path / "garbage.db"))
    with pytest.raises(StoreError, match="unable to open"):
        Database(str(tmp_path / "missing" / "engine.db"))


def insert_and_fail(cursor: sqlite3.Cursor) -> None:
    cursor.execute("INSERT INTO volumes VALUES ('v', '{}', 1)")
    cursor.execute("INSERT INTO nowhere VALUES (1)")


def test_a_transaction_is_all_or_nothing(database: Database) -> None:
    for durable in (False, True):
        with pytest.raises(StoreError, match="no such table: nowhere"), database.transaction(durable=durable) as cursor:
            insert_and_fail(cursor)
        assert database.query("SELECT * FROM volumes") == []
    with database.transaction() as cursor:
        cursor.execute("INSERT INTO volumes VALUES ('v', '{}', 1)")
    assert database.query("SELECT name FROM volumes") == [("v",)]
    assert database.query("PRAGMA synchronous") == [(1,)]
    database.check()


def test_damage_is_found(tmp_path: Path) -> None:
    path = tmp_path / "engine.db"
    opened = Database(str(path))
    with opened.transaction() as cursor:
        cursor.executemany("INSERT INTO volumes VALUES (?, ?, 1)", [(f"v{n}", "x" * 500) for n in range(200)])
    opened.close()
    data = bytearray(path.read_bytes())
    for page in range(len(data) // 4096 - 12, len(data) // 4096):
        data[page * 4096 : page * 4096 + 40] = b"\xff" * 40
    path.write_bytes(bytes(data))
    opened = Database(str(path))
    try:
        with pytest.raises(StoreError, match=r"is damaged|malformed"):
            opened.check()
    finally:
        opened.close()


def test_many_threads_and_processes_share_it(database: Database) -> None:
    script = (
        "import sys; from pyengine.store.database import Database\n"
        "d = Database(sys.argv[1])\n"
        "for n in range(50):\n"
        "  with d.transaction() as c: c.execute('INSERT INTO volumes VALUES (?, 1, 1)', (f'{sys.argv[2]}-{n}',))\n"
        "d.close()"
    )
    processes = [subprocess.Popen([sys.executable, "-c", script, database.path, f"p{n}"]) for n in range(3)]

    def insert(thread: int) -> None:
        for n in range(50):
            with database.transaction() as cursor:
                cursor.execute("INSERT INTO volumes VALUES (?, 1, 1)", (f"t{thread}-{n}",))

    threads = [threading.Thread(target=insert, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert database.query("SELECT count(*) FROM volumes") == [(350,)]


def test_many_processes_may_make_the_same_store_at_once(tmp_path: Path) -> None:
    script = "import sys; from pyengine.store.database import Database; Database(sys.argv[1]).close()"
    path = str(tmp_path / "engine.db")
    processes = [subprocess.Popen([sys.executable, "-c", script, path]) for _ in range(6)]
    assert [process.wait(60) for process in processes] == [0] * 6


def test_containers_are_found_by_id_then_name_then_prefix(database: Database) -> None:
    containers = Containers(database)
    first = containers.add("aaa1", "bbb", "{}", 1)
    second = containers.add("aaa2", "aaa", "{}", 2)
    third = containers.add("bbb2", "third", '{"x": 1}', 3)
    assert containers.find("aaa1") == first
    assert containers.find("aaa") == second
    assert containers.find("bbb") == first
    assert containers.find("bbb2") == containers.get("bbb2") == third
    assert containers.find("b") == third
    assert [one.id for one in containers.all()] == ["aaa1", "aaa2", "bbb2"]
    for text, reason in (("thir", "no such container"), ("AAA1", "no such container"), ("", "cannot be empty")):
        with pytest.raises(ContainerNotFound, match=reason) as caught:
            containers.find(text)
        assert caught.value.id == text
    with pytest.raises(AmbiguousName, match="container already exists"):
        containers.find("aa")


def test_a_name_belongs_to_one_container_or_pod(database: Database) -> None:
    containers = Containers(database)
    containers.add("id1", "one", "{}", 1)
    with pytest.raises(NameInUse, match="in use by id1"):
        containers.add("id2", "one", "{}", 1)
    with database.transaction() as cursor:
        cursor.execute("INSERT INTO names_in_use VALUES ('pod', 'pod', 'pod-id')")
    with pytest.raises(NameInUse, match="in use by pod-id"):
        containers.add("id2", "pod", "{}", 1)
    with pytest.raises(ContainerNotFound, match="no such container"):
        containers.find("pod")
    with pytest.raises(NameInUse, match="in use by id1"):
        containers.add("id1", "other", "{}", 1)
    containers.rename("id1", "renamed")
    containers.add("id2", "one", "{}", 1)
    with pytest.raises(NameInUse, match="in use by id1"):
        containers.rename("id2", "renamed")
    assert containers.find("one").id == "id2"
    containers.remove("id2")
    containers.add("id3", "one", "{}", 1)
    containers.update_config("id3", '{"a": 1}')
    assert containers.get("id3").config == '{"a": 1}'
    for call in (lambda: containers.remove("x"), lambda: containers.rename("x", "y"), lambda: containers.get("x")):
        with pytest.raises(ContainerNotFound, match="no such container"):
            call()
    with pytest.raises(ContainerNotFound, match="no such container"):
        containers.update_config("x", "{}")


def test_a_container_cannot_stand_on_an_image_that_is_gone(database: Database) -> None:
    with pytest.raises(ImageNotFound, match="no such image"):
        Containers(database).add("id", "name", "{}", 1, image="gone")
    with pytest.raises(ImageNotFound, match="layer 5 was removed"):
        Containers(database).add("id", "name", "{}", 1, layer=5)
    assert Containers(database).all() == []


def test_a_store_is_not_used_across_a_fork(tmp_path: Path) -> None:
    database = Database(str(tmp_path / "engine.db"))
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:  # the child: nothing of pytest may run in it
        try:
            database.query("SELECT 1")
        except StoreError as error:
            os.write(writing, str(error).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with os.fdopen(reading, "rb") as answer:
        assert b"was opened before this process was forked: open an Engine of its own" in answer.read()
    assert database.query("SELECT 1") == [(1,)]
    database.close()
