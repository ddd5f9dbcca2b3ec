"""The house stays in order: imports go down, nothing goes in circles, nothing grows too large.

The rules are functions of a root folder, so that violations can be planted in a copy. Every import
is read from the source: those inside functions, those for types only, relative ones, and those by
`import_module` with a constant name.
"""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import afafilter

PACKAGE = Path(afafilter.__file__).parent
NAME = "afafilter"
ROWS = (
    ("_version", "_base"),
    ("_core",),
    ("linalg",),
    ("weights", "results"),
    ("models",),
    ("simulation", "kalman", "likelihood", "attention", "scoring", "io"),
    ("baselines", "datasets"),
    ("adaptive",),
    ("theory", "learning", "catalog"),
    ("studies",),
    ("plotting",),
    ("report",),
    ("cli",),
    ("__main__",),
)
"""The rows of the house from the ground up: a package imports from the rows below its own."""
ROW = {package: k for k, row in enumerate(ROWS) for package in row}
DRAWING = {"plotting", "report"}
"""Packages that may import matplotlib."""

MODULE_LINES, BODY_LINES, PARAMETERS = 400, 80, 10

EXCEPTIONS: dict[str, str] = {}
"""Imports that break a rule today, as the rule reports them, and why. May only shrink."""

LONG_MODULES: dict[str, int] = {}
"""Modules above MODULE_LINES and their length. Numbers may only fall."""

LONG_BODIES: dict[str, int] = {}
"""Functions above BODY_LINES and the length of their bodies. Numbers may only fall."""

MANY_PARAMETERS: dict[str, int] = {}
"""Functions that are not public above PARAMETERS, and how many. Numbers may only fall."""


# ----------------------------------------------------------------------------- what the source says


class Import(NamedTuple):
    """One import: the module that has it, the line, and the full name that is imported."""

    module: str
    line: int
    target: str


def modules(root: Path) -> dict[str, Path]:
    """Dotted name -> file of every module below the folder of the package, at any depth."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join((NAME, *parts)).removesuffix(".__init__")] = path
    return found


def parsed(path: Path) -> ast.Module:
    return _tree(path.read_text(encoding="utf-8"))


@cache
def _tree(text: str) -> ast.Module:
    return ast.parse(text)


@cache
def _importing(text: str) -> list[ast.Import | ast.ImportFrom | ast.Call]:
    """Statements and calls of a source that import, found once for all rules and copies."""
    return [
        node
        for node in ast.walk(_tree(text))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        or (isinstance(node, ast.Call) and _called(node) in ("import_module", "__import__"))
    ]


def imports(root: Path) -> list[Import]:
    """Every import of every module; of `from a import b` the module a.b if it is one, else a."""
    known = modules(root)
    return [
        Import(module, line, target)
        for module, path in known.items()
        for line, target in _targets(module, path, known)
    ]


def _targets(module: str, path: Path, known: Mapping[str, Path]) -> Iterator[tuple[int, str]]:
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in _importing(path.read_text(encoding="utf-8")):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package[: len(package) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            if base == NAME:
                yield node.lineno, NAME  # from the face, whatever it is
                continue
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield node.lineno, whole if whole in known else base
        else:
            target = node.args[0].value if isinstance(node.args[0], ast.Constant) else ""
            level = len(target) - len(target.lstrip("."))
            above = package[: len(package) - level + 1] if level else []
            yield node.lineno, ".".join([*above, target.lstrip(".")])


def _called(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def package_of(module: str) -> str:
    """The package or single module below the face that a module belongs to; "" is the face."""
    return module.partition(".")[2].partition(".")[0]


# --------------------------------------------------------------------------------------- the rules


def wrong_imports(root: Path) -> list[str]:
    """Imports upwards, beside, from the face, and of matplotlib by what does not draw."""
    found = []
    for module, line, target in imports(root):
        own, other = package_of(module), package_of(target)
        if target.partition(".")[0] == "matplotlib" and own not in DRAWING:
            found.append(f"{module}:{line} imports matplotlib")
        if target.partition(".")[0] != NAME or module == NAME:
            continue
        if not other:
            found.append(f"{module}:{line} imports from the face")
        elif own not in ROW or other not in ROW:
            found.append(f"{module}:{line} imports {target}: one of them has no row")
        elif own != other and ROW[own] <= ROW[other]:
            where = "beside" if ROW[own] == ROW[other] else "upwards"
            found.append(f"{module}:{line} imports {where}: {target}")
    return found


def circles(root: Path) -> list[tuple[str, ...]]:
    """Groups of modules that import each other, directly or through others."""
    known = modules(root)
    graph: dict[str, set[str]] = {module: set() for module in known}
    for module, _, target in imports(root):
        while target and target not in known:
            target = target.rpartition(".")[0]
        if target and module != NAME:
            graph[module].add(target)
    reach = {module: _reached(graph, module) for module in graph}
    groups = {
        tuple(sorted(m for m in reach[module] if module in reach[m]))
        for module in graph
        if module in reach[module]
    }
    return sorted(groups)


def _reached(graph: Mapping[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    todo = [start]
    while todo:
        for other in graph[todo.pop()] - seen:
            seen.add(other)
            todo.append(other)
    return seen


def lengths(root: Path) -> dict[str, int]:
    """Lines of every module."""
    return {
        module: len(path.read_text(encoding="utf-8").splitlines())
        for module, path in modules(root).items()
    }


def functions(root: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function, method and inner function with its full name."""

    def inside(node: ast.AST, name: str) -> Iterator[tuple[str, ast.FunctionDef]]:
        for child in ast.iter_child_nodes(node):
            full = name
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                full = f"{name}.{child.name}"
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield full, child
            yield from inside(child, full)

    for module, path in modules(root).items():
        yield from inside(parsed(path), module)


