"""Attempts with a workspace and a process of their own: commands, and functions that have input or output files."""

import asyncio
import errno
import logging
import time
from collections.abc import Callable
from pathlib import Path

from idle_accelerator.agent.attempts import Attempt, RunClock
from idle_accelerator.agent.checkpoints.saves import AFTER_NOTICE_S, OWN_ACCORD_S, Watch
from idle_accelerator.agent.ends import (
    death_reason,
    ended_by_us,
    exit_status,
    kill_guest,
    patiently,
    why_killed,
)
from idle_accelerator.agent.environments import EnvironmentRefused, EnvironmentTrouble, Held
from idle_accelerator.agent.functions import FunctionCode, outcome_of
from idle_accelerator.agent.output import StreamPump, cut
from idle_accelerator.agent.outputs import caps_for, collect_outputs
from idle_accelerator.agent.provisions import Provision
from idle_accelerator.agent.sandbox import Guest, GuestExit, GuestSpec, KillFailed, SpawnFailed
from idle_accelerator.agent.workloads import wasm
from idle_accelerator.agent.workloads.contract import give_notice, in_environment, task_environment
from idle_accelerator.agent.workloads.function import FunctionHost, HostDied, Output, Returned
from idle_accelerator.agent.workshop import Workshop, held_for
from idle_accelerator.agent.workspace import InputMissing
from idle_accelerator.errors import IdleError, StorageFull, TooLarge
from idle_accelerator.wire.checkpoints import GO_ON_ELSEWHERE
from idle_accelerator.wire.exchange import AttemptReport, LogChunk
from idle_accelerator.wire.jobs import Command, Function, Wasm
from idle_accelerator.wire.reasons import Reason, reason
from idle_accelerator.wire.states import AttemptState

_log = logging.getLogger(__name__)
_PIPES_END_S = 5.0
"""How long output is waited for after the last process of a task is gone."""


