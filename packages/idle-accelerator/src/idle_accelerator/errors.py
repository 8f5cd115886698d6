"""Every error that this project raises on purpose.

IdleError                      code, message, field, hint: the one shape, also over HTTP
├── InvalidInput               what was given is wrong; names the field
├── NotFound                   no such job, task, node, blob
├── Conflict                   the thing is not in a state that allows this
├── Unauthorized               no key, or not this key
├── Forbidden                  the key is good but may not do this
├── TooLarge                   over a stated limit
├── Unavailable                scheduler unreachable, restarting or out of room: try again
│   └── Damaged                content came with another digest than its name, more than once
├── StorageFull                no room left on the disk that must hold this
├── Untrusted                  a pickled result from a node that the submitter does not trust by name
├── InvalidTransition          an attempt was asked for a move that its state does not allow
├── ResultTimeout              the wait ended before the result came; the task goes on
└── TaskFailed                 the task ended without success
    ├── RemoteException        the user's function raised; carries the remote traceback as text
    └── TaskCancelled          somebody cancelled it
"""

from typing import Any, ClassVar


class IdleError(Exception):
    """Base of the tree. ``str(error)`` is a full sentence with the hint, fit for a terminal."""

    code: ClassVar[str] = "error"
    http_status: ClassVar[int] = 500

    def __init__(
        self, message: str, *, field: str | None = None, hint: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.hint = hint
        self.error_code = code or self.code

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        hint = f" {self.hint}" if self.hint else ""
        return f"{where}{self.message}{hint}"

    def as_body(self) -> dict[str, str | None]:
        """The error body of the HTTP API."""
        return {"code": self.error_code, "message": self.message, "field": self.field, "hint": self.hint}


class InvalidInput(IdleError):
    code = "invalid_input"
    http_status = 422


class NotFound(IdleError):
    code = "not_found"
    http_status = 404


class Conflict(IdleError):
    code = "conflict"
    http_status = 409


class Unauthorized(IdleError):
    code = "unauthorized"
    http_status = 401


class Forbidden(IdleError):
    code = "forbidden"
    http_status = 403


class TooLarge(IdleError):
    code = "too_large"
    http_status = 413


class Unavailable(IdleError):
    code = "unavailable"
    http_status = 503


class Damaged(Unavailable):
    code = "damaged"


class StorageFull(IdleError):
    code = "storage_full"
    http_status = 507


class Untrusted(IdleError):
    code = "untrusted"


class InvalidTransition(IdleError):
    code = "invalid_transition"
    http_status = 409

    def __init__(self, *, before: str, after: str, mover: str) -> None:
        super().__init__(f"{mover} may not move an attempt from {before} to {after}")
        self.before = before
        self.after = after
        self.mover = mover


class ResultTimeout(IdleError, TimeoutError):
    code = "result_timeout"


class TaskFailed(IdleError):
    """A task ended without success.

    ``reason`` is the wire reason's sentence; ``task_index`` says which task.
    """

    code = "task_failed"

    def __init__(
        self, message: str, *, job_id: str, task_index: int, hint: str | None = None, **extra: Any
    ) -> None:
        super().__init__(message, hint=hint, **extra)
        self.job_id = job_id
        self.task_index = task_index


class RemoteException(TaskFailed):
    """The user's function raised on the node. The exception travels as data, never as code."""

    code = "remote_exception"

    def __init__(
        self,
        *,
        type_name: str,
        text: str,
        traceback_text: str,
        job_id: str,
        task_index: int,
        hint: str | None = None,
    ) -> None:
        super().__init__(f"{type_name}: {text}", job_id=job_id, task_index=task_index, hint=hint)
        self.type_name = type_name
        self.text = text
        self.traceback_text = traceback_text

    def __str__(self) -> str:
        return f"{self.type_name}: {self.text}\n\nTraceback on the node:\n{self.traceback_text}"


class TaskCancelled(TaskFailed):
    code = "task_cancelled"


BY_CODE: dict[str, type[IdleError]] = {
    cls.code: cls
    for cls in (InvalidInput, NotFound, Conflict, Unauthorized, Forbidden, TooLarge, Unavailable, StorageFull)
}
"""Error classes that an HTTP error body is turned back into by the SDK."""
