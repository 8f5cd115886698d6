"""A submitted job: its state, results, output and files."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, cast

from idle_accelerator.errors import IdleError, InvalidInput, ResultTimeout
from idle_accelerator.sdk.abreast import abreast
from idle_accelerator.sdk.artifacts import Placer
from idle_accelerator.sdk.checkpoints import Received, chosen
from idle_accelerator.sdk.checkpoints import download as download_to
from idle_accelerator.sdk.feed import Deadline, ResultFeed, wait_until_over
from idle_accelerator.sdk.logs import LogStream, LogTail, whole_log
from idle_accelerator.sdk.results import failure_of, is_ready
from idle_accelerator.sdk.session import Session
from idle_accelerator.sdk.sync import (
    BlockingStream,
    Facade,
    Faced,
    Portal,
    Stream,
    blocking,
    blocking_property,
    opening,
)
from idle_accelerator.wire.checkpoints import CheckpointView, Progress
from idle_accelerator.wire.jobs import Artifact, JobDetail, JobView, TaskDetail, TaskPage, TaskResult
from idle_accelerator.wire.states import TaskState

T = TypeVar("T")
_AT_ONCE = 8
"""Downloads, or outputs, that are fetched side by side."""
_BATCH_BYTES = 64 * 1024 * 1024
_REASONS_SHOWN = 20
_REASONS_S = 2.0


@dataclass(frozen=True, kw_only=True)
class CommandResult:
    """What a command that ended well left behind. Of long output the tail is kept, at most 1 MiB a stream."""

    index: int
    exit_code: int
    stdout: bytes
    stderr: bytes
    artifacts: tuple[Artifact, ...] = ()


@dataclass(frozen=True, kw_only=True)
class JobFacts:
    """What a handle knows of its job without asking."""

    job_id: str
    kind: Literal["command", "function", "wasm"]
    tasks: int
    dataclasses: Mapping[str, type] = field(default_factory=dict[str, type])


class AsyncJobHandle(Faced["JobHandle[T]"], Generic[T]):
    """``T``: what a task gives; the function's value, or a CommandResult."""

    def __init__(self, session: Session, facts: JobFacts) -> None:
        self._session = session
        self._facts = facts
        self.id = facts.job_id

    def __repr__(self) -> str:
        return f"<job {self.id}: {self._facts.kind}, {self._facts.tasks} task(s)>"

    def facade(self, portal: Portal) -> "JobHandle[T]":
        return JobHandle(self, portal)

    async def status(self) -> JobView:
        """How the job stands now."""
        return (await self.detail()).view

    async def detail(self) -> JobDetail:
        """How the job stands now, and its spec."""
        return (await self._get("")).read(JobDetail)

    async def explain(self) -> tuple[str, ...]:
        """Why its queued tasks wait; or, when none waits, why tasks failed. Sentences."""
        view = await self.status()
        if view.waiting:
            return tuple(item.sentence for item in view.waiting)
        if not view.counts.failed:
            return ()
        failed = await self.tasks(limit=_REASONS_SHOWN, state=TaskState.FAILED)
        return tuple(
            dict.fromkeys(
                f"task {item.index}: {item.reason.sentence}" for item in failed.tasks if item.reason
            )
        )

    async def tasks(
        self, limit: int = 200, state: TaskState | None = None, cursor: int | None = None
    ) -> TaskPage:
        """Tasks by index; ask again with ``cursor=page.next_cursor``."""
        return (await self._get("/tasks", limit=limit, state=state, cursor=cursor)).read(TaskPage)

    async def task(self, index: int) -> TaskDetail:
        """One task with all of its attempts and its artifacts."""
        return (await self._get(f"/tasks/{_checked_index(index)}")).read(TaskDetail)

    async def cancel(self) -> JobView:
        """Ends what has not finished. Running tasks are told to leave, then killed."""
        answer = await self._session.transport.request("POST", f"/v1/jobs/{self.id}/cancel")
        return answer.read(JobView)

    async def wait(self, timeout: float | None = None) -> JobView:  # noqa: ASYNC109  # a wait that ends says what it waited for
        """Until the job has ended, well or not. Outlasts restarts of the scheduler. Raises ResultTimeout."""
        await wait_until_over(self._session.transport, self.id, Deadline(timeout))
        return await self.status()

    async def result(self, timeout: float | None = None) -> T:  # noqa: ASYNC109  # a wait that ends says what it waited for
        """What the job's only task gives. Raises RemoteException, TaskFailed, TaskCancelled, ResultTimeout, Untrusted."""
        if self._facts.tasks != 1:
            raise InvalidInput(
                f"job {self.id} has {self._facts.tasks} tasks, so it has no single result.",
                field="result",
                hint="Use results(), or as_finished().",
            )
        return (await self.results(timeout))[0]

    async def results(self, timeout: float | None = None) -> list[T]:  # noqa: ASYNC109  # a wait that ends says what it waited for
        """What all tasks give, by index. Raises for the first that fails, as soon as that is known."""
        deadline = Deadline(timeout)
        feed = ResultFeed(self._session.transport, self.id)
        values: dict[int, T] = {}
        try:
            while batch := await feed.next_results(deadline):
                for start in range(0, len(batch), _AT_ONCE * 32):
                    part = batch[start : start + _AT_ONCE * 32]
                    opened = await self.values(part)
                    values.update(zip((item.index for item in part), opened, strict=True))
        except ResultTimeout as error:
            raise await self._with_reason(error) from None
        return [values[index] for index in sorted(values)]

    def as_finished(self, timeout: float | None = None) -> Stream[TaskResult]:
        """Outcomes in the order in which tasks finish, none opened yet: ``value`` does that. ``timeout`` is for all of them."""
        feed = ResultFeed(self._session.transport, self.id)
        deadline: Deadline | None = None

        async def fetch() -> Sequence[TaskResult]:
            nonlocal deadline
            deadline = deadline or Deadline(timeout)
            return await feed.next_results(deadline)

        return Stream(fetch)

    async def value(self, result: TaskResult) -> T:
        """What a task gave: the function's value, or a CommandResult. Raises as ``result`` does."""
        if self._facts.kind != "function":
            return cast("T", await self._command_result(result))
        return await self._session.reader.value(self.id, result, self._facts.dataclasses)

    async def values(self, results: Sequence[TaskResult]) -> list[T]:
        """The same for many; what must be fetched is fetched side by side."""
        reader, classes = self._session.reader, self._facts.dataclasses
        values: list[Any] = [None] * len(results)
        slow: list[int] = []
        for place, item in enumerate(results):
            if self._facts.kind == "function" and is_ready(item):
                values[place] = reader.ready_value(item, classes)
            elif failure := failure_of(self.id, item):
                raise failure
            else:
                slow.append(place)
        opened = await abreast(self.value, [results[place] for place in slow], at_once=_AT_ONCE)
        for place, value in zip(slow, opened, strict=True):
            values[place] = value
        return values

    async def logs(self, task: int = 0, stream: LogStream = "stdout", epoch: int | None = None) -> bytes:
        """What a task has written so far: of the attempt ``epoch``, or of the newest. The tail, if it was too much."""
        return await whole_log(
            self._session.transport, self.id, _checked_index(task), _checked_stream(stream), epoch
        )

    def follow_logs(self, task: int = 0, stream: LogStream = "stdout") -> Stream[bytes]:
        """What a task writes, as it comes, attempt after attempt, until the task has ended."""
        return Stream(
            LogTail(
                self._session.transport, self.id, _checked_index(task), _checked_stream(stream)
            ).next_pieces
        )

    async def download(self, to: str | Path, task: int | None = None) -> list[Path]:
        """Output files of the tasks that have finished, into the folder ``to``: ``to/path``, of arrays ``to/index/path``.

        Each file is verified, and replaces one that stands there. Nothing is written outside ``to``. Returns what was written.
        """
        placer = Placer(
            Path(to), windows=sys.platform == "win32", ignores_case=sys.platform in ("win32", "darwin")
        )
        wanted: list[tuple[Artifact, Path]] = []
        for index, artifacts in await self._artifacts(task):
            folder = str(index) if self._facts.tasks > 1 else None
            wanted.extend((item, placer.place(folder, item.path)) for item in artifacts)

        async def fetch(line: tuple[Artifact, Path]) -> None:
            await self._session.blobs.download(line[0].digest, line[1])

        await abreast(fetch, wanted, at_once=_AT_ONCE)
        return [target for _, target in wanted]

    async def progress(self, task: int = 0) -> Progress | None:
        """How far a running task says it is; None where it has not said anything."""
        return (await self.task(task)).task.progress

    async def checkpoints(self, task: int = 0) -> tuple[CheckpointView, ...]:
        """The checkpoints that are kept of a task, newest first; none once it has ended."""
        return (await self.task(task)).checkpoints

    async def download_checkpoint(
        self, to: str | Path, task: int = 0, step: int | None = None, *, received: Received | None = None
    ) -> Path:
        """A checkpoint of a task, the newest or that of ``step``, as the new folder ``to/step-N``, which is returned.

        Each piece is verified; the folder appears when all of it is there, and nothing is written outside of it. What is
        in it came from a node: it is data. ``received`` hears of bytes as they are written. Raises NotFound, InvalidInput,
        StorageFull, Unavailable.
        """
        kept = await self.checkpoints(task)
        wanted = chosen(kept, step, what=f"task {task} of job {self.id}")
        return await download_to(self._session.blobs, wanted, Path(to), received)

    async def _artifacts(self, task: int | None) -> list[tuple[int, tuple[Artifact, ...]]]:
        if task is not None:
            return [(task, (await self.task(task)).artifacts)]
        feed = ResultFeed(self._session.transport, self.id)
        found: list[tuple[int, tuple[Artifact, ...]]] = []
        now = Deadline(0)
        try:
            while batch := await feed.next_results(now):
                found.extend((item.index, item.artifacts) for item in batch if item.artifacts)
        except ResultTimeout:  # the others have not finished yet
            pass
        return sorted(found)

    async def _command_result(self, result: TaskResult) -> CommandResult:
        failure = failure_of(self.id, result)
        if failure is not None:
            raise failure
        transport = self._session.transport
        stdout, stderr = await asyncio.gather(
            whole_log(transport, self.id, result.index, "stdout", result.epoch or None),
            whole_log(transport, self.id, result.index, "stderr", result.epoch or None),
        )
        return CommandResult(
            index=result.index,
            exit_code=result.exit_code or 0,
            stdout=stdout,
            stderr=stderr,
            artifacts=result.artifacts,
        )

    async def _with_reason(self, error: ResultTimeout) -> ResultTimeout:
        """The same error with what the job waits for, where that can be learned quickly."""
        try:
            async with asyncio.timeout(_REASONS_S):
                reasons = await self.explain()
        except (TimeoutError, IdleError):
            return error
        if not reasons:
            return error
        return ResultTimeout(error.message, hint=f"It waits: {'; '.join(reasons)}.")

    async def _get(self, path: str, **params: str | int | None) -> Any:
        return await self._session.transport.get(f"/v1/jobs/{self.id}{path}", params=params)


