"""setuptools' build backend, which asks for a compiler from PyPI where the machine has none."""

from __future__ import annotations

from typing import Any

from core_build import system_compiler
from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403


def _compiler() -> list[str]:
    return [] if system_compiler() else ["ziglang>=0.13"]


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """setuptools' requirements and a compiler."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *_compiler()]


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    """setuptools' requirements and a compiler."""
    return [*build_meta.get_requires_for_build_editable(config_settings), *_compiler()]
