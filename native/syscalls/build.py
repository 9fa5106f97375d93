"""Builds ``pyengine._syscalls``: the system calls that Python lacks, for the engine's side.

``*.cdef`` files are both what cffi reads and what the C files include, so that the two cannot drift apart.
The unpacker (``unpack.c``, ``unpack.cdef``) is part of the same module where it is present.
"""

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

parts = ["calls", "child", "spawn", "tree"]
if (HERE / "unpack.c").exists():
    parts.append("unpack")

ffi = FFI()
for part in parts:
    ffi.cdef((HERE / f"{part}.cdef").read_text())

ffi.set_source(
    "pyengine._syscalls",
    # What cffi generates has unused parameters; our own files are held to all warnings.
    '#pragma GCC diagnostic ignored "-Wunused-parameter"\n'
    + "#include <stdint.h>\n#include <stddef.h>\n#include <sys/types.h>\n"
    + "".join(f'#include "{part}.cdef"\n' for part in parts),
    # setuptools wants names relative to setup.py; cffi by itself builds in another directory.
    sources=[str(HERE / f"{part}.c") if __name__ == "__main__" else f"native/syscalls/{part}.c" for part in parts],
    depends=[str(path) for path in sorted(HERE.glob("*.[ch]*"))],
    include_dirs=[str(HERE)],
    extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden"],
)

if __name__ == "__main__":  # while working on the C: builds into the source tree, leaves no other file there
    import os
    import shutil
    import tempfile

    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as directory:
        made = ffi.compile(verbose=True, tmpdir=directory)
        # The name that setup.py gives it (cffi's code keeps to the limited API): a second file under the name of this
        # Python's own ABI would be preferred by the import, and go stale.
        staged = ROOT / "pyengine" / "._syscalls.new"
        shutil.copy2(made, staged)
        staged.replace(ROOT / "pyengine" / "_syscalls.abi3.so")
        for stale in (ROOT / "pyengine").glob("_syscalls.cpython-*.so"):
            stale.unlink()
