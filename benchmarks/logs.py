"""Log throughput: a container that writes as fast as it can, against conmon under podman."""

from __future__ import annotations

import os

from lifecycle import podman
from measure import PEER_LIMITS, busybox_tree, new_disk, quiet, seconds, tar_of

from pyengine import Engine

SIZE_MB = 256


def main(directory: str) -> None:
    with new_disk(directory) as disk:
        measure(disk)


def measure(directory: str) -> None:
    tree = busybox_tree(f"{directory}/log-tree")
    write = ["sh", "-c", f"yes 'a line as programs write them, of some sixty characters in all' | head -c {SIZE_MB}m"]
    with Engine(root=f"{directory}/root", run_root="/run/pyengine-bench") as engine:
        image = engine.images.import_(tar_of(tree), "localhost/log:1").id
        quiet(*podman(f"{directory}/podman", "import", "-", "localhost/log:1"), input=tar_of(tree).getvalue())

        def ours() -> None:
            with engine.containers.create(image, write) as box:
                box.start()
                assert box.wait() == 0
                assert os.path.getsize(box.log_path) > SIZE_MB << 20

        def theirs() -> None:
            run = ["run", "-d", "--name=log", "--network=none", "--log-driver=k8s-file", *PEER_LIMITS]
            quiet(*podman(f"{directory}/podman", *run, "localhost/log:1", *write))
            quiet(*podman(f"{directory}/podman", "wait", "log"))
            quiet(*podman(f"{directory}/podman", "rm", "-f", "log"))

        mine, peer = min(seconds(ours) for _ in range(2)), min(seconds(theirs) for _ in range(2))
        print(
            f"{'log throughput (k8s-file)':44} {SIZE_MB / mine:9.0f} MB/s  conmon {SIZE_MB / peer:.0f} MB/s   "
            f"{peer / mine:6.1f} x faster   budget: >= 1"
        )
        engine.reset()
