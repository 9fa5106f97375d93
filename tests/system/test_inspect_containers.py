"""The documents about real containers: inspect, explain, info, and the filters of list."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

import pytest

from pyengine.errors import ContainerNotFound, InvalidState, StartFailed

if TYPE_CHECKING:
    from pyengine import Engine

pytestmark = pytest.mark.rootless

LOOP = ["sh", "-c", "while :; do sleep 0.05; done"]


def test_inspect_follows_the_life_of_a_container(engine: Engine, image: str) -> None:
    box = engine.containers.create(image, ["sh", "-c", "while [ ! -e /stop ]; do sleep 0.05; done; exit 7"], name="box")
    before = box.inspect()
    assert (before["State"]["Status"], before["State"]["Pid"]) == ("configured", 0)
    assert before["HostnamePath"] == ""
    assert before["Path"] == "sh"
    box.start()
    during = box.inspect()
    state = during["State"]
    assert (state["Status"], state["Running"]) == ("running", True)
    assert os.path.exists(f"/proc/{state['Pid']}")
    assert os.path.exists(f"/proc/{state['ConmonPid']}")
    assert os.path.isfile(during["HostnamePath"])
    assert os.path.isdir(during["GraphDriver"]["Data"]["UpperDir"])
    for directory in during["GraphDriver"]["Data"]["LowerDir"].split(":"):
        assert os.path.isdir(directory)
    assert during["NetworkSettings"]["SandboxKey"] == f"/proc/{state['Pid']}/ns/net"
    assert os.path.isfile(during["OCIConfigPath"])
    box.exec(["touch", "/stop"])
    assert box.wait(timeout=10) == 7
    after = box.inspect()["State"]
    assert (after["Status"], after["ExitCode"], after["Pid"]) == ("exited", 7, 0)
    assert after["StartedAt"] < after["FinishedAt"]
    assert json.loads(json.dumps(during)) == during


def test_the_size_is_what_the_container_wrote(engine: Engine, image: str) -> None:
    box = engine.containers.create(image, ["dd", "if=/dev/zero", "of=/file", "bs=65536", "count=32"])
    assert "SizeRw" not in box.inspect()
    empty = box.inspect(size=True)
    box.start()
    assert box.wait(timeout=10) == 0
    full = box.inspect(size=True)
    assert full["SizeRw"] - empty.get("SizeRw", 0) >= 32 * 65536
    assert full["SizeRootFs"] == engine.images.get(image).record.layers[0].size + full["SizeRw"]


def test_the_size_counts_what_other_users_of_the_container_have_closed(engine: Engine, image: str) -> None:
    script = "mkdir -m 700 /tmp/mine; dd if=/dev/zero of=/tmp/mine/file bs=65536 count=16"
    box = engine.containers.create(image, ["sh", "-c", script], user="ann")
    box.start()
    assert box.wait(timeout=10) == 0
    assert box.inspect(size=True)["SizeRw"] >= 16 * 65536


def test_capabilities_and_limits_are_what_the_kernel_says(engine: Engine, image: str) -> None:
    with engine.containers.create(image, LOOP, cap_drop=["ALL"], cap_add=["chown"], ulimit=["nofile=64:128"]) as box:
        box.start()
        found = box.inspect()
        status = box.exec(["sh", "-c", "grep CapBnd /proc/self/status; ulimit -n; ulimit -Hn"]).stdout.decode().split()
    assert found["BoundingCaps"] == ["CAP_CHOWN"]
    assert status == ["CapBnd:", "0000000000000001", "64", "128"]
    assert {"Name": "RLIMIT_NOFILE", "Soft": 64, "Hard": 128} in found["HostConfig"]["Ulimits"]


def test_inspect_of_an_image_names_directories_that_are_there(engine: Engine, image: str) -> None:
    found = engine.images.get(image).inspect()
    assert found["RepoTags"] == [image]
    assert found["Config"]["Cmd"][0] == "/bin/sh"
    assert os.path.isdir(found["GraphDriver"]["Data"]["UpperDir"])
    assert len(found["RootFS"]["Layers"]) == 1


# --- explain


def test_explain_makes_nothing(engine: Engine, image: str) -> None:
    def entries() -> set[str]:
        return {
            os.path.join(directory, name)
            for top in (f"{engine.root}/containers", f"{engine.run_root}/containers", f"{engine.root}/tmp")
            for directory, names, files in os.walk(top)
            for name in (*names, *files)
        }

    before = entries()
    found = engine.explain(image, ["sh", "-c", "exit 0"], hostname="classroom")
    assert entries() == before
    assert engine.containers.list(all=True) == []
    assert any("set the host name classroom" in line for line in found.plan)
    assert found.namespaces["pid"] == "new"
    assert [layer["path"] for layer in found.layers] == [
        layer.diff for layer in reversed(engine.images.get(image).record.layers)
    ]
    assert "PLAN" in found.text()


def test_explain_of_a_container_is_what_its_start_does(engine: Engine, image: str) -> None:
    """An error counts the steps of the plan that was explained."""
    box = engine.containers.create(image, ["/no/such/program"])
    lines = box.explain().plan
    last = f"execute /no/such/program: No such file or directory (step {len(lines)} of {len(lines)})"
    with pytest.raises(StartFailed, match=re.escape(last)):
        box.start()
    assert lines[-1].endswith("execute /no/such/program")


def test_explain_of_namespaces_that_are_shared(engine: Engine, image: str) -> None:
    with engine.containers.create(image, LOOP, name="owner") as owner:
        guest = engine.containers.create(image, LOOP, ipc="container:owner")
        with pytest.raises(InvalidState, match=r"it shares the ipc namespace of container .* start that first"):
            guest.explain()
        owner.start()
        assert guest.explain().namespaces["ipc"] == f"of container {owner.short_id}"
        assert guest.inspect()["HostConfig"]["IpcMode"] == f"container:{owner.id}"
        guest.remove()


def test_the_cgroup_that_is_explained_is_the_one_it_runs_in(engine: Engine, image: str) -> None:
    with engine.containers.create(image, LOOP) as box:
        path = box.explain().cgroup["path"]
        assert not os.path.exists(path)
        box.start()
        with open(f"{path}/cgroup.procs") as file:
            assert str(box.state().pid) in file.read().split()


# --- info, filters


def test_info_counts_what_is_there(engine: Engine, image: str) -> None:
    with engine.containers.create(image, LOOP) as box:
        box.start()
        engine.containers.create(image, LOOP)
        found = engine.info()
        counted = found["store"]["containers"]
        assert (counted["total"], counted["running"], counted["configured"]) == (2, 1, 1)
    assert found["store"]["images"] == 1
    assert found["host"]["rootless"] == (os.geteuid() != 0)
    assert found["host"]["cgroups"]["available"] is True
    assert found["host"]["mem_total"] > found["host"]["mem_free"] > 0
    assert found["host"]["kernel"] == os.uname().release
    assert json.loads(json.dumps(found)) == found


def test_info_names_the_ids_of_containers(engine: Engine) -> None:
    mapped = engine.info()["host"]["id_mappings"]
    assert mapped["single_id"] is False
    first = mapped["uids"][0]
    expected = {"container_id": 0, "host_id": os.geteuid()}
    assert {key: first[key] for key in expected} == expected


def test_filters_find_containers_by_state_name_label_and_volume(engine: Engine, image: str, tmp_path: object) -> None:
    def names(**filters: str) -> set[str]:
        found = engine.containers.list(all=True, filters={key: [value] for key, value in filters.items()})
        return {container.name for container in found}

    first = engine.containers.create(image, ["sh", "-c", "exit 3"], name="first", label=["tier=web"])
    engine.containers.create(image, LOOP, name="second", volume=[f"{tmp_path}:/data"])
    first.start()
    first.wait(timeout=10)
    assert names(status="exited") == {"first"}
    assert names(status="created") == {"second"}
    assert names(exited="3") == {"first"}
    assert names(label="tier=web") == {"first"}
    assert names(volume=f"{tmp_path}:/data") == {"second"}
    assert names(since="first") == {"second"}
    assert names(ancestor="busybox") == {"first", "second"}
    with pytest.raises(ContainerNotFound):
        names(before="nobody")