class JobHandle(Facade[AsyncJobHandle[T]], Generic[T]):
    """A submitted job; see AsyncJobHandle, which every method here waits for."""

    @property
    def id(self) -> str:
        return self.core.id

    def __repr__(self) -> str:
        return repr(self.core)

    status = blocking_property(AsyncJobHandle[T].status)
    detail = blocking(AsyncJobHandle[T].detail)
    explain = blocking(AsyncJobHandle[T].explain)
    tasks = blocking(AsyncJobHandle[T].tasks)
    task = blocking(AsyncJobHandle[T].task)
    cancel = blocking(AsyncJobHandle[T].cancel)
    wait = blocking(AsyncJobHandle[T].wait)
    result = blocking(AsyncJobHandle[T].result)
    results = blocking(AsyncJobHandle[T].results)
    as_finished = opening(AsyncJobHandle[T].as_finished)
    value = blocking(AsyncJobHandle[T].value)
    values = blocking(AsyncJobHandle[T].values)
    logs = blocking(AsyncJobHandle[T].logs)
    follow_logs = opening(AsyncJobHandle[T].follow_logs)
    download = blocking(AsyncJobHandle[T].download)
    progress = blocking(AsyncJobHandle[T].progress)
    checkpoints = blocking(AsyncJobHandle[T].checkpoints)
    download_checkpoint = blocking(AsyncJobHandle[T].download_checkpoint)


