"""Jobs as they are submitted, and jobs, tasks and attempts as they are shown."""

import re
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from idle_accelerator.wire.checkpoints import CheckpointView, Progress, ResumedView
from idle_accelerator.wire.environments import Environment, EnvironmentKind
from idle_accelerator.wire.ids import MAX_TASKS, Digest, JobId
from idle_accelerator.wire.isolation import Isolation, RanUnder
from idle_accelerator.wire.model import WireModel
from idle_accelerator.wire.network import NO_NETWORK, NetworkWish
from idle_accelerator.wire.payload import Payload, RemoteError
from idle_accelerator.wire.reasons import ReasonView
from idle_accelerator.wire.states import AttemptState, JobState, TaskState
from idle_accelerator.wire.texts import Text, WorkspacePath, check_plain_text

MAX_INPUTS = 10_000
_RESERVED_ENV = "IDLE_"


def _check_env_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError("names of environment variables hold letters, digits and '_' only")
    if name.startswith(_RESERVED_ENV):
        raise ValueError(f"names that begin with {_RESERVED_ENV} are set by the agent")
    return name


def _check_no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not hold a NUL character")
    return text


EnvName = Annotated[str, Field(max_length=200), AfterValidator(_check_env_name)]
Argument = Annotated[str, Field(max_length=131_072), AfterValidator(_check_no_nul)]
OS = Literal["linux", "macos", "windows"]


class Command(WireModel):
    """A program with its arguments; started in the task's workspace, without a shell."""

    kind: Literal["command"] = "command"
    argv: tuple[Argument, ...] = Field(min_length=1, max_length=10_000, strict=False)

    @model_validator(mode="after")
    def _program_named(self) -> Self:
        if not self.argv[0]:
            raise ValueError("the program (first item of 'argv') is empty")
        return self


class Function(WireModel):
    """A Python function by cloudpickle; opened on nodes only, inside the guest.

    ``arguments`` packs the pickled ``(args, kwargs)`` of every task (wire.packing), task index by task index.
    """

    kind: Literal["function"] = "function"
    name: Text = ""
    code: Payload
    arguments: Payload
    python: Annotated[
        str, Field(pattern=r"^3\.\d{1,3}$", description="Minor version that pickled it.", examples=["3.11"])
    ]
    results: Literal["data", "pickle"] = "data"


class Wasm(WireModel):
    """A WebAssembly program for WASI preview 1 (``wasm32-wasip1``): a module that is one of the job's input files.

    It sees the task's workspace as its whole file system, and has no network.
    """

    kind: Literal["wasm"] = "wasm"
    module: WorkspacePath
    arguments: tuple[Argument, ...] = Field(default=(), max_length=10_000, strict=False)


class InputFile(WireModel):
    """A file that stands in the workspace before the task starts."""

    path: WorkspacePath
    digest: Digest
    size_bytes: int = Field(ge=0, le=1 << 50)
    executable: bool = False


class Requirements(WireModel):
    """What one task needs. Zero means that nothing is reserved."""

    cpus: float = Field(default=1.0, ge=0.01, le=4096)
    memory_bytes: int = Field(default=0, ge=0, le=1 << 50)
    disk_bytes: int = Field(default=0, ge=0, le=1 << 50)
    gpus: int = Field(default=0, ge=0, le=1024)
    os: OS | None = None
    arch: Annotated[str, Field(max_length=50), AfterValidator(check_plain_text)] | None = None
    python: Annotated[str, Field(pattern=r"^3\.\d{1,3}$")] | None = None
    wasm: bool = Field(default=False, description="Only nodes that run WebAssembly; set for such jobs.")
    labels: dict[Text, Text] = Field(default_factory=dict, max_length=100)
    node: Text | None = Field(default=None, description="Id or name of the only node that may run it.")
    environment: EnvironmentKind | None = Field(
        default=None, description="Set by the scheduler, from the job's environment."
    )
    isolation: tuple[Text, ...] = Field(
        default=(),
        max_length=20,
        strict=False,
        description="Lines of the node's isolation that have to hold there, and tiers of which it has to have one.",
        examples=[["net", "mem", "bubblewrap", "container"]],
    )
    network: NetworkWish = NO_NETWORK


class JobSpec(WireModel):
    """What a user submits."""

    workload: Annotated[Command | Function | Wasm, Field(discriminator="kind")]
    name: Text = ""
    tasks: int = Field(default=1, ge=1, le=MAX_TASKS)
    env: dict[EnvName, Argument] = Field(default_factory=dict, max_length=1000)
    inputs: tuple[InputFile, ...] = Field(default=(), max_length=MAX_INPUTS, strict=False)
    outputs: tuple[WorkspacePath, ...] = Field(
        default=(), max_length=1000, strict=False, description="Globs inside the workspace."
    )
    requirements: Requirements = Requirements()
    environment: Environment | None = Field(
        default=None, description="What the tasks' Python has installed; built by the node."
    )
    retries: int = Field(default=0, ge=0, le=1000, description="How often a FAILED attempt is tried again.")
    timeout_s: float | None = Field(
        default=None, gt=0, le=10**8, description="Running time of one attempt; frozen time does not count."
    )
    priority: int = Field(default=0, ge=-1000, le=1000, description="Higher goes first.")

    @model_validator(mode="after")
    def _paths_differ(self) -> Self:
        seen: set[str] = set()
        for item in self.inputs:
            if item.path in seen:
                raise ValueError(f"two input files have the path {item.path!r}")
            seen.add(item.path)
        if isinstance(self.workload, Wasm) and self.workload.module not in seen:
            raise ValueError(f"the module {self.workload.module!r} is none of the input files")
        return self

    @model_validator(mode="after")
    def _pythons_agree(self) -> Self:
        wanted = None if self.environment is None else self.environment.python
        if wanted is not None and isinstance(self.workload, Function) and wanted != self.workload.python:
            raise ValueError(
                f"the environment is for Python {wanted}, but Python {self.workload.python} pickled the function"
            )
        return self

    @model_validator(mode="after")
    def _a_module_has_its_workspace_alone(self) -> Self:
        if isinstance(self.workload, Wasm):
            if self.requirements.network != NO_NETWORK:
                raise ValueError("a WebAssembly module has no network: leave out 'requirements.network'")
            if self.environment is not None:
                raise ValueError("a WebAssembly module runs without Python: leave out 'environment'")
        return self


