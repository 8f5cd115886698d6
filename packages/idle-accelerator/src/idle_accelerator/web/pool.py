"""What the page reads and does, through the SDK. Reads are kept for a moment, so that many viewers cost as much as one."""

import contextlib
import io
import zipfile
from dataclasses import dataclass
from typing import Any, Literal

import streamlit as st

from idle_accelerator.errors import ResultTimeout, TooLarge
from idle_accelerator.sdk.client import Client, JobHandle
from idle_accelerator.sdk.submission import JobOptions
from idle_accelerator.wire.jobs import Artifact, JobDetail, JobPage, TaskDetail, TaskPage, TaskResult
from idle_accelerator.wire.nodes import NodeView
from idle_accelerator.wire.states import JobState, TaskState

Stream = Literal["stdout", "stderr"]

READ_TTL_S = 2.0
REFRESH_S = 3
"""Between two refreshes of what is on the screen; each costs some 50–100 ms of a core."""
DOWNLOAD_LIMIT_BYTES = 64 * 1024 * 1024
SMALL_BYTES = 256 * 1024
"""Files up to this size come along with the page."""
"""Downloads pass through the page's memory; what is larger goes by ``idlectl result``."""
SCANNED_TASKS = 10_000
"""Results come in the order in which tasks finished; of larger jobs the page looks none up."""
_PATIENCE_S = 1.0
"""How long a read tries while the scheduler does not answer: then the page says so, and its next refresh tries again."""
_KEPT_S = 600
"""For what never changes any more."""


@dataclass(frozen=True, kw_only=True)
class OutputFiles:
    """All output files of a finished job."""

    files: tuple[tuple[int, Artifact], ...]
    """With the index of the task that made each."""

    @property
    def size_bytes(self) -> int:
        return sum(artifact.size_bytes for _, artifact in self.files)


@st.cache_resource(show_spinner=False)
def client() -> Client:
    """One for all viewers. URL and key come from the environment (IDLE_SCHEDULER, IDLE_KEY) or the config file."""
    return Client(patience_s=_PATIENCE_S)


@st.cache_resource(max_entries=500, show_spinner=False)
def _handle(job_id: str) -> JobHandle[Any]:
    return client().job(job_id)


@st.cache_data(ttl=READ_TTL_S, max_entries=200, show_spinner=False)
def jobs(limit: int, state: JobState | None = None, cursor: str | None = None) -> JobPage:
    return client().jobs(limit=limit, state=state, cursor=cursor)


@st.cache_data(ttl=READ_TTL_S, max_entries=1, show_spinner=False)
def nodes() -> tuple[NodeView, ...]:
    return client().nodes()


@st.cache_data(ttl=READ_TTL_S, max_entries=200, show_spinner=False)
def job(job_id: str) -> JobDetail:
    return _handle(job_id).detail()


@st.cache_data(ttl=READ_TTL_S, max_entries=200, show_spinner=False)
def tasks(job_id: str, limit: int, state: TaskState | None = None, cursor: int | None = None) -> TaskPage:
    return _handle(job_id).tasks(limit, state, cursor)


@st.cache_data(ttl=READ_TTL_S, max_entries=200, show_spinner=False)
def task(job_id: str, index: int) -> TaskDetail:
    return _handle(job_id).task(index)


@st.cache_data(ttl=_KEPT_S, max_entries=32, show_spinner=False)
def _whole_log(job_id: str, index: int, stream: Stream, epoch: int) -> bytes:
    return _handle(job_id).logs(index, stream, epoch)


@st.cache_data(ttl=READ_TTL_S, max_entries=32, show_spinner=False)
def _growing_log(job_id: str, index: int, stream: Stream, epoch: int) -> bytes:
    return _handle(job_id).logs(index, stream, epoch)


def log(job_id: str, index: int, stream: Stream, epoch: int, *, over: bool) -> bytes:
    """All that is kept of a stream, at most 1 MiB. ``over``: the attempt has ended, so nothing will follow."""
    return (_whole_log if over else _growing_log)(job_id, index, stream, epoch)


@st.cache_data(ttl=_KEPT_S, max_entries=64, show_spinner=False)
def result(job_id: str, index: int) -> TaskResult | None:
    """The outcome of a finished task, not opened yet. None in the moment before it is listed."""
    return next((item for item in _finished(job_id) if item.index == index), None)


def value(job_id: str, outcome: TaskResult) -> Any:
    """What the function returned, for plain data. Raises what it raised."""
    return _handle(job_id).value(outcome)


@st.cache_data(ttl=_KEPT_S, max_entries=32, show_spinner=False)
def output_files(job_id: str) -> OutputFiles:
    """Of a job that is over."""
    found = [(item.index, artifact) for item in _finished(job_id) for artifact in item.artifacts]
    return OutputFiles(files=tuple(sorted(found, key=lambda pair: (pair[0], pair[1].path))))


def archive(job_id: str) -> bytes:
    """Those files as a ZIP, ``INDEX/PATH`` each; their paths were checked on arrival. Raises TooLarge."""
    found = output_files(job_id)
    if found.size_bytes > DOWNLOAD_LIMIT_BYTES:
        raise TooLarge("the files are too large for one download.", hint=f"Use: idlectl result {job_id}")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression=zipfile.ZIP_STORED) as folder:
        for index, artifact in found.files:
            folder.writestr(f"{index}/{artifact.path}", blob(artifact.digest))
    return packed.getvalue()


@st.cache_data(max_entries=200, show_spinner=False)
def small_blob(digest: str) -> bytes:
    """Kept: a digest's content never changes. Raises TooLarge over SMALL_BYTES."""
    return client().read_blob(digest, SMALL_BYTES)


def blob(digest: str) -> bytes:
    """Raises TooLarge over DOWNLOAD_LIMIT_BYTES."""
    return client().read_blob(digest, DOWNLOAD_LIMIT_BYTES)


def submit(command: list[str], *, array: int, options: JobOptions) -> str:
    """The new job's id."""
    return client().submit(command, array=array, **options).id


def cancel(job_id: str) -> None:
    _handle(job_id).cancel()
    job.clear()


def drain(node: str, *, wanted: bool) -> None:
    client().drain(node, wanted)
    nodes.clear()


def remove_node(node: str) -> None:
    client().remove_node(node)
    nodes.clear()


def _finished(job_id: str) -> list[TaskResult]:
    """Tasks that have finished by now, in the order in which they did."""
    found: list[TaskResult] = []
    with contextlib.suppress(ResultTimeout):  # raised when the others have not finished yet
        found.extend(_handle(job_id).as_finished(timeout=0))
    return found
