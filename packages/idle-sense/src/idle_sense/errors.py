"""Every error that this library raises on purpose.

SenseError                     message, field, hint: what is wrong, where, and what to do next
├── InvalidPolicy              a policy's field has no sensible value
├── InvalidHistory             a file of habits that this version cannot have written
└── InvalidTrace               a recorded trace is broken; line: where

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

    def __init__(
        self, message: str, *, field: str | None = None, hint: str | None = None, line: int | None = None
    ) -> None:
        super().__init__(message, field=field, hint=hint)
        self.line = line
        """Of the file that it came from, where that is known."""

    def __str__(self) -> str:
        return super().__str__() if self.line is None else f"line {self.line}: {super().__str__()}"


class InvalidHistory(SenseError, ValueError):
    code = "invalid_history"


class InvalidTrace(SenseError, ValueError):
    code = "invalid_trace"

    def __init__(self, message: str, *, line: int) -> None:
        super().__init__(f"line {line}: {message}.", hint="Record it anew, or cut it off before that line.")
        self.line = line
        """Counted from 1."""
