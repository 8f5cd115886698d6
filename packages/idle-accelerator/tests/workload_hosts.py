"""Warm processes of functions for tests: starts them, calls them, hears what they say."""

import asyncio
import itertools
import mmap
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import cloudpickle
import pytest_asyncio

from idle_accelerator.agent.environments import Held
from idle_accelerator.agent.sandbox import Guest, GuestSpec, Sandbox, open_sandbox
from idle_accelerator.agent.workloads.contract import task_environment
from idle_accelerator.agent.workloads.function import Call, FunctionHost, HostDied, Output, Returned
from idle_accelerator.wire import codec
from idle_accelerator.wire.ids import AttemptRef

JOB = "j" + "a" * 16
LIMIT_S = 120.0


class ColdSandbox:
    """Starts every guest as a new interpreter."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    async def start_forked(self, spec: GuestSpec) -> Guest:
        return await self._sandbox.start(spec)


@dataclass
class Heard:
    """What came from a host."""

    returned: list[Returned] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    death: HostDied | None = None

    def text(self, stream: str = "stdout", index: int | None = None) -> bytes:
        return b"".join(
            output.data
            for output in self.outputs
            if output.stream == stream and (index is None or output.index == index)
        )

    @property
    def value(self) -> Any:
        (returned,) = self.returned
        assert returned.error is None, returned.error
        assert isinstance(returned.result, bytes), returned
        return codec.decode(returned.result)

    @property
    def error(self) -> Any:
        (returned,) = self.returned
        assert returned.error is not None, returned
        return returned.error


class Starter:
    """Starts hosts, and ends them with the test."""

    def __init__(self, sandbox: Any, folder: Path) -> None:
        self.sandbox = sandbox
        self.folder = folder
        self.hosts: list[FunctionHost] = []
        self._numbers = itertools.count()

    async def __call__(
        self,
        code: Any,
        *,
        results: Literal["data", "pickle"] = "data",
        clean_cwd: bool = False,
        files: Sequence[str] = (),
        sandbox: Any = None,
        environment: Held | None = None,
    ) -> FunctionHost:
        workspace = self.folder / f"workspace{next(self._numbers)}"
        workspace.mkdir()
        for name in files:
            (workspace / name).parent.mkdir(parents=True, exist_ok=True)
            (workspace / name).write_text("input")
        env = task_environment(
            ref=AttemptRef(JOB, 0, 1), task_count=9, threads=1, workspace=workspace, grace_s=5, extra={}
        )
        host = await FunctionHost.start(
            sandbox=sandbox or self.sandbox,
            workspace=workspace,
            env=env,
            code=code if isinstance(code, bytes | mmap.mmap) else cloudpickle.dumps(code),
            results=results,
            job_id=JOB,
            task_count=9,
            grace_s=5,
            clean_cwd=clean_cwd,
            environment=environment,
        )
        self.hosts.append(host)
        return host


@pytest_asyncio.fixture(name="sandbox", scope="module", loop_scope="module")
async def sandbox_fixture() -> AsyncIterator[Sandbox]:
    opened = open_sandbox()
    yield opened
    await opened.close()


@pytest_asyncio.fixture(name="start", loop_scope="module")
async def start_fixture(sandbox: Sandbox, tmp_path: Path) -> AsyncIterator[Starter]:
    starter = Starter(sandbox, tmp_path)
    yield starter
    for host in starter.hosts:
        await host.kill()
        await until_death(host)


def call_of(*args: Any, index: int = 0, epoch: int = 1, **kwargs: Any) -> Call:
    return Call(index=index, epoch=epoch, arguments=cloudpickle.dumps((args, kwargs)))


async def hear(host: FunctionHost, count: int, heard: Heard | None = None) -> Heard:
    """Until so many calls have returned."""
    heard = heard or Heard()
    while len(heard.returned) < count:
        for event in await next_events(host):
            if isinstance(event, Output):
                heard.outputs.append(event)
            else:
                heard.returned.append(event)
    return heard


async def next_events(host: FunctionHost) -> list[Returned | Output]:
    async with asyncio.timeout(LIMIT_S):
        return await host.receive()


async def call(host: FunctionHost, *args: Any, index: int = 0, epoch: int = 1, **kwargs: Any) -> Heard:
    host.send([call_of(*args, index=index, epoch=epoch, **kwargs)])
    return await hear(host, 1)


async def until_death(host: FunctionHost) -> Heard:
    heard = Heard()
    try:
        await hear(host, sys.maxsize, heard)
    except HostDied as death:
        heard.death = death
    return heard


def print_and_wait(text: str, path: str) -> str:
    """A function for tests: prints, and returns when there is a file ``path``."""
    import os
    import time

    print(text)
    while not os.path.exists(path):  # noqa: PTH110  # as users write
        time.sleep(0.01)
    return text


cloudpickle.register_pickle_by_value(sys.modules[__name__])
