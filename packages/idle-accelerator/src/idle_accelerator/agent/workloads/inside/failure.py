"""An exception as data: three texts, within limits, whatever the exception does when it is looked at."""

import traceback
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

from idle_accelerator.agent.workloads.frames import TEXT_LIMIT, TRACEBACK_LIMIT, TYPE_NAME_LIMIT

_FRAMES_LIMIT: Final = 2000
_OURS: Final = "idle_accelerator.agent.workloads."


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    type_name: str
    text: str
    traceback_text: str
    exit_code: int | None = None
    """Of SystemExit with a number, or without anything."""


def describe(error: BaseException, *, where: str = "") -> Failure:
    """Never raises, short of a lack of memory. ``where`` is put behind the text, to say what went on."""
    text = _guarded(lambda: str.__str__(str(error)), "(its text could not be made)")
    return Failure(
        type_name=cut(_guarded(lambda: _type_name(type(error)), "Exception"), TYPE_NAME_LIMIT),
        text=cut(f"{text} {where}" if where else text, TEXT_LIMIT),
        traceback_text=cut(_guarded(lambda: _traceback(error), "(it could not be made)"), TRACEBACK_LIMIT),
        exit_code=_exit_code(error),
    )


def cut(text: str, limit: int) -> str:
    """At most ``limit`` characters that UTF-8 can carry: what is too much is taken from the middle, and that is said."""
    if len(text) > limit:
        note = f"\n… {len(text) - limit} characters left out …\n"
        kept = limit - len(note) - 10
        text = text[: kept // 3] + note + text[len(text) - (kept - kept // 3) :]
    # Lone surrogates become six characters.
    return text.encode(errors="backslashreplace").decode()[:limit]


def _guarded(make: Any, otherwise: str) -> str:
    try:
        return make()
    except BaseException as error:  # noqa: BLE001  # it runs the user's code, which may raise anything
        return f"{otherwise}: {type(error).__name__}"


def _type_name(kind: type) -> str:
    module, name = str.__str__(kind.__module__), str.__str__(kind.__qualname__)
    return name if module in ("builtins", "__main__") else f"{module}.{name}"


def _exit_code(error: BaseException) -> int | None:
    if not isinstance(error, SystemExit):
        return None
    code = error.code
    if code is None:
        return 0
    return int(code) if isinstance(code, int) and -(2**31) <= code < 2**31 else None


def _traceback(error: BaseException) -> str:
    trace = _users_part(error.__traceback__)
    depth = 0
    walked = trace
    while walked is not None:
        depth += 1
        walked = walked.tb_next
    limit = None if depth <= _FRAMES_LIMIT else -_FRAMES_LIMIT
    lines = traceback.TracebackException(type(error), error, trace, limit=limit, compact=True).format()
    note = "" if limit is None else f"(The last {_FRAMES_LIMIT} of {depth} calls are shown.)\n"
    return note + "".join(lines)


def _users_part(trace: TracebackType | None) -> TracebackType | None:
    """Without the frames of this program, and of asyncio's runner below it."""
    while trace is not None and _is_ours(trace):
        trace = trace.tb_next
    started = trace
    while started is not None and _module(started).startswith("asyncio."):
        started = started.tb_next
    # An exception of asyncio itself keeps its frames.
    return started or trace


def _is_ours(trace: TracebackType) -> bool:
    frame_globals = trace.tb_frame.f_globals
    return frame_globals.get("_IS_THE_GUEST_PROGRAM") is True or _module(trace).startswith(_OURS)


def _module(trace: TracebackType) -> str:
    return str(trace.tb_frame.f_globals.get("__name__", ""))
