"""Namespaces of each kind: own, the host's, another container's, one at a path."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from engines import IMAGE, ROOTLESS, eventually, out, sh

from pyengine import Engine
from pyengine.engine.container import Container
from pyengine.errors import ContainerNotFound, InvalidState, InvalidValue, PyengineError

pytestmark = pytest.mark.rootless

OPTIONS = {"pid": "pid", "net": "network", "ipc": "ipc", "uts": "uts", "cgroup": "cgroupns"}


def inside(engine: Engine, kind: str, **options: object) -> str:
    return out(engine, f"readlink /proc/self/ns/{kind}", **options)


@pytest.fixture
def other(engine: Engine) -> Iterator[Container]:
    """Another container that runs."""
    with engine.containers.create(IMAGE, ["sleep", "1000"], name="other", hostname="other", ipc="shareable") as box:
        box.start()
        yield box


def of_container(box: Container, kind: str) -> str:
    return box.exec(["readlink", f"/proc/1/ns/{kind}"]).stdout.decode().strip()


@pytest.mark.parametrize("kind", [*OPTIONS, "mnt"])
def test_a_container_has_namespaces_of_its_own(engine: Engine, other: Container, kind: str) -> None:
    found = inside(engine, kind)
    assert found != os.readlink(f"/proc/self/ns/{kind}")
    assert found != of_container(other, kind)


@pytest.mark.parametrize("kind", OPTIONS)
def test_the_hosts(engine: Engine, kind: str) -> None:
    assert inside(engine, kind, **{OPTIONS[kind]: "host"}) == os.readlink(f"/proc/self/ns/{kind}")


@pytest.mark.parametrize("kind", OPTIONS)
def test_another_containers(engine: Engine, other: Container, kind: str) -> None:
    options = {OPTIONS[kind]: "container:other"}
    assert inside(engine, kind, **options) == of_container(other, kind)
    box = engine.containers.create(IMAGE, ["sleep", "100"], **options)
    box.start()
    assert of_container(box, kind) == of_container(other, kind)


@pytest.mark.parametrize("kind", OPTIONS)
def test_one_at_a_path(engine: Engine, other: Container, kind: str) -> None:
    options = {OPTIONS[kind]: f"ns:/proc/{other.state().pid}/ns/{kind}"}
    assert inside(engine, kind, **options) == of_container(other, kind)


@pytest.mark.parametrize("kind", OPTIONS)
def test_what_cannot_be_joined(engine: Engine, kind: str) -> None:
    with pytest.raises(ContainerNotFound, match="nobody"):
        engine.containers.create(IMAGE, ["true"], **{OPTIONS[kind]: "container:nobody"})
    with pytest.raises(InvalidValue, match="the path has to be absolute"):
        engine.containers.create(IMAGE, ["true"], **{OPTIONS[kind]: "ns:relative"})
    with pytest.raises(PyengineError, match="/no/such/namespace"):
        sh(engine, "true", **{OPTIONS[kind]: "ns:/no/such/namespace"})
    engine.containers.create(IMAGE, ["true"], name="stopped")
    with pytest.raises(InvalidState, match="which does not run: start that first") as caught:
        sh(engine, "true", **{OPTIONS[kind]: "container:stopped"})
    assert caught.value.state == "configured"


def test_a_path_that_is_no_namespace_of_the_kind(engine: Engine, other: Container) -> None:
    with pytest.raises(PyengineError):
        sh(engine, "true", network=f"ns:/proc/{other.state().pid}/ns/uts")
    with pytest.raises(PyengineError):
        sh(engine, "true", network="ns:/etc/passwd")
    assert [box.name for box in engine.containers.list(all=True)] == ["other"]


def test_processes_of_another_container_are_seen_and_end_with_it(engine: Engine, other: Container) -> None:
    box = engine.containers.create(IMAGE, ["sleep", "2000"], pid="container:other")
    box.start()
    assert "sleep 1000" in box.exec(["ps", "-o", "args"]).stdout.decode()
    other.kill()
    assert box.wait(10) == 137


def test_the_hosts_processes_are_seen(engine: Engine) -> None:
    assert out(engine, f"cat /proc/{os.getpid()}/comm", pid="host")
    long = f"9{os.getpid()}"  # nobody else sleeps that long
    box = engine.containers.create(IMAGE, ["sh", "-c", f"sleep {long}1 & sleep {long}2"], pid="host")
    box.start()
    assert int(box.exec(["sh", "-c", "echo $$"]).stdout) > 2
    assert eventually(lambda: sh(engine, "ps -o args", pid="host").stdout.count(f"sleep {long}".encode()) >= 2)
    box.stop(0)
    assert f"sleep {long}".encode() not in sh(engine, "ps -o args", pid="host").stdout


def test_the_network_of_another_container_is_shared(engine: Engine, other: Container) -> None:
    box = engine.containers.create(IMAGE, ["nc", "-l", "-p", "1234"], network="container:other")
    box.start()
    assert eventually(lambda: b":04D2" in other.exec(["cat", "/proc/net/tcp", "/proc/net/tcp6"]).stdout)
    assert ":04D2" not in out(engine, "cat /proc/net/tcp /proc/net/tcp6")


def test_the_own_network_has_only_the_loopback(engine: Engine) -> None:
    assert out(engine, "ls /sys/class/net; cat /sys/class/net/lo/flags") == "lo\n0x9"


def test_names_of_another_container_are_shared(engine: Engine, other: Container) -> None:
    assert out(engine, "hostname", uts="container:other") == "other"


def test_the_cgroup_is_the_root_of_what_is_seen(engine: Engine) -> None:
    script = "grep ^0:: /proc/self/cgroup; ls -d /sys/fs/cgroup/cgroup.procs"
    assert out(engine, script) == "0::/\n/sys/fs/cgroup/cgroup.procs"
    assert sh(engine, "mkdir /sys/fs/cgroup/x").exit_code == 1
    result = sh(engine, "cat /proc/self/cgroup", cgroupns="host")
    assert result.container_id in result.stdout.decode()


def test_ids_that_are_mapped(engine: Engine) -> None:
    maps = ["0:0:1", "1:500:50"]
    text = out(engine, "cat /proc/self/uid_map; id -u; touch /x; stat -c %u /x", uidmap=maps)
    assert " ".join(text.split()) == "0 0 1 1 500 50 0 0"
    box = engine.containers.create(IMAGE, ["sleep", "100"], uidmap=maps, user="3:4")
    box.start()
    first = 100000 if "PYENGINE_VM" in os.environ else 200000  # of the subordinate ids, see tests/host and vm/run
    assert os.stat(f"/proc/{box.state().pid}").st_uid == (first + 502 - 1 if ROOTLESS else 502)
    assert box.exec(["id", "-u"]).stdout == b"3\n"
    assert of_container(box, "user") != inside(engine, "user")


def test_keep_id(engine: Engine) -> None:
    if ROOTLESS:
        assert out(engine, "id -u; id -g", userns="keep-id").split() == [str(os.getuid()), str(os.getgid())]
    else:
        with pytest.raises(InvalidValue, match="user namespace keep-id: root has no id to keep"):
            engine.containers.create(IMAGE, ["true"], userns="keep-id")


def test_without_mappings_the_user_namespace_is_the_hosts_or_the_users(engine: Engine) -> None:
    same = inside(engine, "user") == os.readlink("/proc/self/ns/user")
    assert same != ROOTLESS
    assert inside(engine, "user") == inside(engine, "user")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"network": "bridge"}, "networks need a bridge"),
        ({"pid": "private:x"}, "expected private, host, container:NAME, ns:PATH"),
        ({"ipc": "nothing"}, "expected private, shareable, host, none, container:NAME, ns:PATH"),
        ({"uidmap": ["0:0:1"], "userns": "keep-id"}, "contradict each other"),
        ({"userns": "private"}, "a private user namespace needs id mappings"),
        ({"uidmap": ["0:0:1", "0:5:1"]}, "0"),
    ],
)
def test_requests_that_cannot_be(engine: Engine, options: dict[str, object], text: str) -> None:
    with pytest.raises(InvalidValue, match=text):
        engine.containers.create(IMAGE, ["true"], **options)
