"""What a guest gets beside its workspace: a way to the network, and graphics cards."""

from collections.abc import Mapping
from pathlib import Path

from idle_accelerator.agent.devices import Devices, Taken
from idle_accelerator.agent.network.types import Way, Ways
from idle_accelerator.wire.jobs import Requirements
from idle_accelerator.wire.reasons import Reason


class Provision:
    """One guest's. To be given back when it has ended."""

    def __init__(self, way: Way | None, taken: Taken | None) -> None:
        self.way = way
        self._taken = taken

    @property
    def devices(self) -> tuple[Path, ...]:
        return () if self._taken is None else self._taken.nodes

    def environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """``env`` with what tells of it. The way is the only one there is, so a job's own proxy gives way to it."""
        told = dict(env) if self._taken is None else self._taken.environment(env)
        return told if self.way is None else {**told, **self.way.env}

    def explain(self, why: Reason | None) -> Reason | None:
        """The reason of a failure, with what the guest was refused of the network since this was asked last."""
        refused = () if self.way is None else self.way.refusals()
        if why is None or not refused:
            return why
        return why.model_copy(update={"because": (*why.because, *refused)})

    def give_back(self) -> None:
        """Idempotent."""
        if self.way is not None:
            self.way.close()
        if self._taken is not None:
            self._taken.give_back()


def provide(requirements: Requirements, *, ways: Ways | None, devices: Devices | None, job: str) -> Provision:
    """Raises CardsTaken."""
    way = None if ways is None else ways.way_for(requirements.network, job=job)
    return Provision(way, None if devices is None else devices.take(requirements.gpus))
