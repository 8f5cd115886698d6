"""Texts and paths that people and other machines give, held to what is safe to show and to use."""

import re
import unicodedata
from typing import Annotated

from pydantic import AfterValidator, Field

_DRIVE = re.compile(r"^.:", re.DOTALL)
_NOT_PLAIN = frozenset({"Cc", "Cs", "Co", "Zl", "Zp"})
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")


def is_plain(text: str) -> bool:
    """Whether it holds nothing that breaks a line, is invisible on purpose or turns the writing direction.

    Emoji with their joiners, and the spaces of every script, are plain.
    """
    return text.isprintable() or not any(
        unicodedata.category(letter) in _NOT_PLAIN or letter in _TURNING for letter in text
    )


def check_plain_text(text: str) -> str:
    """Raises ValueError for text that is not plain."""
    if not is_plain(text):
        raise ValueError("must not hold newlines or other control characters")
    return text


def check_workspace_path(path: str) -> str:
    """A path that stays inside the workspace on every operating system.

    Raises ValueError for absolute paths, ``..``, back-slashes, drive letters, control characters and empty parts. Windows
    drops dots and spaces at the end of a name, so there ``.. `` is ``..``; and a drive letter anywhere starts anew.
    """
    if not path or not is_plain(path):
        raise ValueError("must be a non-empty path without newlines or other control characters")
    parts = path.split("/")
    if path.startswith("/") or "\\" in path or any(_DRIVE.match(part) for part in parts):
        raise ValueError("must be a relative path with forward slashes, inside the workspace")
    if any(not part.strip(". ") for part in parts):
        raise ValueError("must not hold empty parts, '.' or '..': it may not leave the workspace")
    return path


Text = Annotated[str, Field(max_length=200), AfterValidator(check_plain_text)]
WorkspacePath = Annotated[str, Field(max_length=1000), AfterValidator(check_workspace_path)]
