"""Why there is no environment, and whose fault that is: by what uv said."""

import re
from collections.abc import Mapping
from typing import ClassVar, Final

from idle_accelerator.errors import IdleError
from idle_accelerator.sdk.indexes import redact
from idle_accelerator.wire.reasons import Reason, reason

_DETAIL_LENGTH: Final = 500
_FULL: Final = re.compile(r"no space left on device|os error (28|122)\b|disk quota exceeded", re.IGNORECASE)
_MACHINE: Final = re.compile(
    r"error sending request|failed to fetch|could not connect|connection (refused|reset|closed)|dns error|timed out|"
    r"request failed|tls|certificate|status (client|server) error|operation not permitted|permission denied|"
    r"too many open files|cannot allocate memory|network connectivity is disabled|read-only file system|"
    r"failed to query python|no interpreter found",
    re.IGNORECASE,
)
_SETTLED: Final = re.compile(
    r"no solution found|hash mismatch|not found in the package registry|unsatisfiable|was not found in the cache",
    re.IGNORECASE,
)
_NOISE: Final = re.compile(r"^(warning|hint|Using |Resolved |Creating |Prepared |Installed )", re.IGNORECASE)


class EnvironmentRefused(IdleError):
    """It can never be made, here or anywhere like here: the job's own fault."""

    code: ClassVar[str] = "environment_refused"

    def __init__(self, message: str, *, why: Reason | None = None) -> None:
        super().__init__(
            message,
            field="environment",
            hint="Make it at home first, by wheels alone: uv pip install --only-binary :all: -r FILE",
        )
        self.why: Final = why or reason("task.environment_refused", detail=message[:_DETAIL_LENGTH])


class EnvironmentTrouble(IdleError):
    """It cannot be made on this machine at present."""

    code: ClassVar[str] = "environment_failed"

    def __init__(self, message: str, *, disk_full: bool = False) -> None:
        super().__init__(message, hint="See that this machine reaches its package index, and has room.")
        self.why: Final = (
            reason("agent.disk_full")
            if disk_full
            else reason("agent.environment_failed", detail=message[:_DETAIL_LENGTH])
        )


def fault_of(
    said: str, *, exit_code: int | None, signal: int | None, index: Mapping[str, str], folder: str
) -> EnvironmentRefused | EnvironmentTrouble:
    """From the end of uv's standard error, which is shown without passwords and without where it stood."""
    text = redact(said, index).replace(folder, "")
    if signal is not None:
        return EnvironmentTrouble(f"uv was ended by signal {signal}.")
    detail = _telling(text) or f"uv ended with exit status {exit_code}"
    if _FULL.search(text):
        return EnvironmentTrouble(detail, disk_full=True)
    if _MACHINE.search(text) and not _SETTLED.search(text):
        return EnvironmentTrouble(detail)
    return EnvironmentRefused(detail)


def _telling(text: str) -> str:
    """The lines that say what is wrong, in one. uv draws causes as a tree below the error."""
    lines = [re.sub(r"[│├└╰─▶×]+|\s+", " ", line).strip() for line in text.splitlines()]
    kept = [line for line in lines if line and not _NOISE.match(line)]
    joined = " ".join(kept).removeprefix("error: ")
    return "".join(letter if letter.isprintable() else " " for letter in joined)[:_DETAIL_LENGTH]
