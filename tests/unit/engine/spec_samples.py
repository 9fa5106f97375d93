"""Machines, and specs made for them, for the tests of specs."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from pyengine.engine.options import make_request
from pyengine.engine.spec import make_spec
from pyengine.engine.spec_facts import EnvironmentFacts
from pyengine.engine.values import IdRange
from pyengine.linux.capabilities import NAMES
from pyengine.oci import runtime as oci
from pyengine.oci.image import ContainerConfig as Image

ID = "0123456789ab" + "c" * 52
ROOT = EnvironmentFacts(capabilities=NAMES, hostname="host")
USER = EnvironmentFacts(
    capabilities=NAMES,
    rootless=True,
    raise_limits=False,
    uid=1000,
    gid=1000,
    hostname="host",
    uid_map=(IdRange(0, 1000, 1), IdRange(1, 100000, 65536)),
    gid_map=(IdRange(0, 1000, 1), IdRange(1, 100000, 65536)),
)
SINGLE = replace(USER, uid_map=(IdRange(0, 1000, 1),), gid_map=(IdRange(0, 1000, 1),))


def spec_of(facts: EnvironmentFacts = ROOT, image: Image | None = None, **options: Any) -> oci.RuntimeSpec:
    request = make_request(**({"image": "img", "command": ["sh"]} | options))
    return make_spec(request, image, facts, id=ID, root="rootfs", cgroup="/pyengine/c")


def document(facts: EnvironmentFacts = ROOT, image: Image | None = None, **options: Any) -> Any:
    """The document as clients see it, without the long filter."""
    found = json.loads(oci.encode(spec_of(facts, image, **options)))
    found["linux"].pop("seccomp", None)
    return found


def process_of(*args: Any, **options: Any) -> oci.Process:
    process = spec_of(*args, **options).process
    assert process is not None
    return process


def linux_of(*args: Any, **options: Any) -> oci.Linux:
    linux = spec_of(*args, **options).linux
    assert linux is not None
    return linux


def mounts_of(*args: Any, **options: Any) -> dict[str, oci.Mount]:
    mounts = spec_of(*args, **options).mounts
    assert len({mount.destination for mount in mounts}) == len(mounts)
    return {mount.destination: mount for mount in mounts}
