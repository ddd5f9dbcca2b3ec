"""Builds the native core (metadata: setup.cfg). One module per processor level, stable ABI."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

sys.path.insert(0, str(Path(__file__).parent / "tools"))
import core_build
import metadata


class BuildCore(build_ext):
    """Compiles each extension by `core_build`, which knows compiler, flags and levels."""

    def finalize_options(self) -> None:
        # A wheel may travel to another machine; an editable or in-place build stays on this one.
        # Metadata and source archives ask for the names alone, maybe where no compiler is.
        here = {"build", "build_ext", "develop", "editable_wheel"} & set(self.distribution.commands)
        levels = core_build.levels(wheel=not here)
        self.distribution.ext_modules = [
            Extension(f"afafilter._core._{name}", [], py_limited_api=True)
            for name in (*levels, *(["probe"] if core_build.is_x86() else []))
        ]
        super().finalize_options()

    def build_extensions(self) -> None:
        targets = {ext.name: Path(self.get_ext_fullpath(ext.name)) for ext in self.extensions}
        core_build.compile_modules(
            {name.rpartition("._")[2]: target.resolve() for name, target in targets.items()}
        )


class StableWheel(bdist_wheel):
    """One wheel for every Python from 3.11 on."""

    def finalize_options(self) -> None:
        self.py_limited_api = "cp311"
        super().finalize_options()


ROOT = Path(__file__).parent
ADDRESS = metadata.repository()
VERSION = runpy.run_path(str(ROOT / "afafilter" / "_version.py"))["__version__"]

setup(
    project_urls=metadata.project_urls(ADDRESS),
    long_description=metadata.description(
        (ROOT / "README.md").read_text(encoding="utf-8"), ADDRESS, VERSION
    ),
    ext_modules=[Extension("afafilter._core._core", [], py_limited_api=True)],
    cmdclass={"build_ext": BuildCore, "bdist_wheel": StableWheel},
)