class Single:
    """Runs one attempt from its lease to its report. ``run`` never raises but for a cancelled agent."""

    def __init__(
        self, attempt: Attempt, shop: Workshop, *, threads: int, on_begin: Callable[[], None]
    ) -> None:
        self._attempt = attempt
        self._shop = shop
        self._threads = threads
        self._on_begin = on_begin
        self._workspace: Path | None = None
        self._held: Held | None = None
        self._preparing: asyncio.Task[None] | None = None
        self._host: FunctionHost | None = None
        self._killing: asyncio.Task[None] | None = None
        self._logs: list[LogChunk] = []
        self._resume_from: Path | None = None
        self._watch: Watch | None = None
        self._provision = Provision(None, None)

    def vacate(self) -> None:
        """The attempt must go: while inputs are fetched at once, later by notice."""
        if self._preparing is not None:
            self._preparing.cancel()
        if self._watch is not None:
            self._watch.hurry()
        self._notify()

    def _notify(self) -> None:
        guest = self._attempt.guest
        if guest is None:
            return
        if self._host is not None:
            self._host.notify_vacate()
        else:
            give_notice(self._required_workspace())
            guest.notify_vacate()
        guest.thaw()  # a frozen guest hears it when it goes on

    async def run(self) -> None:
        try:
            report = await self._report()
            if self._attempt.stale:
                self._shop.outbox.forget(self._attempt.ref)
            else:
                if report.resumed is not self._attempt.resumed:
                    report = report.model_copy(update={"resumed": self._attempt.resumed})
                self._attempt.state = report.state
                self._shop.outbox.finish(report, self._logs)
        finally:
            if self._held is not None and self._shop.environments is not None:
                self._shop.environments.release(self._held)
            if self._watch is not None:
                self._watch.stop()
            self._provision.give_back()
            # After the report is filed: what a task made is not thrown away before it is safe.
            if self._workspace is not None:
                disk_bytes = self._attempt.spec.requirements.disk_bytes
                await asyncio.shield(self._shop.workspaces.discard(self._workspace, disk_bytes=disk_bytes))

    async def _report(self) -> AttemptReport:
        attempt = self._attempt
        try:
            attempt.move(AttemptState.STAGING)
            self._shop.outbox.state(attempt.report(AttemptState.STAGING))
            self._preparing = asyncio.create_task(self._prepare(), name=f"prepare {attempt.ref}")
            try:
                await self._preparing
            except asyncio.CancelledError:
                if attempt.vacating_at_s is None:
                    raise
                return self._left()
            finally:
                self._preparing = None
            if attempt.vacating_at_s is not None:
                return self._left()
            self._provision = self._shop.provide(attempt.ref.job_id, attempt.spec.requirements)
            if isinstance(attempt.spec.workload, Command):
                return await self._run_command(attempt.spec.workload)
            if isinstance(attempt.spec.workload, Wasm):
                return await self._run_wasm(attempt.spec.workload)
            return await self._run_function(attempt.spec.workload)
        except SpawnFailed as error:
            if error.missing_program is not None:
                return self._failed(reason("task.program_missing", program=error.missing_program[:500]))
            return self._failed(reason("agent.spawn_failed", detail=error.message[:500]))
        except InputMissing as error:
            return self._failed(reason("agent.input_missing", path=error.path, detail=error.detail[:500]))
        except EnvironmentRefused as error:
            return self._failed(error.why)
        except EnvironmentTrouble as error:
            return self._gone(error.why)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                return self._gone(reason("agent.disk_full"))
            return self._failed(reason("agent.spawn_failed", detail=(error.strerror or str(error))[:500]))
        except (KillFailed, TooLarge) as error:
            return self._failed(reason("agent.spawn_failed", detail=error.message[:500]))
        except StorageFull:
            return self._gone(reason("agent.disk_full"))
        except IdleError as error:
            return self._gone(reason("agent.spawn_failed", detail=error.message[:500]))

    async def _prepare(self) -> None:
        self._workspace = self._shop.workspaces.make(self._attempt.key)
        await self._shop.workspaces.stage(self._attempt.spec.inputs, self._workspace)
        self._held = await held_for(self._attempt.spec, self._shop)
        if self._attempt.resume:
            restored = await self._shop.saves.restore(self._attempt, self._workspace)
            if restored is not None:
                self._resume_from = restored.path
                self._attempt.resumed = restored.resumed

    def _environment(self, workspace: Path) -> dict[str, str]:
        env = self._provision.environment(
            task_environment(
                ref=self._attempt.ref,
                task_count=self._attempt.spec.tasks,
                threads=self._threads,
                workspace=workspace,
                grace_s=self._attempt.grace_s,
                extra=self._attempt.spec.env,
                resume_from=self._resume_from,
            )
        )
        return env if self._held is None else in_environment(env, self._held.folder, self._held.programs)

    async def _run_command(self, command: Command) -> AttemptReport:
        workspace = self._required_workspace()
        env = self._environment(workspace)
        guest = await self._shop.sandbox.start(
            GuestSpec(
                argv=command.argv,
                workspace=workspace,
                env=env,
                memory_bytes=self._attempt.spec.requirements.memory_bytes or None,
                read_only=() if self._held is None else self._held.read_only,
                network=self._provision.way,
                devices=self._provision.devices,
            )
        )
        return await self._follow(guest)

    async def _run_wasm(self, workload: Wasm) -> AttemptReport:
        workspace = self._required_workspace()
        spec = self._attempt.spec
        launch = wasm.launch(
            workload,
            spec.requirements,
            workspace=workspace,
            env=self._environment(workspace),
            asked_env=spec.env,
            timeout_s=spec.timeout_s,
        )
        guest = await self._shop.sandbox.start(launch.spec)
        launch.tell(guest)
        return await self._follow(guest)

    async def _follow(self, guest: Guest) -> AttemptReport:
        """A program with two outputs, from its start to its report."""
        self._begin(guest)
        pumps: list[StreamPump] = []
        if guest.stdout is not None:
            pumps.append(StreamPump(self._attempt.ref, "stdout", guest.stdout, self._emit))
        if guest.stderr is not None:
            pumps.append(StreamPump(self._attempt.ref, "stderr", guest.stderr, self._emit))
        tasks = [asyncio.create_task(pump.run()) for pump in pumps]
        try:
            ended = await self._until_end(guest)
            if tasks:
                await asyncio.wait(tasks, timeout=_PIPES_END_S)
        finally:
            for task in tasks:
                task.cancel()
        self._logs = [chunk for pump in pumps for chunk in pump.rest()]
        return await self._after_command(ended)

    async def _after_command(self, ended: GuestExit) -> AttemptReport:
        attempt = self._attempt
        usage = attempt.usage(cpu_s=ended.cpu_s, max_rss_bytes=ended.max_rss_bytes)
        if attempt.stale:
            return self._left()
        if attempt.timed_out:
            why = reason("task.timeout", timeout_s=attempt.spec.timeout_s or 0.0)
            return attempt.report(AttemptState.FAILED, why).model_copy(update={"usage": usage})
        if attempt.vacating_at_s is not None and ended.exit_code != 0:
            await self._hand_over()
            return self._left().model_copy(update={"usage": usage, "exit_code": ended.exit_code})
        if ended.exit_code in GO_ON_ELSEWHERE:
            report = await self._go_on_elsewhere(ended.exit_code)
            return report.model_copy(update={"exit_code": ended.exit_code, "usage": usage})
        if ended.exit_code == 0:
            return (await self._with_outputs()).model_copy(update={"exit_code": 0, "usage": usage})
        # What a failed task leaves behind is collected as well: it is what its author wants to look at.
        why = why_killed(ended, attempt.spec) or reason(
            "task.exit_code", exit_code=ended.exit_code if ended.exit_code is not None else -1
        )
        if isinstance(attempt.spec.workload, Wasm) and (trapped := wasm.end_reason(ended.exit_code)):
            why = trapped
        kept = await self._with_outputs()
        return kept.model_copy(
            update={
                "state": AttemptState.FAILED,
                "reason": self._provision.explain(why),
                "exit_code": ended.exit_code,
                "usage": usage,
            }
        )

    async def _hand_over(self) -> None:
        """It had to leave: its newest checkpoint goes first, if that takes no long time. Nobody waits for one that was cancelled."""
        attempt = self._attempt
        if self._watch is not None and not attempt.cancelled and not attempt.stale:
            await self._watch.end(within_s=AFTER_NOTICE_S)

    async def _go_on_elsewhere(self, exit_code: int) -> AttemptReport:
        """It left because it wanted to. That is free for who has come further; else a task could go round for ever."""
        attempt, watch = self._attempt, self._watch
        saved = None if watch is None else await watch.end(within_s=OWN_ACCORD_S, patiently=True)
        if attempt.stale or attempt.cancelled:
            return self._left()
        if saved is not None:
            return attempt.report(AttemptState.VACATED, reason("task.moved_on", step=saved.step))
        if attempt.vacating_at_s is not None:
            return self._left()
        refused = None if watch is None else watch.refused
        why = reason(
            "task.nothing_saved", exit_code=exit_code, because=[refused or reason("checkpoint.none")]
        )
        kept = await self._with_outputs()
        return kept.model_copy(update={"state": AttemptState.FAILED, "reason": why})

    async def _run_function(self, function: Function) -> AttemptReport:
        workspace = self._required_workspace()
        code = await FunctionCode.load(function, self._shop.cache)
        host = await FunctionHost.start(
            sandbox=self._shop.sandbox,
            workspace=workspace,
            env=self._environment(workspace),
            code=code.code,
            results=function.results,
            job_id=self._attempt.ref.job_id,
            task_count=self._attempt.spec.tasks,
            grace_s=self._attempt.grace_s,
            memory_bytes=self._attempt.spec.requirements.memory_bytes or None,
            environment=self._held,
            network=self._provision.way,
            devices=self._provision.devices,
        )
        self._host = host
        self._begin(host.guest)
        host.send([code.call(self._attempt.ref)])
        returned: Returned | None = None
        try:
            while returned is None:
                for event in await host.receive():
                    if isinstance(event, Output):
                        self._emit_all(event)
                    else:
                        returned = event
        except HostDied as death:
            return await self._after_death(death)
        finally:
            await self._end(host.guest)
        attempt = self._attempt
        if attempt.stale:
            host.let_go()
            return self._left()
        exit_code = exit_status(returned)
        if exit_code in GO_ON_ELSEWHERE:
            host.let_go()
            usage = attempt.usage()
            if attempt.vacating_at_s is not None:
                await self._hand_over()
                report = self._left()
            else:
                report = await self._go_on_elsewhere(exit_code)
            return report.model_copy(update={"exit_code": exit_code, "usage": usage})
        try:
            report = await patiently(attempt, lambda: outcome_of(returned, attempt, self._shop.link))
        finally:
            host.let_go()
        kept = await self._with_outputs()
        update: dict[str, object] = {"artifacts": kept.artifacts}
        if report.state is AttemptState.FAILED:
            update["reason"] = self._provision.explain(report.reason)
        if report.state is AttemptState.SUCCEEDED and kept.reason is not None:
            update["reason"] = kept.reason
        return report.model_copy(update=update)

    async def _after_death(self, death: HostDied) -> AttemptReport:
        attempt = self._attempt
        if attempt.timed_out:
            return self._failed(reason("task.timeout", timeout_s=attempt.spec.timeout_s or 0.0))
        if attempt.stale or attempt.vacating_at_s is not None:
            await self._hand_over()
            return self._left()
        return self._failed(self._provision.explain(death_reason(death, attempt.spec)))

    def _begin(self, guest: Guest) -> None:
        attempt = self._attempt
        self._shop.guest_began(guest)
        attempt.guest = guest
        attempt.clock = RunClock(started_at_s=time.monotonic())
        self._watch = self._shop.saves.begin(attempt, self._required_workspace())
        if attempt.vacating_at_s is None:
            attempt.move(AttemptState.RUNNING)
        else:
            # The owner came back while it was being started: it has nothing to save.
            self._killing = asyncio.create_task(kill_guest(guest), name=f"kill {attempt.ref}")
        self._on_begin()

    async def _until_end(self, guest: Guest) -> GuestExit:
        try:
            return await guest.wait()
        finally:
            self._attempt.guest = None
            self._shop.guest_ended(guest)

    async def _end(self, guest: Guest) -> None:
        await kill_guest(guest)
        self._attempt.guest = None
        self._shop.guest_ended(guest)

    async def _with_outputs(self) -> AttemptReport:
        """SUCCEEDED with the outputs, which are on the scheduler's disk by then."""
        attempt = self._attempt
        patterns = attempt.spec.outputs
        if not patterns:
            return attempt.report(AttemptState.SUCCEEDED, reason("task.done"))
        collected = await collect_outputs(
            self._shop.link,
            self._required_workspace(),
            patterns,
            caps_for(attempt.spec.requirements),
            patiently=lambda keep: patiently(attempt, keep),
        )
        report = attempt.report(AttemptState.SUCCEEDED, collected.refused or reason("task.done"))
        return report.model_copy(update={"artifacts": collected.artifacts})

    def _emit(self, chunk: LogChunk) -> None:
        if not self._attempt.stale:
            self._shop.outbox.log(chunk)

    def _emit_all(self, output: Output) -> None:
        for chunk in cut(self._attempt.ref, output.stream, output.offset, output.data):
            self._emit(chunk)

    def _required_workspace(self) -> Path:
        if self._workspace is None:
            raise OSError("the workspace was not made")
        return self._workspace

    def _left(self) -> AttemptReport:
        """It left because it was told to."""
        return ended_by_us(self._attempt)

    def _gone(self, why: Reason) -> AttemptReport:
        """This machine cannot run it; that costs the task nothing."""
        self._shop.trouble.happened(why)
        if self._attempt.vacating_at_s is None:
            self._attempt.vacate_reason = why
        return self._left()

    def _failed(self, why: Reason | None) -> AttemptReport:
        return self._attempt.report(AttemptState.FAILED, why).model_copy(
            update={"usage": self._attempt.usage()}
        )
