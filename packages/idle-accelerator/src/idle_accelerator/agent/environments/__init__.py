"""Environments of tasks on this machine: made by uv once, kept by what they were made from, lent to guests that cannot write to them.

One is made at a time, as a guest of the lowest priority; attempts that need the same one wait for the same making, and when the last of
them leaves, it is ended at once and leaves nothing. The folder of a finished one is never written to again, so that guests of
different submitters may share it: what is in it follows from the hashes that its requirements name, and from nothing else.
"""

import asyncio
import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from idle_accelerator.agent.environments import uv
from idle_accelerator.agent.environments.build import BuildLimits, Surroundings, build
from idle_accelerator.agent.environments.faults import EnvironmentRefused, EnvironmentTrouble
from idle_accelerator.agent.environments.shelf import Shelf, wipe
from idle_accelerator.agent.sandbox import Guest, Sandbox
from idle_accelerator.sdk.indexes import index_environment
from idle_accelerator.wire.environments import Environment, canonical_text, parse_requirements
from idle_accelerator.wire.nodes import EnvironmentFacts

__all__ = [
    "EnvironmentLimits",
    "EnvironmentRefused",
    "EnvironmentTrouble",
    "Environments",
    "Held",
    "open_environments",
]
_log = logging.getLogger(__name__)
_FORMAT: Final = "1"
"""Raise it when environments that an older agent has made must not be used any more."""
_REFUSED_FOR_S: Final = 30.0
"""What cannot be made is not tried again for so long: a job may have a million tasks that want it."""
DEFAULT_SIZE_BYTES: Final = 8 * 1024**3
DEFAULT_KEPT_BYTES: Final = 10 * 1024**3
DEFAULT_TIME_S: Final = 900.0


