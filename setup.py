"""Builds the native parts: the cffi module of system calls and the static programs in native/.

The programs are ordinary executables, so setuptools has no command for them: they are built
beside the extension and land in pyengine/_native/, in the source tree for an editable install.
"""

import os
import shutil
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext


class BuildNative(build_ext):
    """``build_ext`` that also runs ``make`` in native/ and copies the programs into the package."""

    def run(self) -> None:
        super().run()
        here = Path(__file__).parent
        target = here if self.inplace else Path(self.build_lib)
        programs = target / "pyengine" / "_native"
        programs.mkdir(parents=True, exist_ok=True)
        build = Path(self.build_temp).absolute() / "native"
        subprocess.run(
            ["make", "-s", "-C", str(here / "native"), f"BUILD={build}", "programs"],
            check=True,
            env={**os.environ},
        )
        for program in (build / "bin").iterdir():
            staged = programs / f".{program.name}.new"
            shutil.copy2(program, staged)
            staged.replace(programs / program.name)  # a running monitor keeps its old file


setup(cmdclass={"build_ext": BuildNative}, cffi_modules=["native/syscalls/build.py:ffi"])
