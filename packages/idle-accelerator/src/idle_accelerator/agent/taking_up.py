"""What the owner's terms mean for the parts of a running agent, and how they take up a change of them."""

from __future__ import annotations

from dataclasses import MISSING, fields, replace
from typing import TYPE_CHECKING, Any, cast

from idle_accelerator.agent import control
from idle_accelerator.agent.availability import PRESENCE, OnBattery, Rules
from idle_accelerator.agent.runner import Limits
from idle_accelerator.agent.terms import DURING, SETTINGS, Term
from idle_accelerator.wire.resources import Resources
from idle_sense import Policy

if TYPE_CHECKING:
    from collections.abc import Callable

    from idle_accelerator.agent.config import AgentConfig
    from idle_accelerator.agent.owner import OwnerWatch
    from idle_accelerator.agent.runner import Runner


def limits_of(config: AgentConfig, total: Resources) -> Limits:
    return Limits(total=total, vacate_after_s=config.vacate_after_s, grace_s=config.grace_s)


def rules_of(config: AgentConfig, total: Resources, policy: Policy) -> Rules:
    present: Resources | None = None
    if config.present_cpus > 0:
        cpus = min(config.present_cpus, total.cpus)
        in_proportion = int(total.memory_bytes * cpus / total.cpus) if total.cpus else 0
        wanted = config.present_memory_bytes
        present = Resources(
            cpus=cpus,
            memory_bytes=in_proportion if wanted is None else min(wanted, total.memory_bytes),
            disk_bytes=total.disk_bytes,
            gpus=min(config.present_gpus, total.gpus),
        )
    return Rules(
        total=total,
        present=present,
        tolerated=(*PRESENCE, *(code for name in config.present_during for code in DURING[name])),
        hours=config.hours,
        on_battery=cast("OnBattery", config.on_battery),
        watches_input=policy.watch_input,
    )


def defaults_of(config: type[AgentConfig]) -> dict[str, Any]:
    """What stands where nobody says anything, by field."""
    named = {setting.field for setting in SETTINGS}
    return {
        item.name: item.default_factory()
        if callable(item.default_factory)
        else None
        if item.default is MISSING
        else item.default
        for item in fields(config)
        if item.name in named
    }


def shown(terms: tuple[Term, ...]) -> list[dict[str, Any]]:
    """As ``idlectl terms`` has them."""
    return [
        {
            "key": term.setting.key,
            "value": term.shown,
            "origin": term.origin,
            "takes_effect": "now" if term.setting.live else "at the next start",
            "meaning": term.setting.meaning,
            "flag": term.setting.flag,
        }
        for term in terms
    ]


class TakingUp:
    """Reads the owner's file anew when it changes, and hands on what can change while the agent runs."""

    def __init__(
        self,
        config: AgentConfig,
        owner: OwnerWatch,
        runner: Runner,
        total: Resources,
        policy_of: Callable[[AgentConfig], Policy],
    ) -> None:
        self._config = config
        self._policy_of = policy_of
        self._owner = owner
        self._runner = runner
        self._total = total
        self._write()

    def look(self) -> bool:
        """True when the terms, or what is wrong with the file, have changed."""
        file = self._config.owner_file
        if file is None or not file.look():
            return False
        if file.problem is None:
            defaults = defaults_of(type(self._config))
            said = {**defaults, **file.values()}
            live = {item.field: said[item.field] for item in SETTINGS if item.live}
            config = replace(self._config, **live)
            policy = self._policy_of(config)
            self._owner.adopt(policy, rules_of(config, self._total, policy))
            self._runner.set_limits(limits_of(config, self._total))
            self._config = config
        self._write()
        return True

    def _write(self) -> None:
        file = self._config.owner_file
        if file is None:
            return
        values = {
            "file": str(file.path),
            "problem": None if file.problem is None else file.problem.params.get("detail"),
            "terms": shown(file.terms(defaults_of(type(self._config)))),
        }
        control.write_json(self._config.data_dir / control.TERMS_FILE, values)
