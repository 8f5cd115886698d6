"""What it takes to run attempts on this machine, and who hears of their guests."""

import logging
import time
from dataclasses import dataclass, field
from typing import Protocol

from idle_accelerator.agent.checkpoints.saves import Saves
from idle_accelerator.agent.devices import Devices
from idle_accelerator.agent.environments import Environments, EnvironmentTrouble, Held
from idle_accelerator.agent.journal import Journal
from idle_accelerator.agent.link import Link
from idle_accelerator.agent.network.types import Ways
from idle_accelerator.agent.outbox import Outbox
from idle_accelerator.agent.provisions import Provision, provide
from idle_accelerator.agent.sandbox import Guest, Sandbox
from idle_accelerator.agent.workspace import BlobCache, Workspaces
from idle_accelerator.wire.jobs import Function, JobSpec, Requirements
from idle_accelerator.wire.reasons import Reason, render
from idle_sense import SenseError

_log = logging.getLogger(__name__)
TROUBLE_S = 10.0


class Ledger(Protocol):
    """Whose load is not the owner's: idle-sense's book of guests."""

    def add(self, pid: int) -> None: ...
    def discard(self, pid: int) -> None: ...
    def add_cgroup(self, path: str) -> None: ...
    def add_job(self, name: str) -> None: ...
    def discard_job(self, name: str) -> None: ...


class Trouble:
    """This machine could not run a task, for a reason of its own: it takes nothing new for a while."""

    def __init__(self) -> None:
        self._reason: Reason | None = None
        self._until_s = 0.0

    def happened(self, why: Reason) -> None:
        _log.warning("taking nothing new for %.0f s: %s", TROUBLE_S, render(why))
        self._reason = why
        self._until_s = time.monotonic() + TROUBLE_S

    @property
    def now(self) -> Reason | None:
        """The reason, while it lasts."""
        return self._reason if time.monotonic() < self._until_s else None


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """What it takes to run attempts."""

    sandbox: Sandbox
    workspaces: Workspaces
    cache: BlobCache
    link: Link
    outbox: Outbox
    journal: Journal
    ledger: Ledger
    environments: Environments | None = None
    """None: this machine makes none."""
    saves: Saves
    ways: Ways | None = None
    """None: no guest gets a network from here."""
    devices: Devices | None = None
    """None: no graphics card is given, nor told of."""
    trouble: Trouble = field(default_factory=Trouble)
    counted_groups: set[str] = field(default_factory=set[str])
    """Control groups that the ledger knows. They hold the groups of all guests and outlive these, so that nothing is lost with one."""

    def provide(self, job_id: str, requirements: Requirements) -> Provision:
        """Raises CardsTaken."""
        return provide(requirements, ways=self.ways, devices=self.devices, job=job_id)

    def guest_began(self, guest: Guest) -> None:
        self.journal.guest_started(guest.record)
        if guest.cgroup is not None and guest.cgroup not in self.counted_groups:
            self.counted_groups.add(guest.cgroup)
            try:
                self.ledger.add_cgroup(guest.cgroup)
            except SenseError as error:
                _log.info("the load of guests is counted by their trees alone: %s", error)
        if guest.job is not None:
            try:
                self.ledger.add_job(guest.job)
            except SenseError as error:
                # It has ended already, and its job with it. Whatever it was, its tree counts as everywhere.
                _log.info("the load of process %d is counted by its tree alone: %s", guest.pid, error)
        self.ledger.add(guest.pid)

    def guest_ended(self, guest: Guest) -> None:
        self.ledger.discard(guest.pid)
        if guest.job is not None:
            self.ledger.discard_job(guest.job)
        self.journal.guest_gone(guest.record)


async def held_for(spec: JobSpec, shop: Workshop) -> Held | None:
    """The job's environment, to be released when its guest has ended; None where it wants none.

    Raises EnvironmentRefused, EnvironmentTrouble, OSError.
    """
    if spec.environment is None:
        return None
    if shop.environments is None:
        raise EnvironmentTrouble("it has no uv, or its owner wants no environments.")
    python = spec.workload.python if isinstance(spec.workload, Function) else spec.requirements.python
    return await shop.environments.hold(spec.environment, python=python)
