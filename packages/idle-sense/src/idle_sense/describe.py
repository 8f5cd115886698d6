"""In sentences: what this machine takes as idleness, under one policy."""

from idle_sense.probes.bundle import Probes
from idle_sense.sentences import duration, human
from idle_sense.types import Policy


def describe(policy: Policy, probes: Probes) -> tuple[str, ...]:
    """Starts with what counts, ends with the limits of quantities. Reads nothing anew."""
    told: list[str] = []
    if policy.watch_input:
        seats = probes.seats.describe()
        terminals = probes.terminals.describe()
        told += seats
        told += terminals
        told.append(f"Idle after {duration(policy.input_idle_s)} without any of these.")
    else:
        told.append(f"By policy {policy.name!r} nobody sits here: keyboards and terminals are not looked at.")
    told += probes.load.describe()
    told.append(
        f"In use from {human('_ratio', policy.cpu_busy_ratio)} on, until the average over "
        f"{duration(policy.cpu_calm_s)} is below {human('_ratio', policy.cpu_free_ratio)}."
    )
    told.append(
        f"Memory is short when less than {human('_ratio', policy.memory_short_ratio)} of it is available."
    )
    told.append("On battery it is lent as well." if policy.lend_on_battery else "On battery it is not lent.")
    return tuple(told)
