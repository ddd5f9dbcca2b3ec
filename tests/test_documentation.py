"""What README, guide and docstrings show works as shown."""

from __future__ import annotations

import importlib.util
import inspect
import re
import tomllib
from pathlib import Path

import pytest

import afafilter
from afafilter import DiscreteModel, LinearSDE, Study
from afafilter.io import model_toml
from afafilter.io.model_toml import model_from_table
from afafilter.studies import toml

ROOT = Path(__file__).parent.parent
SOURCE = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "afafilter").rglob("*.py"))
PAGES = {"README.md": r"```{}\n(.*?)```", "docs/command.rst": r"code-block:: {}\n\n(.*?)\n\S"}


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(PAGES[page].format(language), text, flags=re.DOTALL)
    return [inspect.cleandoc("\n" + block) for block in found]


def test_the_example_of_the_readme(capsys):
    (example,) = blocks("README.md", "python")
    exec(compile(example, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    rmse = dict(line.rsplit(" ", 1) for line in lines)
    assert float(rmse["RTS"]) < float(rmse["Kalman"]) < float(rmse["AFA"])


def test_the_first_model_of_the_command_page():
    first, *_ = blocks("docs/command.rst", "toml")
    assert isinstance(model_from_table(tomllib.loads(first)["model"]), LinearSDE)


def test_formats_and_options_on_the_command_page_are_current():
    spec = importlib.util.spec_from_file_location("command_page", ROOT / "tools/command_page.py")
    assert spec is not None and spec.loader is not None  # noqa: PT018
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    page = tool.PAGE.read_text(encoding="utf-8")
    assert tool.written(page) == page, "run `python tools/command_page.py`"
    assert tool.written(page.replace("``--outlier-df FLOAT``", "``--df``")) == page


def test_model_format():
    text = inspect.getdoc(model_toml) or ""
    shown = re.findall(r"^    .*(?:\n(?:    .*)?)*", text, flags=re.MULTILINE)
    examples = re.split(r"\n\s*\n", inspect.cleandoc("\n" + shown[0]))
    found = [model_from_table(tomllib.loads(example)["model"]) for example in examples]
    assert [type(model) for model in found] == [LinearSDE] * 3 + [DiscreteModel]


def test_study_format(tmp_path):
    text = inspect.getdoc(toml) or ""
    shown = "\n".join(line for line in text.splitlines() if not line or line.startswith("    "))
    path = tmp_path / "study.toml"
    path.write_text(inspect.cleandoc("\n" + shown), encoding="utf-8")
    study = Study.from_toml(path)
    assert len(study.seeds) == 3
    assert len(study.cells) == 3 * 3 * 2


@pytest.mark.parametrize("page", PAGES)
def test_estimators_and_commands_named_exist(page):
    from afafilter.catalog import CATALOG
    from afafilter.cli import main

    text = (ROOT / page).read_text(encoding="utf-8")
    for command in re.findall(r"^ *(?:\$ )?afafilter ([a-z]+) ", text, flags=re.MULTILINE):
        assert command in main.commands
    estimators = re.findall(r"--estimator ([a-z-]+)", text)
    assert estimators
    assert set(estimators) <= set(CATALOG)


def public_callables() -> list[tuple[str, object]]:
    """Public functions and classes, and the public methods of these classes."""
    found: list[tuple[str, object]] = []
    for name in afafilter.__all__:
        value = getattr(afafilter, name)
        if inspect.ismodule(value):
            inner = [n for n in getattr(value, "__all__", []) if callable(getattr(value, n))]
            found += [(f"{name}.{n}", getattr(value, n)) for n in inner]
        elif callable(value):
            found.append((name, value))
    methods = [
        (f"{name}.{n}", m)
        for name, value in found
        if inspect.isclass(value)
        for n, m in vars(value).items()
        if inspect.isfunction(m) and not n.startswith("_")
    ]
    return found + methods


def documented_parameters(text: str) -> list[tuple[list[str], str]]:
    """The entries `names : type` of a docstring's section Parameters, with their types."""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w[\w ]*\n-+$|\Z)", text, re.M | re.S)
    lines = [] if section is None else section[1].splitlines()
    entries = [line for line in lines if line and not line.startswith(" ")]
    split = [entry.partition(" : ") for entry in entries]
    return [([n.strip("* ") for n in names.split(",")], kind) for names, _, kind in split]


def test_parameters_are_described_as_numpydoc_wants():
    """Names are those of the signature, and the slot behind them holds a type, not a sentence."""
    seen = 0
    for name, value in public_callables():
        entries = documented_parameters(inspect.getdoc(value) or "")
        for names, kind in entries:
            seen += 1
            signature = inspect.signature(value).parameters
            assert set(names) <= set(signature), (name, names)
            assert len(kind) < 90, (name, names, kind)
            assert not kind.endswith("."), (name, names, kind)
    assert seen > 250


def test_every_public_name_is_in_the_reference():
    page = (ROOT / "docs/api.rst").read_text(encoding="utf-8")
    assert set(re.findall(r"^   (\w+)$", page, re.M)) == set(afafilter.__all__) - {"__version__"}


def test_what_public_functions_return_is_public():
    """Importable from the face, or from the public module that the function is in."""
    names = set(afafilter.__all__)
    for module in ("families", "io", "theory"):
        names |= set(getattr(afafilter, module).__all__)
    seen = set()
    for name, value in public_callables():
        if not inspect.isclass(value):
            annotation = str(inspect.signature(value).return_annotation)
            seen |= {(name, word) for word in re.findall(r"[A-Z]\w+", annotation)}
    ours = {(n, w) for n, w in seen if re.search(rf"^class {w}\b", SOURCE, re.M)}
    assert len(ours) > 50
    internal = {"Block", "System"}  # of a Family, for those who write components
    assert {pair for pair in ours if pair[1] not in names | internal} == set()


def prose(text: str) -> str:
    """A docstring without its literal blocks (after `::`), examples and inline literals."""
    kept, block = [], None
    text = re.sub(r"^ *>>> .*(?:\n.*\S.*)*", "", text, flags=re.MULTILINE)
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        if block is not None and line.strip() and indent <= block:
            block = None
        if block is None:
            kept.append(line)
            if line.endswith("::"):
                block = indent
    return re.sub(r"``.*?``|`.*?`", "", "\n".join(kept), flags=re.DOTALL)


def test_docstrings_can_be_typeset():
    """Bars are substitutions and stars emphasis in reStructuredText: formulas are literals."""
    assert prose("a ``|x|`` ::\n\n    |y|\n\nend") == "a  ::\nend"
    assert prose("a\n\n>>> f(x, **g)\n|y|\n\nb |c|").split() == ["a", "b", "|c|"]
    for name, value in public_callables():
        text = prose(inspect.getdoc(value) or "")
        assert not re.search(r"\|[^\s|][^|\n]*\||(?<=[,(] )\*\*\w", text), name
