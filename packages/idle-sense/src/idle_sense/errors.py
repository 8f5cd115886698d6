"""Every error that this library raises on purpose.

SenseError                     message, field, hint: what is wrong, where, and what to do next
├── InvalidPolicy              a policy's field has no sensible value
└── DisplayError               a display server refused, ended or broke the protocol; probes turn it into a reading

What a machine does not let us read is no error: it is a Reading without a value, and counts as busy.
"""

from typing import ClassVar


class SenseError(Exception):
    """Base of the tree. ``str(error)`` is a full sentence with the hint, fit for a terminal."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, field: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.hint = hint

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        hint = f" {self.hint}" if self.hint else ""
        return f"{where}{self.message}{hint}"


class InvalidPolicy(SenseError, ValueError):
    code = "invalid_policy"


class DisplayError(SenseError):
    code = "display"

    def __init__(self, message: str, *, hint: str, refused: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.refused = refused
        """The server answered and does not let this user in; another credential may."""
