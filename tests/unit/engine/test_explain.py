"""What ``explain`` says of a container: its parts as data, and the text that a learner reads."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from pyengine.engine.config import ContainerConfig
from pyengine.engine.explain import HOST, NEW, Explanation, describe_rule, explanation, namespaces_of
from pyengine.engine.explain_reasons import REASONS, reason_of
from pyengine.engine.request import ContainerRequest, NamespaceRequest
from pyengine.engine.request_resources import ResourceRequest
from pyengine.engine.spec import complete_spec, make_spec
from pyengine.engine.spec_facts import EnvironmentFacts
from pyengine.engine.spec_process import DEFAULT_CAPABILITIES
from pyengine.oci import runtime as oci
from pyengine.oci.digest import Digest
from pyengine.runtime.compile import DirectoryRoot, Facts, OverlayRoot, compile_container
from pyengine.runtime.compile_process import UserRequest
from pyengine.runtime.plan import Bind, Device, Mount, Settings, step_kinds
from pyengine.store.layers import Layer

ID = "ab" * 32
OTHER = "cd" * 32
LAYERS = [
    Layer(1, Digest.parse(f"sha256:{1:064x}"), Digest.parse(f"sha256:{11:064x}"), None, 2048, "/store/layers/1/diff"),
    Layer(2, Digest.parse(f"sha256:{2:064x}"), Digest.parse(f"sha256:{12:064x}"), 1, 5 << 20, "/store/layers/2/diff"),
]


def explained(request: ContainerRequest | None = None, *, cgroup: str = "/cg/box", **changes: Any) -> Explanation:
    request = request or ContainerRequest(image="base", command=("sleep", "1"), seccomp="unconfined")
    facts = EnvironmentFacts(capabilities=DEFAULT_CAPABILITIES)
    spec = make_spec(request, None, facts, id=ID, root="root", cgroup=cgroup)
    spec = complete_spec(spec, files={"/etc/hostname": "/run/box/hostname"})
    config = ContainerConfig(id=ID, name="box", created_ns=1, rootfs=request.rootfs, **changes.pop("config", {}))
    root: OverlayRoot | DirectoryRoot = OverlayRoot("/store/layers", ("2/diff", "1/diff"), "/c/upper", "/c/work", "/c")
    if request.rootfs:
        root = DirectoryRoot(request.rootfs, "/c/root")
    return explanation(
        title="Container box",
        config=config,
        spec=spec,
        plan=compile_container(spec, root, Facts(), Settings(id=ID), user=UserRequest("")),
        layers=() if request.rootfs else LAYERS,
        upper="/c/upper",
        cgroup=cgroup,
        **changes,
    )


def test_every_kind_of_step_has_a_reason_and_a_manual() -> None:
    assert set(REASONS) == set(step_kinds())
    for reason in REASONS.values():
        assert reason.text.endswith((".", ".)"))
        assert reason.manual


def test_file_systems_devices_and_made_files_have_reasons_of_their_own() -> None:
    def mount(kind: str, target: str) -> Mount:
        return Mount(kind, kind, target, 0, (), 0, False)

    def bind(source: str, target: str) -> Bind:
        return Bind(source, target, False, 0, 0, 0, 0, 0, False, "")

    reasons = [
        reason_of(step)
        for step in (
            mount("proc", "/proc"),
            mount("tmpfs", "/dev"),
            mount("tmpfs", "/tmp"),
            mount("ext4", "/data"),
            bind("/run/x/hosts", "/etc/hosts"),
            bind("/dev/null", "/dev/null"),
            bind("/srv", "/srv"),
            Device("/dev/null", 0o20666, 1, 3, 0, 0),
            Device("/dev/fuse", 0o20666, 10, 229, 0, 0),
        )
    ]
    assert len(set(reasons)) == len(reasons)
    assert "proc(5)" in reasons[0].manual


def test_the_layers_are_listed_top_first() -> None:
    assert explained().layers == [
        {
            "number": 2,
            "diff_id": f"sha256:{12:064x}",
            "chain_id": f"sha256:{2:064x}",
            "path": "/store/layers/2/diff",
            "size": 5 << 20,
        },
        {
            "number": 1,
            "diff_id": f"sha256:{11:064x}",
            "chain_id": f"sha256:{1:064x}",
            "path": "/store/layers/1/diff",
            "size": 2048,
        },
    ]


def test_the_plan_is_numbered_from_one() -> None:
    found = explained()
    numbers = [int(line.split(maxsplit=1)[0]) for line in found.plan]
    assert numbers == list(range(1, len(found.steps) + 1))
    assert found.plan[-1].endswith("execute sleep")


def test_the_spec_is_the_oci_document_as_json() -> None:
    spec = explained().spec
    assert oci.decode(json.dumps(spec).encode()).process is not None
    assert spec["process"]["args"] == ["sleep", "1"]


def test_namespaces_are_new_the_hosts_anothers_or_a_path() -> None:
    spec = oci.RuntimeSpec(
        oci_version="1.0.2",
        linux=oci.Linux(
            namespaces=(
                oci.Namespace(type="mount"),
                oci.Namespace(type="network", path="/run/netns/x"),
                oci.Namespace(type="ipc", path="/proc/7/ns/ipc"),
            )
        ),
    )
    assert namespaces_of(spec, {"ipc": OTHER}) == {
        "user": HOST,
        "mount": NEW,
        "pid": HOST,
        "network": "/run/netns/x",
        "ipc": f"of container {OTHER[:12]}",
        "uts": HOST,
        "cgroup": HOST,
        "time": HOST,
    }
    assert namespaces_of(spec, {}, rootless=True)["user"] == "of the user's containers"


def test_the_cgroup_lists_what_is_written_into_which_file() -> None:
    request = ContainerRequest(
        image="base", command=("x",), seccomp="unconfined", resources=ResourceRequest(memory=64 << 20, pids_limit=9)
    )
    cgroup = explained(request).cgroup
    assert cgroup["path"] == "/cg/box"
    assert cgroup["writes"] == [
        ("memory.max", str(64 << 20)),
        ("memory.swap.max", str(64 << 20)),
        ("pids.max", "9"),
    ]
    assert cgroup["controllers"] == ["memory", "pids"]
    assert cgroup["devices"][0] == "deny a *:* rwm"
    assert "allow c 1:3 rwm" in cgroup["devices"]


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (oci.DeviceRule(allow=False), "deny a *:* rwm"),
        (oci.DeviceRule(allow=True, type="c", major=1, minor=3, access="rw"), "allow c 1:3 rw"),
        (oci.DeviceRule(allow=True, type="b", major=8), "allow b 8:* rwm"),
    ],
)
def test_a_device_rule_in_words(rule: oci.DeviceRule, text: str) -> None:
    assert describe_rule(rule) == text


# --- the text


def test_the_text_has_its_sections_in_order() -> None:
    text = explained().text()
    heads = [line for line in text.splitlines() if re.fullmatch("[A-Z]+", line)]
    assert heads == ["LAYERS", "NAMESPACES", "CGROUP", "SPEC", "PLAN"]
    assert text.startswith("Container box\n\n")
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


def test_each_line_of_the_plan_is_there_and_each_reason_once() -> None:
    found = explained()
    text = found.text()
    positions = [text.index(f"\n  {line}\n") for line in found.plan]
    assert positions == sorted(positions)
    flat = " ".join(text.split())
    for reason in {reason_of(step) for step in found.steps}:
        assert flat.count(" ".join(reason.text.split())) == 1, reason
        assert f"[{reason.manual}]" in flat


def test_only_paths_are_longer_than_a_line_of_a_hundred() -> None:
    for line in explained().text().splitlines():
        assert len(line) <= 103 or "/" in line, line
        assert line == line.rstrip()


def test_the_text_names_limits_layers_and_namespaces() -> None:
    request = ContainerRequest(
        image="base",
        command=("x", "ä b"),
        seccomp="unconfined",
        read_only=True,
        net=NamespaceRequest("host"),
        resources=ResourceRequest(memory=64 << 20),
    )
    text = explained(request).text()
    for part in (
        "  upper  /c/upper\n",
        "  2      /store/layers/2/diff\n",
        "5.0 MiB, diff id sha256:000000000000",
        "  network  the host's  ",
        "    memory.max       67108864\n",
        "Limits, by the controllers memory:",
        '  args          ["x", "ä b"]\n',
        "  root          read-only\n",
        "  seccomp       no filter\n",
        "into mount, uts, ipc, pid namespaces of its own",
    ):
        assert part in text, part
    assert text.index("/store/layers/2/diff") < text.index("/store/layers/1/diff")


def test_without_a_cgroup_the_text_says_why() -> None:
    assert "CGROUP\n  none: nothing is delegated\n" in explained(cgroup="", refusal="nothing is delegated").text()


def test_a_root_file_system_without_an_image_has_no_layers() -> None:
    found = explained(ContainerRequest(rootfs="/srv/root", command=("x",), seccomp="unconfined"))
    assert found.layers == []
    assert "the root file system is the directory /srv/root" in found.text()
    assert "bind /srv/root as the root" in found.text()
