"""setuptools' build backend, which asks for a compiler from PyPI where the machine has none."""

from __future__ import annotations

from typing import Any

from core_build import system_compiler
from setuptools.build_meta import *  # noqa: F403


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """The compiler. Nothing else is wanted: setup.py, which may ask the compiler, need not run."""
    return [] if system_compiler() else ["ziglang>=0.13"]


get_requires_for_build_editable = get_requires_for_build_wheel
