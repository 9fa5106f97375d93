"""create + start + wait + remove, exec, the monitor's memory, and whether the size of the host program matters."""

from __future__ import annotations

import glob
import json
import os
import shutil

from measure import PEER_LIMITS, busybox_tree, compare, new_disk, quiet, report, resident_private, seconds, tar_of

from pyengine import Engine

ROUNDS = 30


def crun_bundle(tree: str, directory: str) -> list[str]:
    """A bundle with crun's own default configuration of the same root file system, and the command that runs it."""
    os.makedirs(directory)
    quiet("sh", "-c", f"cd {directory} && crun spec")
    with open(f"{directory}/config.json") as file:
        config = json.load(file)
    config["process"].update(args=["/bin/true"], terminal=False)
    config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096}]
    config["root"].update(path=tree, readonly=False)
    with open(f"{directory}/config.json", "w") as file:
        json.dump(config, file)
    return ["crun", "--cgroup-manager=disabled", "run", "--bundle", directory, "bench"]


def podman(root: str, *arguments: str) -> list[str]:
    return [
        "podman",
        "--root",
        f"{root}/root",
        "--runroot",
        "/run/bench-podman",
        "--cgroup-manager=cgroupfs",
        *arguments,
    ]


def conmon_of(directory: str) -> int:
    """The conmon that podman started for the store in this directory."""
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        with open(path) as file:
            words = file.read()
        if "conmon" in words.split("\0")[0] and directory in words:
            return int(path.split("/")[2])
    raise SystemExit("there is no conmon")


def main(directory: str) -> None:
    with new_disk(directory) as disk:
        measure(disk)


def measure(directory: str) -> None:
    tree = busybox_tree(f"{directory}/tree")
    with Engine(root=f"{directory}/root", run_root="/run/pyengine-bench") as engine:
        image = engine.images.import_(tar_of(tree), "localhost/bench:1").id
        peer = podman(f"{directory}/podman", "import", "-", "localhost/bench:1")
        quiet(*peer, input=tar_of(tree).getvalue())
        run_podman = podman(f"{directory}/podman", "run", "--rm", "--network=none", *PEER_LIMITS, "localhost/bench:1")

        def ours() -> None:
            assert engine.containers.run(image, ["/bin/true"]).exit_code == 0

        bundle = crun_bundle(tree, f"{directory}/bundle")
        mine, theirs = compare(ours, lambda: quiet(*bundle), ROUNDS)
        report("create+start+wait+remove /bin/true", mine, theirs, "crun run (no image)", "budget: > 1")
        mine, theirs = compare(ours, lambda: quiet(*run_podman, "/bin/true"), 8)
        report("create+start+wait+remove /bin/true", mine, theirs, "podman run --rm", "budget: >= 20")

        small = min(seconds(ours) for _ in range(20))
        ballast = bytearray(1 << 30)
        ballast[::4096] = b"x" * len(ballast[::4096])
        large = min(seconds(ours) for _ in range(20))
        print(
            f"{'… with 1 GB touched in the calling process':44} {large * 1000:9.2f} ms   without: {small * 1000:.2f} ms"
        )
        del ballast

        with engine.containers.create(image, ["sleep", "600"]) as box:
            box.start()
            run = podman(f"{directory}/podman", "run", "-d", "--name=exec", "--network=none", *PEER_LIMITS)
            quiet(*run, "localhost/bench:1", "sleep", "600")
            execute = podman(f"{directory}/podman", "exec", "exec", "/bin/true")
            mine, theirs = compare(lambda: box.exec(["/bin/true"]), lambda: quiet(*execute), 8)
            report("exec /bin/true", mine, theirs, "podman exec", "budget: >= 30")
            memory = resident_private(box.state().monitor_pid)
            conmon = conmon_of(directory)
            peer_memory = resident_private(conmon)
            print(
                f"{'private memory of the monitor':44} {memory:9d} KiB  conmon {peer_memory} KiB   budget: <= 200 KiB"
            )
            quiet(*podman(f"{directory}/podman", "rm", "-f", "-t", "0", "exec"))
        engine.reset()
    quiet(*podman(f"{directory}/podman", "rmi", "-f", "localhost/bench:1"))
    quiet("umount", "-q", f"{directory}/podman/root/overlay", check=False)
    shutil.rmtree(f"{directory}/podman", ignore_errors=True)
