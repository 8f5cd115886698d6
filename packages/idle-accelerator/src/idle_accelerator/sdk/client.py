"""The client: what a program uses to give work to the pool, and to look after it."""

import asyncio
import re
import uuid
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar, Unpack
from urllib.parse import quote

from idle_accelerator.errors import InvalidInput
from idle_accelerator.sdk import functions
from idle_accelerator.sdk.abreast import abreast
from idle_accelerator.sdk.blobs import measure_file
from idle_accelerator.sdk.handles import (
    AsyncJobHandle,
    AsyncMapResult,
    CommandResult,
    JobFacts,
    JobHandle,
    MapResult,
)
from idle_accelerator.sdk.session import Session, open_session
from idle_accelerator.sdk.submission import Draft, JobOptions, command_draft, function_draft
from idle_accelerator.sdk.sync import Facade, Portal, blocking
from idle_accelerator.sdk.transport import PATIENCE_S
from idle_accelerator.settings import connection
from idle_accelerator.wire.jobs import JobAccepted, JobDetail, JobPage, JobSpec
from idle_accelerator.wire.model import WireModel
from idle_accelerator.wire.nodes import NodePage, NodeView
from idle_accelerator.wire.packing import pack
from idle_accelerator.wire.states import JobState

__all__ = [
    "AsyncClient",
    "AsyncJobHandle",
    "AsyncMapResult",
    "Client",
    "CommandResult",
    "Health",
    "JobHandle",
    "JobOptions",
    "MapResult",
]

