"""What an agent gives back before it begins, whatever the scheduler granted."""

from types import SimpleNamespace
from typing import Any, cast

from pool_builders import GIB, JOB_ID, command_spec, requirements

from idle_accelerator.agent.availability import Availability
from idle_accelerator.agent.runner import Limits, Runner
from idle_accelerator.agent.workshop import Trouble
from idle_accelerator.core.reclaim import OwnerState
from idle_accelerator.wire.exchange import ExchangeAnswer, Grant
from idle_accelerator.wire.reasons import reason
from idle_accelerator.wire.resources import Resources
from idle_accelerator.wire.states import AttemptState


class Desk:
    """An outbox that keeps what it is told."""

    def __init__(self) -> None:
        self.ended: list[Any] = []

    def hold(self, _ref: object) -> bool:
        return True

    def finish(self, report: Any) -> None:
        self.ended.append(report)


def test_more_memory_than_may_be_asked_for_without_a_hard_limit_is_given_back_and_the_limit_named() -> None:
    desk = Desk()
    shop = cast("Any", SimpleNamespace(outbox=desk, trouble=Trouble(), workspaces=None))
    limits = Limits(total=Resources(cpus=2, memory_bytes=8 * GIB), vacate_after_s=60, grace_s=5)
    owner = OwnerState(lent=False, lent_jobs=None, reason=reason("owner.returned"), memory_short=False)
    away = Availability(lending="in_use", owner=owner, reasons=(), only_jobs=None)
    runner = Runner(shop, limits, away, on_change=lambda: None)
    runner.most_memory_bytes = 2 * GIB
    spec = command_spec("true", requirements=requirements(memory_bytes=3 * GIB))
    grant = Grant(job_id=JOB_ID, spec=spec, attempts=((0, 1),))
    runner.take_in(ExchangeAnswer.model_construct(grants=(grant,), orders=()))
    (report,) = desk.ended
    assert report.state is AttemptState.REJECTED
    assert report.reason.code == "match.memory_unlimited"
    assert report.reason.params["offered_bytes"] == 2 * GIB
