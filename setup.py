"""Builds the native core (metadata: setup.cfg). One module per processor level, stable ABI."""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

sys.path.insert(0, str(Path(__file__).parent / "tools"))
import core_build


class BuildCore(build_ext):
    """Compiles each extension by `core_build`, which knows compiler, flags and levels."""

    def finalize_options(self) -> None:
        # A wheel may travel to another machine; an editable or in-place build stays on this one.
        levels = core_build.levels(wheel="bdist_wheel" in self.distribution.commands)
        self.distribution.ext_modules = [
            Extension(f"afafilter._core._{name}", [], py_limited_api=True)
            for name in (*levels, *(["probe"] if core_build.is_x86() else []))
        ]
        super().finalize_options()

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        core_build.compile_module(ext.name.rpartition("._")[2], target)


class StableWheel(bdist_wheel):
    """One wheel for every Python from 3.11 on."""

    def finalize_options(self) -> None:
        self.py_limited_api = "cp311"
        super().finalize_options()


setup(
    ext_modules=[Extension("afafilter._core._core", [], py_limited_api=True)],
    cmdclass={"build_ext": BuildCore, "bdist_wheel": StableWheel},
)