P = ParamSpec("P")
T = TypeVar("T")
_JOB_ID = re.compile(r"[a-z2-7]{1,17}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_HASHED_AT_ONCE = 4
_SENT_AT_ONCE = 4


class Health(WireModel):
    status: str
    version: str


class AsyncClient:
    """One scheduler's pool.

    ``url`` and ``key`` as in ``settings.connection``. ``trust``: names or ids of nodes whose pickled results may be opened
    here (an id is the stricter word: a name may be taken by another machine once its node is removed); nodes on this
    machine need no naming while the scheduler is on it too. ``patience_s``: how long a call goes on trying while the
    scheduler does not answer; waits for results go on thirty times as long.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        trust: Iterable[str] = (),
        patience_s: float = PATIENCE_S,
    ) -> None:
        if isinstance(trust, str):
            raise InvalidInput(
                "a list of names is wanted, not one text.", field="trust", hint=f"Write [{trust!r}]."
            )
        self.connection = connection(url, key)
        self._session: Session = open_session(self.connection, trust=tuple(trust), patience_s=patience_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exit: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Jobs go on; only the connections end."""
        await self._session.transport.close()

    # Work

    async def submit(
        self, command: Sequence[str], *, array: int = 1, **options: Unpack[JobOptions]
    ) -> AsyncJobHandle[CommandResult]:
        """Runs a command, or a WebAssembly module with these arguments (``wasm=``), in ``array`` tasks. When this returns, the job is on the scheduler's disk.

        All is checked before anything is sent; a file goes up once, however often it is used. Raises InvalidInput naming
        the argument that is wrong.
        """
        if options.get("inputs") or options.get("wasm"):
            draft = await asyncio.to_thread(command_draft, command, array=array, options=options)
        else:
            draft = command_draft(command, array=array, options=options)
        return AsyncJobHandle(self._session, await self._send(draft, options, {}))

    def submit_function(
        self, fn: Callable[..., T], *args: Any, options: JobOptions | None = None, **kwargs: Any
    ) -> Coroutine[Any, Any, AsyncJobHandle[T]]:
        """Runs ``fn(*args, **kwargs)`` on a node; ``result()`` of the handle is its value, or raises what it raised.

        The function travels by value, with what it uses of ``__main__``, of notebooks and of modules that lie beside the
        program; modules of the standard library and of site-packages must be installed on the node.
        """
        code = functions.pickle_function(fn)
        arguments = pack([functions.pickle_arguments(args, kwargs)])
        return self._send_function(fn, code, arguments, 1, options or JobOptions())

    def map(
        self, fn: Callable[[Any], T], iterable: Iterable[Any], *, options: JobOptions | None = None
    ) -> Coroutine[Any, Any, AsyncMapResult[T]]:
        """Runs ``fn(item)`` for each item, as one job of as many tasks. Values come in the order of the items.

        The items are taken and pickled at once. Functions travel as in ``submit_function``.
        """
        code = functions.pickle_function(fn)
        return self._map(fn, code, functions.pack_items(iterable), options or JobOptions())

    async def _map(
        self, fn: Callable[[Any], T], code: bytes, calls: list[bytes], options: JobOptions
    ) -> AsyncMapResult[T]:
        if not calls:
            return AsyncMapResult(None, self._session)
        handle = await self._send_function(fn, code, pack(calls), len(calls), options)
        return AsyncMapResult(handle, self._session)

    async def _send_function(
        self, fn: Callable[..., T], code: bytes, arguments: bytes, tasks: int, options: JobOptions
    ) -> AsyncJobHandle[T]:
        workload = functions.workload(
            fn,
            functions.payload_of(code),
            functions.payload_of(arguments),
            results=options.get("results", "data"),
        )
        draft = function_draft(workload, tasks=tasks, options=options)
        for content in (code, arguments):
            if not functions.fits_inline(content):
                await self._session.blobs.upload_bytes(content)
        return AsyncJobHandle(self._session, await self._send(draft, options, functions.dataclasses_near(fn)))

    async def _send(self, draft: Draft, options: JobOptions, classes: dict[str, type]) -> JobFacts:
        spec = draft.with_contents(await self._upload_inputs(draft, options)) if draft.files else draft.spec
        return JobFacts(
            job_id=await self._submit(spec), kind=spec.workload.kind, tasks=spec.tasks, dataclasses=classes
        )

    async def _upload_inputs(self, draft: Draft, options: JobOptions) -> list[tuple[str, int]]:
        """Digest and size of each file, as it was when it was read."""
        measured = await abreast(
            lambda file: asyncio.to_thread(measure_file, file.local), draft.files, at_once=_HASHED_AT_ONCE
        )
        by_digest = {
            digest: (file.local, size) for file, (digest, size) in zip(draft.files, measured, strict=True)
        }
        progress = options.get("progress")
        total = sum(size for _, size in by_digest.values())
        done = 0

        def sent(size: int) -> None:
            nonlocal done
            done += size
            if progress is not None:
                progress(min(done, total), total)

        async def upload(digest: str) -> None:
            local, size = by_digest[digest]
            await self._session.blobs.send_file(local, digest, size, sent=sent)

        await abreast(upload, by_digest, at_once=_SENT_AT_ONCE)
        return measured

    async def _submit(self, spec: JobSpec) -> str:
        answer = await self._session.transport.request(
            "POST",
            "/v1/jobs",
            content=spec.model_dump_json().encode(),
            headers={"Content-Type": "application/json", "Idempotency-Key": uuid.uuid4().hex},
        )
        return answer.read(JobAccepted).job_id

    async def job(self, id_or_prefix: str) -> AsyncJobHandle[Any]:
        """A job that was submitted before, by its id or a unique beginning of it. Raises NotFound, Conflict."""
        if not _JOB_ID.fullmatch(id_or_prefix):
            raise InvalidInput(
                f"{id_or_prefix!r} is not a job's id, nor the beginning of one.",
                field="job",
                hint="Ids begin with j, as `idlectl jobs` lists them.",
            )
        detail = (await self._session.transport.get(f"/v1/jobs/{id_or_prefix}")).read(JobDetail)
        view = detail.view
        facts = JobFacts(job_id=view.job_id, kind=view.kind, tasks=view.counts.total)
        return AsyncJobHandle(self._session, facts)

    async def jobs(
        self, limit: int = 50, state: JobState | str | None = None, cursor: str | None = None
    ) -> JobPage:
        """Jobs, newest first; ask again with ``cursor=page.next_cursor``."""
        params = {"limit": limit, "state": None if state is None else str(state), "cursor": cursor}
        return (await self._session.transport.get("/v1/jobs", params=params)).read(JobPage)

    # Nodes

    async def nodes(self) -> tuple[NodeView, ...]:
        """Every enrolled machine, with the reason why it is, or is not, lent."""
        return (await self._session.transport.get("/v1/nodes")).read(NodePage).nodes

    async def node(self, name: str) -> NodeView:
        """One machine, by name, id or unique beginning of its id. Raises NotFound, Conflict."""
        return (await self._session.transport.get(f"/v1/nodes/{_part(name)}")).read(NodeView)

    async def drain(self, node: str, drain: bool = True) -> NodeView:
        """Gives it nothing new (or something new again); what it runs, it finishes."""
        answer = await self._session.transport.request(
            "POST",
            f"/v1/nodes/{_part(node)}/drain",
            content=b'{"drain": true}' if drain else b'{"drain": false}',
            headers={"Content-Type": "application/json"},
        )
        return answer.read(NodeView)

    async def remove_node(self, node: str) -> None:
        """Forgets a machine; its agent must enrol anew. Raises NotFound, Conflict while it holds work."""
        await self._session.transport.request("DELETE", f"/v1/nodes/{_part(node)}")

    # Content

    async def upload(self, path: str | Path) -> str:
        """The file's digest, under which the scheduler has it from then on."""
        return await self._session.blobs.upload_file(Path(path))

    async def download(self, digest: str, to: str | Path) -> Path:
        """Writes the content to the file ``to``, verified; nothing is left of one that arrives damaged."""
        await self._session.blobs.download(_checked_digest(digest), Path(to))
        return Path(to)

    async def read_blob(self, digest: str, limit_bytes: int) -> bytes:
        """The content, verified. Raises NotFound, TooLarge."""
        return await self._session.blobs.read(_checked_digest(digest), limit_bytes)

    # The scheduler itself

    async def health(self) -> Health:
        """That it is alive, and its version. Raises Unavailable."""
        return (await self._session.transport.get("/healthz")).read(Health)

    async def ready(self) -> Health:
        """That it takes work. Raises Unavailable."""
        return (await self._session.transport.get("/readyz")).read(Health)


class Client(Facade[AsyncClient]):
    """One scheduler's pool, for programs that do not await; see AsyncClient, which every method here waits for.

    Works in scripts, in threads, and where an event loop runs already, as in Jupyter. Close it, or use ``with``.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        trust: Iterable[str] = (),
        patience_s: float = PATIENCE_S,
    ) -> None:
        core = AsyncClient(url, key, trust=trust, patience_s=patience_s)
        portal = Portal()
        portal.on_close(core.close)
        super().__init__(core, portal)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exit: object) -> None:
        self.close()

    def close(self) -> None:
        """Jobs go on; only the connections end."""
        self.portal.close()

    submit = blocking(AsyncClient.submit)
    submit_function = blocking(AsyncClient.submit_function)
    map = blocking(AsyncClient.map)
    job = blocking(AsyncClient.job)
    jobs = blocking(AsyncClient.jobs)
    nodes = blocking(AsyncClient.nodes)
    node = blocking(AsyncClient.node)
    drain = blocking(AsyncClient.drain)
    remove_node = blocking(AsyncClient.remove_node)
    upload = blocking(AsyncClient.upload)
    download = blocking(AsyncClient.download)
    read_blob = blocking(AsyncClient.read_blob)
    health = blocking(AsyncClient.health)
    ready = blocking(AsyncClient.ready)


def _part(name: str) -> str:
    """A node's name as part of an address."""
    if not name.strip(". ") or "/" in name:
        raise InvalidInput(
            f"{name!r} cannot be asked for by this name.",
            field="node",
            hint="Use its id, as `idlectl nodes` lists it.",
        )
    return quote(name, safe="")


def _checked_digest(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise InvalidInput(
            f"{digest!r} is not a digest.",
            field="digest",
            hint="It is a SHA-256 of 64 lower-case hex digits.",
        )
    return digest
