"""In which encoding a text file is written: by its bytes, never by the machine's setting.

UTF-8 (with a byte order mark or without) and UTF-16 (with one) say so themselves. Anything else is
tried as cp949, in which Korean Windows and Excel write CSV files, and believed only if what comes
out is Korean: bytes of Western encodings can be read as cp949 too, as nonsense.
"""

from __future__ import annotations

import codecs
from pathlib import Path

from steepest.errors import DataError, InputError

__all__ = ["find_encoding"]

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CHUNK = 1 << 20
_KOREAN = 0.5  # least share of Hangul among the characters that are not ASCII


def find_encoding(path: Path, asked: str | None) -> tuple[str, str]:
    """The encoding of a text file, and a note if it had to be guessed.

    Args:
        path: The file.
        asked: What the user says it is.

    Raises:
        InputError: If there is no such encoding.
        DataError: If the file cannot be read in it, or in none that is known; with the line.
    """
    if asked is not None:
        try:
            name = codecs.lookup(asked).name
        except LookupError as error:
            raise InputError(
                f"unknown encoding '{asked}'; for example utf-8, cp949, utf-16, latin-1"
            ) from error
        wrong = _first_wrong(path, name)
        if wrong is not None:
            raise DataError(f"{path.name} is not written in {asked}: {wrong}")
        return ("utf-8-sig" if name == "utf-8" else name), ""
    with path.open("rb") as file:
        head = file.read(4)
    for mark, name in _MARKS:
        if head.startswith(mark):
            wrong = _first_wrong(path, name)
            if wrong is not None:
                raise DataError(f"{path.name} begins as {name} but is not written in it: {wrong}")
            return name, ""
    wrong = _first_wrong(path, "utf-8")
    if wrong is None:
        return "utf-8", ""
    if b"\0" in head:
        raise DataError(
            f"{path.name} is no text in UTF-8 ({wrong}) and has zero bytes at its beginning: if it "
            "is UTF-16 without a byte order mark, say encoding=utf-16-le; else it is no text file"
        )
    if _first_wrong(path, "cp949") is None and _hangul(path) >= _KOREAN:
        return "cp949", f"{path.name} is not UTF-8; it is read as cp949 (Korean Windows)"
    raise DataError(
        f"{path.name} is neither UTF-8 ({wrong}) nor Korean in cp949; save it as UTF-8, or say "
        "what it is: encoding=latin-1, encoding=cp1252, encoding=shift_jis"
    )


def _first_wrong(path: Path, encoding: str) -> str | None:
    """Where a file stops being written in an encoding; None if it is."""
    decoder = codecs.getincrementaldecoder(encoding)(errors="strict")
    lines, characters = 1, 0
    with path.open("rb") as file:
        while True:
            data = file.read(_CHUNK)
            wrong = None
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                wrong = error.object[error.start]
                text = error.object[: error.start].decode(encoding, errors="replace")
            lines += text.count("\n")
            characters = len(text.rpartition("\n")[2]) + (0 if "\n" in text else characters)
            if wrong is not None:
                return f"line {lines}, character {characters + 1} has the byte 0x{wrong:02x}"
            if not data:
                return None


def _hangul(path: Path) -> float:
    """The share of Korean syllables among what is not ASCII, in the first few megabytes."""
    with path.open(encoding="cp949", errors="replace") as file:
        letters = [c for c in file.read(4 * _CHUNK) if ord(c) > 127]
    return sum("가" <= c <= "힣" for c in letters) / max(1, len(letters))
