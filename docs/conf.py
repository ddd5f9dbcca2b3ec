"""Sphinx configuration. `make docs` builds HTML into docs/_build/html, running every example.

The gallery of experiments and the benchmarks' results are written into docs/generated, from what
lies in simulations/, figures/ and benchmarks/.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

from afafilter import __version__
from afafilter.cli.citation import citation
from afafilter.cli.figures import find_experiments

HERE = Path(__file__).parent
ROOT = HERE.parent

project = "afafilter"
author = "the afafilter developers"
release = __version__
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
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
html_static_path = ["_static"]
html_css_files = ["afafilter.css"]
html_math_renderer = "mathml"
exclude_patterns = ["_build", "examples", "auto_examples/*.ipynb", "generated"]
sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/plot_",
    "abort_on_example_error": True,
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "download_all_examples": False,
    "write_computation_times": False,
    "capture_repr": ("_repr_html_",),
    "min_reported_time": 3600,
    "within_subsection_order": "FileNameSortKey",
}


def write_experiments(folder: Path) -> None:
    """The gallery: a picture per experiment that leads to its section, then the sections."""
    tiles, sections = [], []
    for experiment in find_experiments():
        name, path = experiment.name, experiment.path
        anchor = f"experiment-{name.replace('_', '-')}"
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        lines = text.removeprefix(f"{name}:").strip().splitlines()
        lines[0] = lines[0][:1].upper() + lines[0][1:]
        picture = ROOT / "figures" / f"{name}.png"
        finding = picture.with_suffix(".md")
        sections += [f".. _{anchor}:", "", name, "-" * len(name), "", *escaped(lines), ""]
        if finding.exists():
            sections += [*escaped(finding.read_text(encoding="utf-8").splitlines()), ""]
        if picture.exists():
            tiles += [
                f".. figure:: ../figures/{name}.png",
                f"   :target: #{anchor}",
                f"   :alt: {name}",
                "   :class: tile",
                "",
                f"   :ref:`{name} <{anchor}>`",
                "",
            ]
            sections += [f".. image:: ../figures/{name}.png", f"   :alt: figure of {name}", ""]
        sections += [f"``afafilter figures {name}``", ""]
    indented = [f"   {line}" if line else "" for line in tiles]
    lines = [".. container:: gallery", "", *indented, *sections]
    (folder / "experiments.txt").write_text("\n".join(lines), encoding="utf-8")


def escaped(lines: list[str]) -> list[str]:
    """Plain text that stays plain in reStructuredText."""
    return [line.translate(str.maketrans({c: f"\\{c}" for c in "*|\\"})) for line in lines]


def write_benchmarks(folder: Path) -> None:
    """benchmarks/RESULTS.md, its picture found from here."""
    text = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    text = text.replace("](results.png)", "](../benchmarks/results.png)")
    (folder / "benchmarks.md").write_text(text, encoding="utf-8")


def write_blocks(folder: Path) -> None:
    """README's ten lines, and the citation that the command prints."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    code = readme.partition("```python\n")[2].partition("```")[0]
    for name, language, text in (
        ("ten_lines", "python", code),
        ("citation", "bibtex", citation()),
    ):
        lines = [f".. code-block:: {language}", "", *(f"   {line}" for line in text.splitlines())]
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


ACCENT = re.compile(r"(\\(?:bar|hat|tilde)(?:\\[a-zA-Z]+| ?[a-zA-Z]|\{[^{}]*\}))(?=[_^])")
"""An accent before an index, which would come to stand below or above the letter."""


def mathml(text: str, *, block: bool) -> str:
    """A formula as MathML, which browsers draw by themselves: no script, no network."""
    return str(tex2mathml(ACCENT.sub(r"\1{}", text.strip()), as_block=block))


def show_inline(translator: Any, node: nodes.math) -> None:
    """Write an inline formula."""
    translator.body.append(mathml(node.astext(), block=False))
    raise nodes.SkipNode


def show_block(translator: Any, node: nodes.math_block) -> None:
    """Write a displayed formula."""
    translator.body.append(f'<div class="math">{mathml(node.astext(), block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Write what is generated, and draw formulas without a network."""
    folder = HERE / "generated"
    folder.mkdir(exist_ok=True)
    write_experiments(folder)
    write_benchmarks(folder)
    write_blocks(folder)
    app.add_html_math_renderer("mathml", (show_inline, None), (show_block, None))
