"""Every public function has an example, and the examples give what they show."""

from __future__ import annotations

import doctest
import inspect
import types
import warnings
from collections.abc import Iterator

import numpy as np
import pytest

import afafilter


def public() -> Iterator[tuple[str, object]]:
    """Functions and classes of the face and of its modules, by name."""
    for name in sorted(afafilter.__all__):
        found = getattr(afafilter, name)
        if isinstance(found, types.ModuleType):
            for part in sorted(getattr(found, "__all__", ())):
                yield f"{name}.{part}", getattr(found, part)
        else:
            yield name, found


EXAMPLES = {
    name: found
    for name, found in public()
    if callable(found) and ">>>" in (inspect.getdoc(found) or "")
}


def test_every_public_function_has_an_example():
    lacking = [
        name
        for name, found in public()
        if inspect.isfunction(found) and "." not in name and name not in EXAMPLES
    ]
    assert lacking == []
    assert len(EXAMPLES) >= 60


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_give_what_they_show(name):
    text = inspect.getdoc(EXAMPLES[name]) or ""
    names = {"__name__": "example", "np": np}
    found = doctest.DocTestParser().get_doctest(text, names, name, name, 0)
    assert found.examples
    shown: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
        runner.run(found, out=shown.append)
    assert not shown, "".join(shown)