class JobAccepted(WireModel):
    """The job is on disk."""

    job_id: JobId


class TaskCounts(WireModel):
    total: int
    queued: int
    active: int
    succeeded: int
    failed: int
    cancelled: int


class JobView(WireModel):
    """A job as shown in listings."""

    job_id: JobId
    name: str
    kind: Literal["command", "function", "wasm"]
    summary: str = Field(description="The command line or the function's name, cut.")
    state: JobState
    priority: int
    counts: TaskCounts
    submitted_at: datetime
    finished_at: datetime | None = None
    waiting: tuple[ReasonView, ...] = Field(
        default=(), strict=False, description="Why queued tasks wait; filled for one job, not in listings."
    )


class JobDetail(WireModel):
    view: JobView
    spec: JobSpec


class JobPage(WireModel):
    jobs: tuple[JobView, ...] = Field(strict=False)
    next_cursor: str | None = None


class Artifact(WireModel):
    """An immutable output file, named by its digest."""

    path: WorkspacePath
    digest: Digest
    size_bytes: int = Field(ge=0, le=1 << 50)


class Usage(WireModel):
    """What an attempt used, as its agent saw it. Seconds and bytes; None where it cannot be known."""

    wall_s: float = Field(default=0.0, ge=0)
    suspended_s: float = Field(default=0.0, ge=0)
    cpu_s: float | None = Field(default=None, ge=0)
    max_rss_bytes: int | None = Field(default=None, ge=0, le=1 << 60)
    ran_under: RanUnder | None = Field(default=None, description="None: a plain process.")


class AttemptView(WireModel):
    epoch: int
    state: AttemptState
    node_id: str
    node_name: str
    leased_at: datetime
    finished_at: datetime | None = None
    reason: ReasonView | None = None
    exit_code: int | None = None
    usage: Usage | None = None
    isolation: Isolation | None = Field(
        default=None,
        description="What its sandbox held; None for a plain process, and where the node was tried anew since.",
    )
    resumed: ResumedView | None = Field(
        default=None, description="What it went on from; None where there was no checkpoint."
    )


class TaskView(WireModel):
    """A task as shown in listings."""

    index: int
    state: TaskState
    attempt_state: AttemptState | None = None
    epoch: int = Field(description="Attempts leased so far.")
    node_name: str | None = None
    exit_code: int | None = None
    reason: ReasonView | None = None
    finished_at: datetime | None = None
    progress: Progress | None = Field(default=None, description="What its newest attempt said.")


class TaskPage(WireModel):
    tasks: tuple[TaskView, ...] = Field(strict=False)
    next_cursor: int | None = None


class TaskDetail(WireModel):
    job_id: JobId
    task: TaskView
    attempts: tuple[AttemptView, ...] = Field(strict=False)
    artifacts: tuple[Artifact, ...] = Field(default=(), strict=False)
    checkpoints: tuple[CheckpointView, ...] = Field(
        default=(),
        strict=False,
        description="Those that are kept, newest first; none once the task has ended.",
    )
    checkpoint_refused: ReasonView | None = Field(
        default=None, description="Why the newest checkpoint of the newest attempt was not taken."
    )


class TaskResult(WireModel):
    """The outcome of one finished task. What came from the node is data that nobody has opened yet."""

    index: int
    state: TaskState
    epoch: int
    exit_code: int | None = None
    reason: ReasonView | None = None
    encoding: Literal["data", "pickle"] | None = None
    result: Payload | None = None
    error: RemoteError | None = None
    artifacts: tuple[Artifact, ...] = Field(default=(), strict=False)
    node_id: str | None = None
    node_name: str | None = None


class ResultPage(WireModel):
    """Finished tasks in the order in which they finished; ask again with ``after=next_after``."""

    results: tuple[TaskResult, ...] = Field(strict=False)
    next_after: int
    job_state: JobState
    counts: TaskCounts


class LogPage(WireModel):
    """A piece of one stream of one attempt. ``dropped_bytes`` before ``offset`` are gone: only the tail is kept."""

    epoch: int
    stream: Literal["stdout", "stderr"]
    offset: int
    data: bytes
    next_offset: int
    dropped_bytes: int
    finished: bool = Field(description="The attempt has ended and nothing follows.")