def body_length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the first statement after the docstring to the last."""
    body = function.body
    if ast.get_docstring(function) is not None:
        body = body[1:]
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def parameter_count(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    a = function.args
    count = len(a.posonlyargs) + len(a.args) + len(a.kwonlyargs)
    return count - bool(a.args and a.args[0].arg in ("self", "cls"))


def above(found: Mapping[str, int], limit: int) -> dict[str, int]:
    return {name: number for name, number in found.items() if number > limit}


def compared(found: Mapping[str, int], listed: Mapping[str, int]) -> list[str]:
    """How what is above a limit differs from what is listed: both ways, so that lists shrink."""
    out = []
    for name in sorted(found.keys() | listed.keys()):
        now, before = found.get(name), listed.get(name)
        if before is None:
            out.append(f"{name}: {now}, above the limit")
        elif now is None:
            out.append(f"{name}: within the limit now (or gone): take it off the list")
        elif now > before:
            out.append(f"{name}: {now}, grew from {before}")
        elif now < before:
            out.append(f"{name}: {now}, less than the {before} listed: write {now}")
    return out


# ---------------------------------------------------------------------------------------- the tests


def test_the_source_is_found():
    assert len(modules(PACKAGE)) > 80
    assert len(imports(PACKAGE)) > 500
    assert {package_of(module) for module in modules(PACKAGE)} - {""} <= ROW.keys()


def _place(report: str) -> str:
    """A report without its line number."""
    return re.sub(r":\d+ ", " ", report, count=1)


def test_imports_go_down():
    found = {_place(report): report for report in wrong_imports(PACKAGE)}
    assert not [report for place, report in found.items() if place not in EXCEPTIONS]
    assert not EXCEPTIONS.keys() - found.keys(), "mended: take it off the list"


def test_no_circles():
    assert circles(PACKAGE) == []


def test_modules_are_short():
    assert compared(above(lengths(PACKAGE), MODULE_LINES), LONG_MODULES) == []


def test_functions_are_short():
    found = {name: body_length(function) for name, function in functions(PACKAGE)}
    assert len(found) > 900
    assert compared(above(found, BODY_LINES), LONG_BODIES) == []


def test_functions_take_few_parameters():
    """Public ones and constructors of public classes excepted: most parameters are options."""
    public = {
        f"{value.__module__}.{value.__qualname__}"
        for value in (getattr(afafilter, name) for name in afafilter.__all__)
        if hasattr(value, "__qualname__")
    }
    public |= {f"{name}.__init__" for name in public}
    found = {
        name: parameter_count(function)
        for name, function in functions(PACKAGE)
        if name not in public
    }
    assert compared(above(found, PARAMETERS), MANY_PARAMETERS) == []


def test_the_formatter_has_the_last_word():
    said = re.compile(r"#\s*(fmt|yapf):")
    assert [m for m, path in modules(PACKAGE).items() if said.search(path.read_text())] == []


def test_no_package_hides_a_function():
    """A name of the face is either a module or a function, however it was imported."""
    names = set(afafilter.__all__)
    parts = {package_of(module) for module in modules(PACKAGE)} - {""}
    assert names & parts == {"catalog", "datasets", "io", "plotting", "theory"}


def test_the_architecture_page_names_files_that_exist():
    page = (PACKAGE.parent / "docs/dev/architecture.rst").read_text(encoding="utf-8")
    named = set(re.findall(r"``([\w./*]+(?:/|\.py|\.h|\.cpp))``", page))
    assert len(named) > 25
    roots = (PACKAGE, PACKAGE / "kalman", PACKAGE.parent)
    assert [name for name in named if not any(any(r.glob(name)) for r in roots)] == []


# ------------------------------------------------------------------------ the guard sees violations


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    root = tmp_path / NAME
    shutil.copytree(PACKAGE, root, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    return root


def plant(root: Path, module: str, text: str) -> None:
    path = root / module
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


COMPARE, KALMAN, RUN = "studies/compare.py", "kalman/estimators.py", "kalman/run.py"
SIMULATE, BANK = "simulation/simulate.py", "adaptive/linear_time/bank.py"
PLANTED = {
    "lazy matplotlib": (COMPARE, "import matplotlib.pyplot as plt", "imports matplotlib"),
    "matplotlib by name": (BANK, '__import__("matplotlib.pyplot")', "imports matplotlib"),
    "through the face": (KALMAN, "from afafilter import adaptive_filter", "imports from the face"),
    "the face": (KALMAN, "import afafilter", "imports from the face"),
    "relative": (RUN, "from ..adaptive import run", "imports upwards: afafilter.adaptive.run"),
    "for types only": (
        RUN,
        "if TYPE_CHECKING:\n        from afafilter.likelihood.loglik import System",
        "imports beside: afafilter.likelihood.loglik",
    ),
    "of the command": (
        SIMULATE,
        "from afafilter.cli import simulate",
        "imports upwards: afafilter.cli.simulate",
    ),
    "by name": (
        SIMULATE,
        'importlib.import_module("afafilter.cli")',
        "imports upwards: afafilter.cli",
    ),
}
"""What is planted into a function at the end of which module, and what is then reported of it."""


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_import_is_reported(copy, kind):
    module, text, said = PLANTED[kind]
    before = {_place(found) for found in wrong_imports(copy)}
    plant(copy, module, f"\n\ndef _planted():\n    {text}\n")
    name = f"{NAME}.{module.removesuffix('.py').replace('/', '.')}"
    assert {_place(found) for found in wrong_imports(copy)} - before == {f"{name} {said}"}


def test_a_planted_circle_is_reported(copy):
    plant(copy, "models/priors.py", "\n\ndef _f():\n    from . import sde\n    return sde\n")
    (circle,) = circles(copy)
    assert {"afafilter.models.priors", "afafilter.models.sde"} <= set(circle)


def test_a_module_without_a_row_is_reported(copy):
    (copy / "attic.py").write_text("import afafilter.models.sde\n")
    assert any("attic" in report for report in wrong_imports(copy))


def test_what_grows_and_what_shrinks_is_reported(copy):
    lines = "    x = 1\n" * 81
    plant(copy, "results.py", f"\n\ndef _long(a, b, c, d, e, f, g, h, i, j, *, k):\n{lines}")
    name = f"{NAME}.results._long"
    bodies = {full: body_length(function) for full, function in functions(copy)}
    assert bodies[name] == 81
    assert name in above(bodies, BODY_LINES)
    assert parameter_count(dict(functions(copy))[name]) == 11
    assert compared({"a": 90}, {}) == ["a: 90, above the limit"]
    assert compared({"a": 90}, {"a": 85}) == ["a: 90, grew from 85"]
    assert len(compared({"a": 84}, {"a": 85})) == len(compared({}, {"a": 85})) == 1
