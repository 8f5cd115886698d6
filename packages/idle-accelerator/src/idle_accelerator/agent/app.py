"""The agent as a process: enrols, watches the owner, keeps the conversation with the scheduler, and leaves nothing behind."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from idle_accelerator import locks
from idle_accelerator.agent import control, taking_up
from idle_accelerator.agent.checkpoints.saves import Saves
from idle_accelerator.agent.config import AgentConfig, policy_of
from idle_accelerator.agent.consent import Consent, agree
from idle_accelerator.agent.control import AgentStatus, OwnerWord
from idle_accelerator.agent.environments import (
    EnvironmentLimits,
    open_environments,
)
from idle_accelerator.agent.fingerprint import fingerprint
from idle_accelerator.agent.journal import Journal
from idle_accelerator.agent.link import Link
from idle_accelerator.agent.outbox import Outbox
from idle_accelerator.agent.owner import OwnerWatch
from idle_accelerator.agent.runner import Runner
from idle_accelerator.agent.sandbox import kill_leftovers, open_sandbox
from idle_accelerator.agent.sandbox.choice import Chosen, choose, is_own_pool
from idle_accelerator.agent.session import UNKNOWN_NODE, Session
from idle_accelerator.agent.watcher import Stopped, Watcher
from idle_accelerator.agent.workshop import Workshop
from idle_accelerator.agent.workspace import BlobCache, Workspaces
from idle_accelerator.errors import Conflict, Unavailable
from idle_accelerator.wire.isolation import Isolation, RanUnder
from idle_accelerator.wire.nodes import Enrolled, NodeFacts, Offer
from idle_accelerator.wire.reasons import reason, render
from idle_sense import Monitor, Policy
from idle_sense.history import History

_log = logging.getLogger(__name__)
IDENTITY_FILE = "identity.json"
STATUS_AT_MOST_EVERY_S = 0.2
STATUS_AT_LEAST_EVERY_S = 10.0
_ENROL_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 5.0)
ISOLATION_EVERY_S = 3600.0
"""How often is looked whether what the sandbox rests on has changed; some milliseconds each."""


def run_agent(config: AgentConfig) -> int:
    """Runs until SIGINT or SIGTERM, then vacates its guests and returns 0.

    Raises InvalidInput for settings that cannot be, Conflict when another agent has the data directory, NoSandbox when
    this machine cannot keep guests apart from its owner as the settings ask, Unauthorized when the scheduler refuses the key.
    """
    policy = policy_of(config)
    config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = locks.take(config.data_dir / control.LOCK_FILE)
    if lock is None:
        raise Conflict(
            f"another agent has the data directory {config.data_dir} open.",
            field="--data-dir",
            hint="Stop that one, or give this one a directory of its own.",
        )
    try:
        # Before there is an event loop and any work: what is not known yet is tried, which takes a second or two.
        chosen = choose(
            config.sandbox,
            scheduler_url=config.scheduler_url,
            data_dir=config.data_dir,
            keyed=_is_keyed(config),
            container_image=config.container_image,
        )
        consent = agree(
            network=config.network,
            allow_hosts=config.allow_hosts,
            bytes_per_s=config.network_bytes_per_s,
            gpus=config.gpus,
            isolation=chosen.isolation,
        )
        consent.check(chosen.sandbox, config.data_dir)
        asyncio.run(_run(config, policy, chosen, consent))
    finally:
        lock.close()
    return 0


class _Agent:
    def __init__(
        self, config: AgentConfig, owner: OwnerWatch, link: Link, facts: NodeFacts, chosen: Chosen
    ) -> None:
        self._chosen = chosen
        self._config = config
        self._owner = owner
        self._link = link
        self._facts = facts
        self._identity: Enrolled | None = None
        self._session: Session | None = None
        self._runner: Runner | None = None
        self._connected = False
        self._status_due = asyncio.Event()
        self._stop = asyncio.Event()
        self._settling: set[asyncio.Task[None]] = set()

    def stopped(self, stopped: Stopped) -> None:
        """The watcher has frozen guests: see what idle-sense makes of that input, then take it over."""
        if self._runner is not None:
            task = asyncio.create_task(self._settle(self._runner, stopped), name="settle")
            self._settling.add(task)
            task.add_done_callback(self._settling.discard)

    async def _settle(self, runner: Runner, stopped: Stopped) -> None:
        if stopped.input_at_s is not None:
            await self._owner.look_now()
        runner.settle(stopped)

    async def run(self, outbox: Outbox, make_runner: Callable[[Callable[[], None]], Runner]) -> None:
        """Until a signal asks for the end; then hands back everything."""
        _on_stop_signals(asyncio.get_running_loop(), self._stop.set)
        runner = self._runner = make_runner(self._changed)
        runner.ran_under = _stamp(self._chosen.isolation)
        runner.most_memory_bytes = self._chosen.isolation.most_memory_bytes
        self._owner.on_change = lambda: self._reconsider(runner)
        terms = taking_up.TakingUp(self._config, self._owner, runner, self._facts.resources, policy_of)
        self._owner.look_for_terms = terms.look
        helpers = [
            asyncio.create_task(self._owner.watch(), name="owner"),
            asyncio.create_task(runner.watch_deadlines(), name="deadlines"),
            asyncio.create_task(self._show_status(), name="status"),
            asyncio.create_task(self._watch_isolation(), name="isolation"),
        ]
        stopping = asyncio.create_task(self._stop.wait(), name="stop")
        registration: Path | None = None
        try:
            while (identity := await self._enrolled()) is not None:
                registration = control.register(
                    self._config.data_dir, name=identity.name, scheduler_url=self._link.url
                )
                session = self._session = Session(
                    self._link,
                    outbox,
                    runner,
                    node_id=identity.node_id,
                    facts=self._facts.model_copy(update={"name": identity.name}),
                    on_connected=self._set_connected,
                )
                talking = asyncio.create_task(session.run(), name="session")
                await asyncio.wait({talking, stopping, *helpers}, return_when=asyncio.FIRST_COMPLETED)
                if stopping.done():
                    await self._hand_back(runner, session, talking)
                    return
                if talking.done():
                    self._forget_identity(talking)
                else:
                    talking.cancel()
                    await asyncio.gather(*(helper for helper in helpers if helper.done()))
        finally:
            if registration is not None:
                registration.unlink(missing_ok=True)
            stopping.cancel()
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(stopping, *helpers, return_exceptions=True)
            await runner.stop()
            self._connected = False
            self._write_status(lending="offline")

    async def _hand_back(self, runner: Runner, session: Session, talking: asyncio.Task[None]) -> None:
        """The machine leaves the pool: guests are vacated, and what they gave is handed in."""
        self._owner.draining = True
        runner.set_availability(self._owner.now())
        await runner.stop()
        talking.cancel()
        await asyncio.gather(talking, return_exceptions=True)
        await session.say_goodbye(Offer(lending="offline", reasons=(reason("agent.stopping"),)))

    def _forget_identity(self, talking: asyncio.Task[None]) -> None:
        """The conversation has ended by itself: goes on only where a new enrolment helps. Raises its error else."""
        try:
            talking.result()
        except UNKNOWN_NODE as error:
            _log.warning("the scheduler does not know this node any more (%s); enrolling anew", error.message)
            (self._config.data_dir / IDENTITY_FILE).unlink(missing_ok=True)

    async def _enrolled(self) -> Enrolled | None:
        """The node's identity, from its file or from the scheduler; None when the agent is stopped before it has one.

        Raises Unauthorized when the scheduler refuses the key.
        """
        path = self._config.data_dir / IDENTITY_FILE
        known = _read_identity(path, self._link.url)
        tries = 0
        while known is None and not self._stop.is_set():
            try:
                known = await self._link.enrol(self._facts, key=self._config.key)
            except Unavailable as error:
                pause_s = _ENROL_PAUSES_S[min(tries, len(_ENROL_PAUSES_S) - 1)]
                tries += 1
                _log.warning("%s %s Trying again in %.1f s.", error.message, error.hint or "", pause_s)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._stop.wait()
            else:
                keyed = self._config.key is not None
                control.write_json(
                    path, {"scheduler_url": self._link.url, "keyed": keyed, **known.model_dump()}
                )
        if known is not None:
            await self._link.use_token(known.token)
            self._identity = known
            _log.info("this node is %s (%s) in the pool of %s", known.name, known.node_id, self._link.url)
        return known

    def _reconsider(self, runner: Runner) -> None:
        runner.set_availability(self._owner.now())
        self._write_status()

    def _changed(self) -> None:
        if self._runner is not None:
            self._owner.be_attentive(guests_run=self._runner.hand.has_guests)
        if self._session is not None:
            self._session.offer_may_have_changed()
        self._status_due.set()

    def _set_connected(self, connected: bool) -> None:
        if connected != self._connected:
            self._connected = connected
            self._status_due.set()

    async def _watch_isolation(self) -> None:
        """What the sandbox holds is tried anew after changes. Raises NoSandbox when it holds no more: then the agent ends."""
        recheck = self._chosen.recheck
        while recheck is not None:
            await asyncio.sleep(ISOLATION_EVERY_S)
            isolation = await recheck()
            if isolation is not None:
                _log.info(
                    "isolation: something has changed; tier %s was tried anew, and holds", isolation.tier
                )
                said = self._facts.isolation
                if said is not None:  # what was consented to stays
                    isolation = isolation.model_copy(update={"net": said.net, "gpu": said.gpu})
                self._facts = self._facts.model_copy(update={"isolation": isolation})
                if self._runner is not None:
                    self._runner.ran_under = _stamp(isolation)
                if self._session is not None:
                    self._session.tell_facts(isolation)
        await asyncio.Event().wait()

    async def _show_status(self) -> None:
        while True:
            self._status_due.clear()
            self._write_status()
            await asyncio.sleep(STATUS_AT_MOST_EVERY_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STATUS_AT_LEAST_EVERY_S):
                    await self._status_due.wait()

    def _write_status(self, *, lending: str | None = None) -> None:
        now = self._owner.now()
        troubles = self._runner.troubles() if self._runner is not None else ()
        if self._config.owner_file is not None and self._config.owner_file.problem is not None:
            troubles = (*troubles, self._config.owner_file.problem)
        status = AgentStatus(
            pid=os.getpid(),
            word_id=self._owner.word_id,
            lending=lending or now.lending,
            sentences=tuple(render(item) for item in (*now.reasons, *troubles)),
            running=self._runner.hand.running_count if self._runner is not None else 0,
            frozen=self._runner.hand.frozen_count if self._runner is not None else 0,
            node_id=self._identity.node_id if self._identity is not None else "",
            name=self._identity.name if self._identity is not None else "",
            scheduler_url=self._link.url,
            connected=self._connected,
            updated_at_s=time.time(),
        )
        try:
            control.write_status(self._config.data_dir, status)
        except OSError as error:
            _log.warning("the status file cannot be written: %s", error)


def _stamp(isolation: Isolation) -> RanUnder | None:
    """None where nothing is claimed."""
    if isolation.probed_at is None:
        return None
    return RanUnder(tier=isolation.tier, probed_at=isolation.probed_at)


async def _run(config: AgentConfig, policy: Policy, chosen: Chosen, consent: Consent) -> None:
    """Sets the rooms up, tidies up after an earlier agent that crashed, and runs."""
    if config.lend_for_s is not None:
        control.give_word(config.data_dir, OwnerWord(kind="lend", for_s=config.lend_for_s))
    sandbox = chosen.sandbox
    # What this machine's days are like is learned here too: `idle-sense forecast` rests on it.
    history = History.native(policy.name)
    monitor = Monitor(policy, history=history)
    link = Link(config.scheduler_url, on_moved=monitor.guests().sent)
    journal = Journal(config.data_dir / "journal.jsonl")
    journal.open()
    killed = kill_leftovers(journal.leftover_guests)
    journal.forget_guests()
    cache = BlobCache(config.data_dir / "blobs", link)
    cache.open()
    workspaces = Workspaces(config.data_dir / "work", cache)
    wiped = workspaces.open()
    if killed or wiped:
        _log.info("tidied up after an agent that crashed: %d process(es), %d workspace(s)", killed, wiped)
    if config.pool_pid is not None:
        monitor.guests().add(config.pool_pid)
    owner = OwnerWatch(monitor, config.data_dir)
    facts = fingerprint(
        data_dir=config.data_dir,
        name=config.name,
        cpus=config.cpus,
        memory_bytes=config.memory_bytes,
        disk_bytes=config.disk_bytes,
        labels=config.labels,
        isolation=consent.isolation,
        idleness=monitor.describe(),
        gpu_names=consent.gpu_names,
        network=consent.network,
    )
    for sentence in facts.idleness:
        _log.info("idleness: %s", sentence)
    for sentence in (*chosen.sentences, *consent.sentences()):
        _log.info("isolation: %s", sentence)
    environments = open_environments(
        config.data_dir / "environments",
        limits=EnvironmentLimits(
            kept_bytes=config.environments_kept_bytes,
            size_bytes=config.environment_size_bytes,
            time_s=config.environment_time_s,
        ),
        sandbox=open_sandbox(),
        unlocked=sandbox.tier == "process" and is_own_pool(config.scheduler_url, keyed=_is_keyed(config)),
    )
    if environments is not None:
        facts = facts.model_copy(update={"environments": environments.facts})
    outbox = Outbox(journal)
    outbox.recover(journal.unacknowledged)
    ways = consent.open_ways(
        config.data_dir,
        on_moved=monitor.guests().sent,
        on_began=lambda guest: monitor.guests().add(guest.pid),
        on_ended=lambda guest: monitor.guests().discard(guest.pid),
    )
    saves = Saves(link, outbox, upload_bytes_per_s=config.upload_bytes_per_s or None)
    shop = Workshop(
        sandbox=sandbox,
        workspaces=workspaces,
        cache=cache,
        link=link,
        outbox=outbox,
        journal=journal,
        ledger=monitor.guests(),
        environments=environments,
        ways=ways,
        devices=consent.open_devices(),
        saves=saves,
    )
    if environments is not None:
        environments.attend(began=shop.guest_began, ended=shop.guest_ended, moved=monitor.guests().sent)
    owner.rules = taking_up.rules_of(config, facts.resources, policy)
    limits = taking_up.limits_of(config, facts.resources)
    agent = _Agent(config, owner, link, facts, chosen)
    watcher = Watcher(input_idle_s=policy.input_idle_s, on_stopped=agent.stopped)
    try:
        await agent.run(
            outbox,
            lambda on_change: Runner(
                shop,
                limits,
                owner.now(),
                on_change=on_change,
                watcher=watcher if policy.watch_input and watcher.serves else None,
            ),
        )
    finally:
        if ways is not None:
            await ways.close()
        watcher.close()
        await saves.close()
        await workspaces.close()
        if environments is not None:
            await environments.close()
        await asyncio.to_thread(monitor.close)
        await asyncio.to_thread(history.close)
        await sandbox.close()
        journal.close()
        await link.close()


def _is_keyed(config: AgentConfig) -> bool:
    """Whether the pool has a key: it is given, or was when this agent enrolled. ``idlectl up`` gives it whenever there is one."""
    if config.key is not None or config.pool_pid is not None:
        return config.key is not None
    try:
        values = json.loads((config.data_dir / IDENTITY_FILE).read_text(encoding="utf-8"))
        return values["scheduler_url"] == config.scheduler_url and bool(values.get("keyed"))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _read_identity(path: Path, url: str) -> Enrolled | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("scheduler_url") != url:
            return None
        values.pop("keyed", None)
        return Enrolled.model_validate(values)
    except (OSError, ValueError, KeyError, AttributeError):
        return None


def _on_stop_signals(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    def from_signal(_number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stop)

    if sys.platform == "win32":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGBREAK):
            signal.signal(number, from_signal)
    else:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, stop)
