"""Files written whole or not at all, refused before the work where that can be foreseen."""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NO_ROOM = errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO
"""What a file that cannot be written whole ends with; the error does not name it."""

LONGEST_NAME = 255 - 32
"""Characters of a file's name that leave room for the temporary one."""


@contextmanager
def atomic_path(path: str | Path, *, force: bool = True) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends well.

    Readers see the old file or the new one, never a part; a failure inside leaves no trace.

    Raises
    ------
    FileExistsError
        If the file exists and `force` is False.
    OSError
        What goes wrong with the temporary file, told of `path`.
    """
    path = Path(path)
    refuse_existing([path], force=force)
    temporary = path.with_name(f".{path.stem[:100]}-{secrets.token_hex(6)}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is not None and temporary.name in f"{error.filename} {error.strerror}":
            raise type(error)(error.errno, os.strerror(error.errno), str(path)) from None
        if error.errno in NO_ROOM and error.filename is None:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def read_file(path: Path | str) -> bytes:
    """All of a file; what may never end is refused.

    Raises
    ------
    ValueError
        No regular file, such as a pipe or a device.
    OSError
        If it cannot be read.
    """
    kind = os.stat(path).st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise ValueError(f"{path}: not a regular file; what a pipe holds is read from stdin (-)")
    return Path(path).read_bytes()


def write_text(path: str | Path, text: str, *, force: bool = True) -> None:
    """Write a whole text file or, where that fails, nothing; errors as of `atomic_path`."""
    with atomic_path(path, force=force) as temporary:
        temporary.write_text(text, encoding="utf-8")


class TwiceError(ValueError):
    """An object of JSON says one key twice."""


def parse_json(text: str | bytes, **options: Any) -> Any:
    """JSON whose objects say each key once, as TOML wants it; ValueError for other text."""
    try:
        return json.loads(text, object_pairs_hook=_once, **options)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        often = Counter(name for name, _ in pairs)
        twice = next(name for name, times in often.items() if times > 1)
        raise TwiceError(f"key {twice!r} stands twice in one object: keep one of them")
    return found


def refuse_existing(paths: Sequence[Path], *, force: bool) -> None:
    """Raise FileExistsError for the first of `paths` that exists, unless `force`."""
    for path in paths:
        if not force and os.path.lexists(path):
            raise FileExistsError(f"{path} exists already; force overwrites it")


def foresee(paths: Sequence[Path]) -> None:
    """OSError for what could not be written later: directories, folders not there or closed."""
    for path in paths:
        if "\0" in str(path):
            raise ValueError(f"a file's name must not hold NUL bytes, got {str(path)!r}")
        if len(path.name) > LONGEST_NAME:
            raise ValueError(f"{path.name[:40]}...: the file name is too long")
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a directory; name a file in it")
        folder = path.parent
        if not folder.is_dir():
            raise FileNotFoundError(f"no such directory: {folder}")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(f"{path}: the directory {folder} cannot be written to")
