"""The owner's word, and what the agent says about itself: files in the agent's data directory.

``word.json`` is written by whoever may write the directory, which is its owner alone; the agent looks for it several times
a second. ``status.json`` is the agent's answer. Files need no port, work alike on every system, and a word outlives a restart.
"""

import json
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import platformdirs

from idle_accelerator import locks
from idle_accelerator.errors import InvalidInput, Unavailable

WORD_FILE = "word.json"
STATUS_FILE = "status.json"
TERMS_FILE = "terms.json"
"""The owner's terms as a running agent holds to them, for ``idlectl terms``."""
LOCK_FILE = "agent.lock"
_WAIT_POLL_S = 0.02


@dataclass(frozen=True, kw_only=True)
class OwnerWord:
    """What the owner wants, whatever idle-sense says."""

    kind: Literal["lend", "pause"]
    for_s: float | None
    """Seconds after which the word ends by itself; None: until it is taken back. Lending always ends."""
    jobs: tuple[str, ...] | None = None
    """Lend to these jobs only."""

    def __post_init__(self) -> None:
        """Raises InvalidInput."""
        if self.for_s is not None and not 0 < self.for_s <= 366 * 86400:
            raise InvalidInput(
                "must be more than nothing and at most a year.", field="--for", hint="For example: --for 10m."
            )
        if self.kind == "lend" and self.for_s is None:
            raise InvalidInput("lending by word needs an end.", field="--for", hint="For example: --for 10m.")


@dataclass(frozen=True, kw_only=True)
class GivenWord:
    """A word as it stands in the file. ``word`` None means: none, or taken back."""

    word_id: str
    word: OwnerWord | None
    given_at_s: float
    """On the wall clock, so that a word given before a restart ends in its own time."""

    def left_s(self, wall_now_s: float) -> float | None:
        """Seconds until it ends; None if it has no end. A wall clock that was set back makes it no longer than it was."""
        if self.word is None or self.word.for_s is None:
            return None
        age_s = max(0.0, wall_now_s - self.given_at_s)
        return max(0.0, self.word.for_s - age_s)


@dataclass(frozen=True, kw_only=True)
class AgentStatus:
    """The agent's own view, for the owner at this machine."""

    pid: int
    word_id: str
    """The last word that the agent has acted on."""
    lending: str
    sentences: tuple[str, ...]
    running: int
    """Attempts in the agent's hands that have not ended."""
    frozen: int
    node_id: str
    name: str
    scheduler_url: str
    connected: bool
    updated_at_s: float


@dataclass(frozen=True, kw_only=True)
class RunningAgent:
    """An agent of this user on this machine."""

    data_dir: Path
    pid: int
    name: str
    scheduler_url: str


def give_word(data_dir: Path, word: OwnerWord | None) -> str:
    """Writes the word, or takes the last one back; returns its id. It holds from the agent's next look, or its next start."""
    word_id = secrets.token_hex(8)
    values: dict[str, Any] = {"word_id": word_id, "given_at_s": time.time(), "word": None}
    if word is not None:
        values["word"] = asdict(word)
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_json(data_dir / WORD_FILE, values)
    return word_id


def read_word(data_dir: Path) -> GivenWord:
    """The word that holds; that of an unreadable file is to pause: what cannot be known counts as busy."""
    path = data_dir / WORD_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return GivenWord(word_id="", word=None, given_at_s=0.0)
    except (OSError, ValueError):
        return _unreadable()
    try:
        word = values["word"]
        if word is not None:
            jobs = word["jobs"]
            word = OwnerWord(
                kind=word["kind"],
                for_s=None if word["for_s"] is None else float(word["for_s"]),
                jobs=None if jobs is None else tuple(map(str, jobs)),
            )
        return GivenWord(word_id=str(values["word_id"]), word=word, given_at_s=float(values["given_at_s"]))
    except (KeyError, TypeError, ValueError, InvalidInput):
        return _unreadable()


def _unreadable() -> GivenWord:
    return GivenWord(word_id="unreadable", word=OwnerWord(kind="pause", for_s=None), given_at_s=0.0)


def write_status(data_dir: Path, status: AgentStatus) -> None:
    write_json(data_dir / STATUS_FILE, asdict(status))


def read_status(data_dir: Path) -> AgentStatus | None:
    """What the agent said last; None when none has ever run there, or its file cannot be read."""
    try:
        values: dict[str, Any] = json.loads((data_dir / STATUS_FILE).read_text(encoding="utf-8"))
        values["sentences"] = tuple(values["sentences"])
        return AgentStatus(**values)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def is_running(data_dir: Path) -> bool:
    return (data_dir / LOCK_FILE).exists() and locks.is_held(data_dir / LOCK_FILE)


def wait_applied(data_dir: Path, word_id: str, timeout_s: float) -> AgentStatus:
    """The agent's status once it has acted on this word. Raises Unavailable when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        status = read_status(data_dir)
        if status is not None and status.word_id == word_id:
            return status
        if time.monotonic() > deadline:
            raise Unavailable(
                f"the agent in {data_dir} did not react within {timeout_s:.0f} s.",
                hint="See that it runs (idlectl doctor); the word holds from its next start.",
            )
        time.sleep(_WAIT_POLL_S)


def register(data_dir: Path, *, name: str, scheduler_url: str) -> Path:
    """Makes this agent known to ``running_agents``. Returns the file, to be removed at the agent's end."""
    directory = _registry()
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = directory / f"{os.getpid()}.json"
    write_json(
        path,
        {
            "data_dir": str(data_dir.resolve()),
            "pid": os.getpid(),
            "name": name,
            "scheduler_url": scheduler_url,
        },
    )
    return path


def running_agents() -> list[RunningAgent]:
    """Every agent of this user that runs on this machine, by name. What dead ones left behind is removed."""
    found: list[RunningAgent] = []
    for path in sorted(_registry().glob("*.json")):
        try:
            values: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            agent = RunningAgent(
                data_dir=Path(values["data_dir"]),
                pid=int(values["pid"]),
                name=str(values["name"]),
                scheduler_url=str(values["scheduler_url"]),
            )
        except (OSError, ValueError, TypeError, KeyError):
            continue
        if is_running(agent.data_dir):
            found.append(agent)
        else:
            path.unlink(missing_ok=True)
    return sorted(found, key=lambda agent: (agent.name, agent.pid))


def _registry() -> Path:
    return Path(platformdirs.user_state_dir("idle-accelerator", appauthor=False)) / "agents"


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Replaces the file at once: a reader sees the old values or the new ones. Readable by its owner alone."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(values, file)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
