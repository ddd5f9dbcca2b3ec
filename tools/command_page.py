"""Writes what docs/command.rst says of formats and options, from the code. Run it after a change.

    python tools/command_page.py

Regions between `.. begin NAME` and `.. end NAME` are replaced; a test checks that they are current.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from pathlib import Path

import click

from afafilter.cli import main
from afafilter.io import model_toml
from afafilter.studies import toml

INDENTED = textwrap.TextWrapper(
    96,
    initial_indent="   ",
    subsequent_indent="   ",
    break_on_hyphens=False,
    break_long_words=False,
)
PAGE = Path(__file__).parents[1] / "docs" / "command.rst"


def written(page: str) -> str:
    """The page with its regions as they should be."""
    shown = [(name, command) for name, command in main.commands.items() if not command.hidden]
    regions = {
        "model format": format_of(model_toml),
        "study format": format_of(toml),
        "options": "\n".join(options_of(name, command) for name, command in shown),
    }
    for name, text in regions.items():
        pattern = rf"(?<=\.\. begin {name}\n).*?(?=\.\. end {name}\n)"
        page, found = re.subn(pattern, lambda _, t=text: f"\n{t}\n", page, flags=re.DOTALL)
        if found != 1:
            raise ValueError(f"docs/command.rst must hold the region {name!r} once, has {found}")
    return page


def format_of(module: object) -> str:
    """The example of a TOML format and what is said below it, from the module's docstring."""
    text = (inspect.getdoc(module) or "").partition("\n")[2].strip()
    return text.replace("::\n", ".. code-block:: toml\n", 1) + "\n"


def options_of(name: str, command: click.Command) -> str:
    """A section: usage, what the command does, its options."""
    above = click.Context(main, **main.context_settings)
    context = click.Context(command, parent=above, info_name=f"afafilter {name}")
    usage = " ".join([f"afafilter {name}", *command.collect_usage_pieces(context)])
    lines = [f"afafilter {name}", "~" * (10 + len(name)), "", "::", "", f"   {usage}", ""]
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        if paragraph.startswith("\b"):
            lines += ["::", "", *(f"   {line}" for line in paragraph.splitlines()[1:]), ""]
        else:
            lines += [*textwrap.wrap(_plain(paragraph), 100, break_on_hyphens=False), ""]
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        option = isinstance(parameter, click.Option) and "--help" not in parameter.opts
        if option and record is not None:
            lines.append(f"``{record[0]}``")
            lines += INDENTED.wrap(_plain(record[1]))
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Text that reStructuredText leaves as it is."""
    return re.sub(r"([*|\\`]|(?<=\w)_(?=\W|$)|<)", r"\\\1", " ".join(text.split()))


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