@dataclass(frozen=True, kw_only=True)
class EnvironmentLimits:
    """What the owner of the machine allows."""

    kept_bytes: int = DEFAULT_KEPT_BYTES
    """All environments and uv's cache together; 0: none are made."""
    size_bytes: int = DEFAULT_SIZE_BYTES
    """One environment."""
    time_s: float = DEFAULT_TIME_S
    """Making one."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """An environment that stays while it is held."""

    key: str
    folder: Path
    interpreter: uv.Interpreter

    @property
    def programs(self) -> Path:
        return uv.programs_in(self.folder)

    @property
    def python(self) -> Path:
        return uv.python_in(self.folder)

    @property
    def read_only(self) -> tuple[Path, ...]:
        """What a guest must be able to read."""
        prefix = self.interpreter.prefix
        return (self.folder,) if prefix is None else (prefix, self.folder)


class Environments:
    """All calls are made from the event loop's thread, but ``open``."""

    def __init__(
        self,
        shelf: Shelf,
        program: Path,
        interpreters: tuple[uv.Interpreter, ...],
        *,
        sandbox: Sandbox,
        unlocked: bool,
        limits: EnvironmentLimits,
    ) -> None:
        self._shelf = shelf
        self._program = program
        self._interpreters = {item.minor: item for item in interpreters}
        self._sandbox = sandbox
        self._limits = limits
        self._holders: Counter[str] = Counter()
        self._makings: dict[str, asyncio.Task[None]] = {}
        self._refused: dict[str, tuple[float, EnvironmentRefused]] = {}
        self._turn = asyncio.Lock()
        self._used_at_start_bytes = 0
        self._used_bytes = 0
        self._began: Callable[[Guest], None] = _nothing
        self._ended: Callable[[Guest], None] = _nothing
        self._moved: Callable[[int], None] = _nothing
        self.facts: Final = EnvironmentFacts(pythons=tuple(self._interpreters), unlocked=unlocked)

    def open(self) -> int:
        """Returns how much it removed of what an agent that crashed was making. Raises OSError."""
        leftovers = self._shelf.open()
        self._used_bytes = self._shelf.make_room(self._limits.kept_bytes, in_use=lambda: ())
        self._used_at_start_bytes = self._used_bytes
        return leftovers

    def attend(
        self,
        *,
        began: Callable[[Guest], None],
        ended: Callable[[Guest], None],
        moved: Callable[[int], None],
    ) -> None:
        """Who is to hear of the processes that make environments, and of what they fetch: they are not the owner's."""
        self._began, self._ended, self._moved = began, ended, moved

    @property
    def grown_bytes(self) -> int:
        """What environments take of the disk that was free when the agent started."""
        return max(0, self._used_bytes - self._used_at_start_bytes)

    async def hold(self, environment: Environment, *, python: str | None = None) -> Held:
        """The environment, made if it is not here; it stays until ``release``.

        ``python``: the minor version where the environment names none; the agent's own if None. Raises EnvironmentRefused,
        EnvironmentTrouble, OSError.
        """
        requirements = parse_requirements(environment.requirements)
        locked = environment.kind == "locked"
        if not locked and not self.facts.unlocked:
            raise EnvironmentRefused("this node takes only environments whose files are named by hashes.")
        minor = environment.python or python or self.facts.pythons[0]
        interpreter = self._interpreters.get(minor)
        if interpreter is None:
            raise EnvironmentRefused(f"there is no Python {minor} here.")
        named = f"{_FORMAT}\0{environment.digest}\0{minor}\0{interpreter.identity}"
        key = hashlib.sha256(named.encode()).hexdigest()
        self._holders[key] += 1
        try:
            if self._shelf.find(key) is None:
                await self._made(key, canonical_text(requirements), interpreter, locked=locked)
            folder = self._shelf.take(key)
        except BaseException:
            self._let_go(key)
            raise
        return Held(key=key, folder=folder, interpreter=interpreter)

    def release(self, held: Held) -> None:
        self._shelf.touch(held.key)
        self._let_go(held.key)

    async def close(self) -> None:
        """Ends what is being made."""
        makings = list(self._makings.values())
        for making in makings:
            making.cancel()
        await asyncio.gather(*makings, return_exceptions=True)
        await self._sandbox.close()

    def _let_go(self, key: str) -> None:
        self._holders[key] -= 1
        if self._holders[key] > 0:
            return
        del self._holders[key]
        making = self._makings.pop(key, None)
        if making is not None:
            making.cancel()

    async def _made(self, key: str, text: str, interpreter: uv.Interpreter, *, locked: bool) -> None:
        until_s, refused = self._refused.get(key, (0.0, None))
        if refused is not None and time.monotonic() < until_s:
            raise EnvironmentRefused(refused.message, why=refused.why)
        making = self._makings.get(key)
        if making is None:
            making = asyncio.create_task(
                self._make(key, text, interpreter, locked=locked), name=f"environment {key[:12]}"
            )
            self._makings[key] = making
            making.add_done_callback(lambda done: self._over(key, done))
        await asyncio.shield(making)

    def _over(self, key: str, making: asyncio.Task[None]) -> None:
        if self._makings.get(key) is making:
            del self._makings[key]
        error = None if making.cancelled() else making.exception()
        now_s = time.monotonic()
        self._refused = {name: held for name, held in self._refused.items() if held[0] > now_s}
        if isinstance(error, EnvironmentRefused):
            self._refused[key] = (now_s + _REFUSED_FOR_S, error)

    async def _make(self, key: str, text: str, interpreter: uv.Interpreter, *, locked: bool) -> None:
        async with self._turn:
            if self._shelf.find(key) is not None:
                return
            place = self._shelf.new_place()
            commands = uv.Commands(
                uv=self._program,
                interpreter=interpreter,
                folder=place / "environment",
                requirements=place / "requirements.txt",
                locked=locked,
            )
            around = Surroundings(
                sandbox=self._sandbox,
                index=index_environment(),
                limits=BuildLimits(size_bytes=self._limits.size_bytes, time_s=self._limits.time_s),
                began=self._began,
                ended=self._ended,
                moved=self._moved,
            )
            try:
                commands.requirements.write_text(text, encoding="utf-8")
                await build(commands, place, self._shelf.cache, around)
                self._shelf.put(commands.folder, key)
            finally:
                await _to_the_end(asyncio.ensure_future(asyncio.to_thread(self._tidy, place)))
            _log.info("made the environment %s", key[:12])

    def _tidy(self, place: Path) -> None:
        wipe(place)
        self._used_bytes = self._shelf.make_room(self._limits.kept_bytes, in_use=lambda: tuple(self._holders))


async def _to_the_end(work: "asyncio.Future[None]") -> None:
    """Also when cancelled: it is short, and nothing else may begin before it is over."""
    cancelled = False
    while not work.done():
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            cancelled = not work.cancelled()
        except Exception:  # noqa: BLE001  # told by the result below
            break
    work.result()
    if cancelled:
        raise asyncio.CancelledError


def open_environments(
    directory: Path, *, limits: EnvironmentLimits, sandbox: Sandbox, unlocked: bool
) -> Environments | None:
    """None where this machine makes none: the owner wants none, or there is no uv. Starts a program; to be called before there is work.

    Raises OSError.
    """
    program = uv.find_uv() if limits.kept_bytes > 0 else None
    if program is None:
        return None
    environments = Environments(
        Shelf(directory),
        program,
        uv.find_interpreters(),
        sandbox=sandbox,
        unlocked=unlocked,
        limits=limits,
    )
    leftovers = environments.open()
    if leftovers:
        _log.info("removed %d environment(s) that an agent was making when it crashed", leftovers)
    return environments


def _nothing(_what: object) -> None:
    return
