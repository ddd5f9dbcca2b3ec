"""Text from files and stdin: unpacked, decoded, with one kind of line end; never without an end."""

from __future__ import annotations

import codecs
import importlib
import io
import sys
from pathlib import Path

from afafilter.io.files import read_file

MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ": "lzma"}
TABLES = {
    b"PK\3\4": "a zip archive or an Excel workbook: take the table out of it as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook: save it as CSV",
    b"PAR1": "a Parquet file, whose name must end in .parquet",
    b"ARROW1": "a Feather file: write it as Parquet or CSV",
}
"""What else begins so, and what to do."""
MOST_BYTES = 1 << 31
"""What stdin may hold."""
UNPACKED = 1 << 28, 100
"""What a compressed file may hold: so many bytes, or so many times its own."""


def read_text(path: Path | str, name: Path | str, encoding: str) -> str:
    """A file ("-": stdin), unpacked and decoded, its lines ended by \\n; `name` in messages.

    Raises
    ------
    ValueError
        No text in this encoding, NUL bytes, a damaged archive, one that unpacks to far too much.
    OSError
        If the file cannot be read.
    """
    raw = _from_stdin() if str(path) == "-" else read_file(path)
    for magic, module in MAGIC.items():
        if raw.startswith(magic):
            raw = _unpacked(name, raw, module)
    for magic, said in TABLES.items():
        if raw.startswith(magic):
            raise ValueError(f"{name}: is {said}")
    if raw.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        encoding = "utf-32"
    elif raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    try:
        text = raw.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name}: not {encoding} text ({error.reason}); --encoding cp1252 reads most others"
        ) from None
    except (LookupError, UnicodeError):
        raise ValueError(
            f"encoding must be a text encoding such as cp1252, got {encoding!r}"
        ) from None
    if "\0" in text:
        raise ValueError(
            f"{name}: holds NUL bytes, so it is no text (or UTF-16 without its mark: "
            "--encoding utf-16-le reads that)"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _from_stdin() -> bytes:
    raw = sys.stdin.buffer.read(1 << 16)
    if not (b"\0" in raw and raw.strip(b"\0") == b""):
        raw += sys.stdin.buffer.read(MOST_BYTES)
    if len(raw) > MOST_BYTES:
        raise ValueError(f"stdin: more than {MOST_BYTES} bytes: write them to a file")
    return raw


def _unpacked(name: Path | str, raw: bytes, module: str) -> bytes:
    import zlib

    packer = importlib.import_module(module)
    most = max(UNPACKED[0], UNPACKED[1] * len(raw))
    try:
        text: bytes = packer.open(io.BytesIO(raw)).read(most + 1)
    except (OSError, EOFError, zlib.error, getattr(packer, "LZMAError", OSError)) as error:
        raise ValueError(f"{name}: damaged {module} file: {error}") from None
    refuse_bomb(name, len(text), len(raw))
    return text


def refuse_bomb(path: Path | str, size: int, packed: int) -> None:
    """ValueError where unpacking a file of `packed` bytes makes far too many of them."""
    least, times = UNPACKED
    if size > max(least, times * packed):
        raise ValueError(
            f"{path}: {packed} bytes that unpack to more than {max(least, times * packed)}: "
            "unpack it first if that is meant"
        )
