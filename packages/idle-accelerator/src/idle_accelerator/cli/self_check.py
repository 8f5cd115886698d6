"""One real task through the whole loop: submit, match, run on this machine, result back."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idle_accelerator.errors import IdleError, Unavailable

if TYPE_CHECKING:
    from idle_accelerator.sdk.client import JobHandle
    from idle_accelerator.settings import Connection

WORD_S = 120.0
_RESULT_S = 60.0
_EXPECTED = "42"


@dataclass(frozen=True, kw_only=True)
class SelfCheck:
    """What came back."""

    job_id: str
    answer: str
    node_name: str
    took_s: float
    """From the submit to the result."""


def self_check(place: "Connection", agent_dir: Path) -> SelfCheck:
    """Runs ``print(6*7)`` on this machine by its owner's word, which holds for this job alone and is then taken back.

    Raises IdleError when the answer is wrong or does not come.
    """
    from idle_accelerator.agent import control  # noqa: PLC0415  # imported when needed
    from idle_accelerator.sdk.client import Client  # noqa: PLC0415  # as above

    status = control.read_status(agent_dir)
    if status is None:
        raise Unavailable(
            "the agent says nothing about itself.", hint=f"See that {agent_dir} can be written."
        )
    with Client(place.url, place.key) as client:
        began = time.monotonic()
        handle = client.submit(
            [sys.executable, "-c", "print(6*7)"],
            name="self-check of idlectl up",
            node=status.node_id,
            timeout=_RESULT_S,
        )
        earlier = control.read_word(agent_dir)
        control.give_word(agent_dir, control.OwnerWord(kind="lend", for_s=WORD_S, jobs=(handle.id,)))
        try:
            answer = _answer_of(handle)
        finally:
            _give_again(agent_dir, earlier)
        took_s = time.monotonic() - began
    if answer != _EXPECTED:
        raise Unavailable(
            f"the self-check came back with {answer!r} instead of {_EXPECTED}.",
            hint=f"Look at it: idlectl job {handle.id}",
        )
    return SelfCheck(job_id=handle.id, answer=answer, node_name=status.name, took_s=took_s)


def _answer_of(handle: "JobHandle[Any]") -> str:
    try:
        output = handle.result(timeout=_RESULT_S).stdout
    except TimeoutError as error:
        why = "; ".join(handle.explain()) or f"it is {handle.status.state}"
        handle.cancel()
        raise Unavailable(
            f"the self-check did not come back within {_RESULT_S:.0f} s: {why}.",
            hint=f"Look at it: idlectl job {handle.id}",
        ) from error
    except IdleError as error:
        raise Unavailable(
            f"the self-check failed: {error.message}",
            hint=error.hint or f"Look at it: idlectl job {handle.id}",
        ) from error
    text = output.decode(errors="replace") if isinstance(output, bytes) else str(output)
    return text.strip()


def _give_again(agent_dir: Path, earlier: object) -> None:
    """Puts back the word that held before, for the time that is left of it."""
    from idle_accelerator.agent import control  # noqa: PLC0415  # as above

    word: control.OwnerWord | None = None
    if isinstance(earlier, control.GivenWord) and earlier.word is not None:
        left_s = earlier.left_s(time.time())
        if left_s is None or left_s > 0:
            word = control.OwnerWord(kind=earlier.word.kind, for_s=left_s, jobs=earlier.word.jobs)
    control.give_word(agent_dir, word)
