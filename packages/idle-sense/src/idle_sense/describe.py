"""In sentences: what this machine takes as idleness, under one policy."""

from collections.abc import Iterator

from idle_sense.policy import Policy
from idle_sense.probes.bundle import Probes
from idle_sense.sentences import duration, human


def describe(policy: Policy, probes: Probes) -> tuple[str, ...]:
    """Starts with what counts, ends with the limits of quantities. Reads nothing anew."""
    return tuple(_people(policy, probes)) + tuple(_quantities(policy, probes)) + tuple(_wishes(policy))


def _people(policy: Policy, probes: Probes) -> Iterator[str]:
    if policy.watch_input:
        yield from probes.seats.describe()
        yield from probes.terminals.describe()
        yield from probes.sessions.describe()
        yield f"Idle after {duration(policy.input_idle_s)} without any of these."
    else:
        yield f"By policy {policy.name!r} nobody sits here: keyboards and terminals are not looked at."
    for asked, probe in (
        (policy.watch_calls, probes.calls),
        (policy.watch_media, probes.media),
        (policy.watch_fullscreen, probes.screen),
    ):
        if asked:
            yield from probe.describe()


def _quantities(policy: Policy, probes: Probes) -> Iterator[str]:
    yield from probes.load.describe()
    yield (
        f"In use from {human('_ratio', policy.cpu_busy_ratio)} on, until the average over "
        f"{duration(policy.easing_s)} is below {human('_ratio', policy.cpu_free_ratio)}."
    )
    if policy.watch_gpu:
        yield from probes.gpus.describe()
    yield from probes.traffic.describe()
    yield f"Memory is short when less than {human('_ratio', policy.memory_short_ratio)} of it is available."


def _wishes(policy: Policy) -> Iterator[str]:
    yield "On battery it is lent as well." if policy.lend_on_battery else "On battery it is not lent."
    if not policy.lend_on_metered:
        yield "Over a network where what is sent costs money it is not lent."
    yield f"From {human('_c', policy.hot_c)} on it is not lent, until it has cooled to {human('_c', policy.cool_c)}."
    for hours in policy.quiet_hours:
        yield f"It is not lent during {hours}."
    if policy.pace_s:
        yield f"It gets idle at most twice in {duration(policy.pace_s)}."
