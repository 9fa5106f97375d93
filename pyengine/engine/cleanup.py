"""What a monitor runs at the end of a container that is to be removed by itself, when no engine attends it.

``python -c 'from pyengine.engine.cleanup import main; …' ROOT RUN_ROOT ID``
"""

from __future__ import annotations


def main(root: str, run_root: str, id: str) -> None:
    """Remove the container, unless somebody else has done it."""
    from pyengine.engine.engine import Engine
    from pyengine.errors import ContainerNotFound

    with Engine(root, run_root) as engine:
        try:
            engine.containers.get(id).remove(force=True)
        except ContainerNotFound:
            pass
