"""How the command ends: bad input is one line on stderr and status 2, a failure status 1."""

from __future__ import annotations

import contextlib
import re
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

BAD_INPUT = 2
FAILED = 1
INTERRUPTED = 130
TERMINATED = 143
OF_INPUT = (ValueError, TypeError, OSError, OverflowError, MemoryError, RecursionError)
"""What bad input ends with; anything else is a fault of the program."""
ISSUES = "Please report it with the traceback that --debug shows (afafilter --debug ...)."


class Terminated(BaseException):
    """SIGTERM came: what is being written is cleared away on the way out."""


class OneLineErrors(click.Group):
    """A group whose errors are one line on stderr; `--debug` shows tracebacks."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, but with the help on stderr and a status of 2 where nothing is asked."""
        if not args:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(BAD_INPUT)
        return super().parse_args(ctx, args)

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command and exit with its status (return, where `standalone_mode` is off)."""
        click_group: Any = super()
        if not extra.pop("standalone_mode", True):
            return click_group.main(*args, standalone_mode=False, **extra)
        given = args[0] if args else extra.get("args")
        debug = "--debug" in (sys.argv[1:] if given is None else given)
        _catch_sigterm()
        try:
            status = click_group.main(*args, standalone_mode=False, **extra)
        except click.UsageError as error:
            where = error.ctx.command_path if error.ctx else "afafilter"
            status = _fail(f"{error.format_message()} (see {where} --help)")
        except click.ClickException as error:
            status = _fail(error.format_message(), error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            status = _fail("interrupted", INTERRUPTED)
        except Terminated:
            status = _fail("terminated", TERMINATED)
        except BrokenPipeError:
            sys.stdout = None
            status = FAILED
        except OF_INPUT as error:
            if debug:
                raise
            status = _fail(_one_line(error))
        except Exception as error:
            if debug:
                raise
            status = _fail(f"internal error: {type(error).__name__}: {error}. {ISSUES}", FAILED)
        sys.exit(status if isinstance(status, int) else 0)


def _catch_sigterm() -> None:
    """Let SIGTERM end the work by an exception, so that no temporary file stays."""

    def end(*_: Any) -> None:
        raise Terminated

    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, end)


def _fail(message: str, status: int = BAD_INPUT) -> int:
    click.echo(f"afafilter: {' '.join(message.split())}", err=True)
    return status


def _one_line(error: BaseException) -> str:
    if isinstance(error, FileExistsError) and error.strerror is None:
        return str(error).replace("force overwrites it", "--force overwrites it")
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, UnicodeEncodeError):
        return f"not text that {error.encoding} can write: {error.object[:40]!r}"
    if isinstance(error, RecursionError):
        return "the input is nested too deeply"
    if isinstance(error, MemoryError):
        return f"not enough memory: {error}" if str(error) else "not enough memory"
    return str(error) or type(error).__name__


@contextmanager
def short_warnings() -> Iterator[None]:
    """Warnings as one line on stderr, once where they differ in their numbers only."""
    said: set[str] = set()

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        text = " ".join(str(message).split())
        kind = re.sub(r"\d+(\.\d+)?", "#", text)
        if kind not in said:
            said.add(kind)
            click.echo(f"afafilter: warning: {text}", err=True)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
