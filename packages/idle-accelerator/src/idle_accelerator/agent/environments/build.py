"""Making one environment: a few calls of uv as guests of the agent, bounded in time and size, and ended whole when told to."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from idle_accelerator.agent.environments import shelf, uv
from idle_accelerator.agent.environments.faults import EnvironmentRefused, EnvironmentTrouble, fault_of
from idle_accelerator.agent.sandbox import Guest, GuestExit, GuestSpec, Sandbox, SpawnFailed
from idle_accelerator.wire.reasons import reason
from idle_accelerator.wire.units import format_duration, format_size

_SAID_LIMIT_BYTES: Final = 16_000
_READ_BYTES: Final = 64 * 1024
_MEASURE_AT_LEAST_EVERY_S: Final = 0.25
_MEASURE_SHARE: Final = 20
"""Measuring takes at most one part in so many of the time."""
_COMPILE_LIMIT_S: Final = 60.0
_PIPE_END_S: Final = 2.0


@dataclass(frozen=True, kw_only=True)
class BuildLimits:
    size_bytes: int
    """Of one environment, with what is unpacked for it."""
    time_s: float


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What all builds of an agent have in common."""

    sandbox: Sandbox
    """Plain processes: uv is trusted, and runs nothing of what it installs."""
    index: Mapping[str, str]
    limits: BuildLimits
    began: Callable[[Guest], None]
    ended: Callable[[Guest], None]
    moved: Callable[[int], None]
    """So many bytes came over the network, about."""


async def build(commands: uv.Commands, place: Path, cache: Path, around: Surroundings) -> None:
    """Fills ``commands.folder``, which lies in ``place``, and seals it.

    Raises EnvironmentRefused, EnvironmentTrouble, SpawnFailed, OSError. When it is cancelled, nothing of it runs any more; ``place`` is
    the caller's to remove in any case.
    """
    limits = around.limits
    env = {**uv.call_environment(around.index, cache), "TMPDIR": str(place)}
    meter = shelf.Meter(commands.folder, cache)
    try:
        async with asyncio.timeout(limits.time_s):
            await _call(commands.create(), place, env, around, None)
            before = await asyncio.to_thread(shelf.fixed_parts, commands.folder)
            await _call(commands.install(), place, env, around, meter)
            await _compile(commands, place, env, around)
    except TimeoutError as error:
        raise EnvironmentRefused(
            f"it was not ready after {format_duration(limits.time_s)}.",
            why=reason("task.environment_slow", limit_s=limits.time_s),
        ) from error
    # Once begun it is finished also when cancelled: nobody else may remove what it walks through.
    sealing = asyncio.ensure_future(asyncio.to_thread(shelf.seal, commands.folder, before))
    try:
        await asyncio.shield(sealing)
    except asyncio.CancelledError:
        await asyncio.wait({sealing})
        raise


async def _compile(commands: uv.Commands, place: Path, env: Mapping[str, str], around: Surroundings) -> None:
    """As far as that goes in a minute: what is not compiled is at each import, as nobody may write to it later."""
    try:
        async with asyncio.timeout(_COMPILE_LIMIT_S):
            guest = await _start(commands.compile(), place, env, around)
            # Its exit status tells of files that are no Python of this version; many packages have some.
            await _until_end(guest, around, None)
    except TimeoutError:
        return


async def _call(
    argv: tuple[str, ...],
    place: Path,
    env: Mapping[str, str],
    around: Surroundings,
    meter: "shelf.Meter | None",
) -> None:
    guest = await _start(argv, place, env, around)
    ended, said = await _until_end(guest, around, meter)
    if ended.exit_code != 0:
        raise fault_of(
            said, exit_code=ended.exit_code, signal=ended.signal, index=around.index, folder=str(place)
        )


async def _start(argv: tuple[str, ...], place: Path, env: Mapping[str, str], around: Surroundings) -> Guest:
    try:
        guest = await around.sandbox.start(
            GuestSpec(argv=argv, workspace=place, env=env, stdout="null", stderr="pipe")
        )
    except SpawnFailed as error:
        raise EnvironmentTrouble(error.message) from error
    around.began(guest)
    return guest


async def _until_end(
    guest: Guest, around: Surroundings, meter: "shelf.Meter | None"
) -> tuple[GuestExit, str]:
    """How it ended and the end of what it said. It is dead on return, whatever happens."""
    hearing = asyncio.create_task(_tail(guest.stderr))
    ending = asyncio.ensure_future(guest.wait())
    measuring = None if meter is None else asyncio.create_task(_measure(meter, around))
    try:
        await asyncio.wait(
            {ending} if measuring is None else {ending, measuring}, return_when=asyncio.FIRST_COMPLETED
        )
        if measuring is not None and measuring.done():
            measuring.result()
        ended = await ending
        await asyncio.wait({hearing}, timeout=_PIPE_END_S)
        if meter is not None:
            used_bytes = await asyncio.to_thread(meter.used_bytes)
            around.moved(used_bytes)
            _check_size(used_bytes, around.limits)
        return ended, hearing.result() if hearing.done() else ""
    finally:
        if measuring is not None:
            measuring.cancel()
        hearing.cancel()
        await asyncio.shield(_kill(guest, around))


async def _kill(guest: Guest, around: Surroundings) -> None:
    try:
        await guest.kill()
    finally:
        around.ended(guest)


async def _measure(meter: shelf.Meter, around: Surroundings) -> None:
    """Until cancelled. Raises EnvironmentRefused when it has become too large."""
    pause_s = _MEASURE_AT_LEAST_EVERY_S
    while True:
        await asyncio.sleep(pause_s)
        began_s = time.monotonic()
        _check_size(await asyncio.to_thread(meter.used_bytes), around.limits)
        pause_s = max(_MEASURE_AT_LEAST_EVERY_S, _MEASURE_SHARE * (time.monotonic() - began_s))


def _check_size(used_bytes: int, limits: BuildLimits) -> None:
    if used_bytes > limits.size_bytes:
        raise EnvironmentRefused(
            f"it is larger than {format_size(limits.size_bytes)}.",
            why=reason("task.environment_too_large", limit_bytes=limits.size_bytes),
        )


async def _tail(reader: asyncio.StreamReader | None) -> str:
    kept = b""
    while reader is not None and (chunk := await reader.read(_READ_BYTES)):
        kept = (kept + chunk)[-_SAID_LIMIT_BYTES:]
    return kept.decode(errors="replace")
