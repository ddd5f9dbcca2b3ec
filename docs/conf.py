"""Sphinx configuration. `make docs` builds HTML into docs/_build/html, running every example.

The help of the command and the list of experiments are written into docs/generated from the code.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import click

from afafilter import __version__
from afafilter.cli import main as command

HERE = Path(__file__).parent
ROOT = HERE.parent

project = "afafilter"
author = "the afafilter developers"
release = __version__
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "myst_parser",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
autosummary_generate = True
autosummary_generate_overwrite = True
autosummary_ignore_module_all = False
numpydoc_show_class_members = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
default_role = "py:obj"
templates_path = ["_templates"]
html_theme = "furo"
html_title = f"afafilter {release}"
exclude_patterns = ["_build", "examples", "auto_examples/*.ipynb"]
sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/plot_",
    "abort_on_example_error": True,
    "remove_config_comments": True,
    "show_memory": False,
}


def write_command_help(folder: Path) -> None:
    """The output of --help of every subcommand."""
    context = click.Context(command, info_name="afafilter", terminal_width=92)
    for name, sub in command.commands.items():
        inner = click.Context(sub, info_name=name, parent=context, terminal_width=92)
        (folder / f"{name}.txt").write_text(sub.get_help(inner) + "\n", encoding="utf-8")


def write_experiments(folder: Path) -> None:
    """A section per experiment: its docstring, and the figure where one is committed."""
    sections = []
    for path in sorted((ROOT / "simulations").glob("[!_]*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        lines = text.removeprefix(f"{path.stem}:").strip().splitlines()
        lines[0] = lines[0][:1].upper() + lines[0][1:]
        sections += [path.stem, "-" * len(path.stem), "", *_escaped(lines), ""]
        finding = ROOT / "figures" / f"{path.stem}.md"
        if finding.exists():
            sections += [*_escaped(finding.read_text(encoding="utf-8").splitlines()), ""]
        if finding.with_suffix(".png").exists():
            sections += [f".. image:: ../figures/{path.stem}.png", ""]
    (folder / "experiments.txt").write_text("\n".join(sections), encoding="utf-8")


def _escaped(lines: list[str]) -> list[str]:
    return [re.sub(r"[*|\\]", r"\\\g<0>", line) for line in lines]


def setup(app: Any) -> None:
    """Write what is generated."""
    folder = HERE / "generated"
    folder.mkdir(exist_ok=True)
    write_command_help(folder)
    write_experiments(folder)