class AsyncMapResult(Stream[T], Faced["MapResult[T]"], Generic[T]):
    """The values of ``map`` in the order of its items. Raises at the first item whose task failed."""

    def __init__(self, handle: AsyncJobHandle[T] | None, session: Session) -> None:
        super().__init__(self._next_values)
        self._handle = handle
        self._feed = ResultFeed(session.transport, handle.id) if handle else None
        self._arrived: dict[int, TaskResult] = {}
        self._next = 0

    @property
    def handle(self) -> AsyncJobHandle[T]:
        """The job. Raises InvalidInput when there were no items, hence no job."""
        if self._handle is None:
            raise InvalidInput("there were no items, so nothing was submitted.", field="iterable")
        return self._handle

    def facade(self, portal: Portal) -> "MapResult[T]":
        return MapResult(self, portal)

    async def _next_values(self) -> Sequence[T]:
        if self._handle is None or self._feed is None:
            return ()
        while self._next not in self._arrived:
            batch = await self._feed.next_results(Deadline(None))
            if not batch:
                return ()
            self._arrived.update((item.index, item) for item in batch)
        ready = self._run_of_ready()
        values = await self._handle.values(ready)
        for item in ready:
            del self._arrived[item.index]
        self._next += len(ready)
        return values

    def _run_of_ready(self) -> list[TaskResult]:
        """The next results in order, as many as are here: up to a failure, up to some tens of megabytes, at least one."""
        ready: list[TaskResult] = []
        size = 0
        place = self._next
        while (item := self._arrived.get(place)) is not None:
            size += item.result.size_bytes if item.result else 0
            if ready and (item.state is not TaskState.SUCCEEDED or size > _BATCH_BYTES):
                break
            ready.append(item)
            place += 1
            if item.state is not TaskState.SUCCEEDED:
                break
        return ready


class MapResult(BlockingStream[T], Generic[T]):
    """The values of ``map`` in the order of its items; lazily, as they come. Raises at the first item whose task failed."""

    core: AsyncMapResult[T]

    @property
    def handle(self) -> JobHandle[T]:
        return self.core.handle.facade(self.portal)


def _checked_index(index: Any) -> int:
    if isinstance(index, bool) or not isinstance(index, int) or index < 0:
        raise InvalidInput(f"{index!r} is not the index of a task.", field="task", hint="Tasks count from 0.")
    return index


def _checked_stream(stream: Any) -> LogStream:
    if stream not in ("stdout", "stderr"):
        raise InvalidInput(f"{stream!r} is no stream.", field="stream", hint="Use 'stdout' or 'stderr'.")
    return stream
