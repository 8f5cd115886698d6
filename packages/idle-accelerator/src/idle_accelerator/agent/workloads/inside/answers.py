"""Bodies of the replies to calls that did not return a value that can be sent."""

from typing import Final

from idle_accelerator.agent.workloads.frames import RAISED_BODY, TEXT_LIMIT
from idle_accelerator.agent.workloads.inside.failure import cut, describe
from idle_accelerator.errors import InvalidInput

_NO_MEMORY: Final = (RAISED_BODY.pack(0, 0, 11, 0, 0), b"MemoryError")


class Unopened(Exception):  # nobody sees it: ``raised`` shows what is in it
    """The function or its arguments could not be unpickled here."""

    def __init__(self, what: str, error: Exception) -> None:
        super().__init__(what, error)
        self.what = what
        self.error = error


def raised(error: BaseException) -> tuple[bytes, ...]:
    """What follows ENDED_BODY in a frame RAISED, in parts."""
    try:
        return _raised(error)
    except MemoryError:
        return _NO_MEMORY


def refusal(what: str, error: Exception) -> bytes:
    failure = describe(error)
    return cut(f"{what}: {failure.type_name}: {failure.text}", TEXT_LIMIT).encode()


def no_plain_data(error: InvalidInput) -> bytes:
    """With what to do about it."""
    knows = error.hint is not None and "pickle" in error.hint
    text = str(error) if knows else f"{error} Return plain data, or submit with results='pickle'."
    return cut(text, TEXT_LIMIT).encode()


def _raised(error: BaseException) -> tuple[bytes, ...]:
    if isinstance(error, Unopened):
        hint = " Install it on the node, or define what is needed in the script itself."
        missing = isinstance(error.error, ImportError)
        where = f"(while the {error.what} was opened on the node.{hint if missing else ''})"
        failure = describe(error.error, where=where)
    else:
        failure = describe(error)
    texts = [text.encode() for text in (failure.type_name, failure.text, failure.traceback_text)]
    code = failure.exit_code
    return (RAISED_BODY.pack(code is not None, code or 0, *map(len, texts)), *texts)
