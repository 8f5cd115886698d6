"""The hostile attempts as a table: what each is about, and what each tier makes of it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal

Outcome = Literal["works", "refused", "impossible"]
Field = Literal["fs", "net", "pidns", "calls", "disk", "prio", "kill", "gpu"]
"""The line of ``wire.nodes.Isolation`` that it is about."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One function of ``hostile``, which says there what it tries."""

    name: str
    field: Field
    bubblewrap: Outcome = "refused"
    """What must come of it in that tier for the line to hold. Where it works, the line says so, or it does no harm there."""
    landlock: Outcome = "refused"
    container: Outcome = "refused"
    """The same in those."""
    process: Outcome = "works"
    """The same for a plain process of root's, which nothing stops."""
    needs: Literal["nothing", "root", "luck"] = "nothing"
    """Without any sandbox: it works for everybody, for root, or depending on the machine's settings."""


ATTEMPTS: Final = (
    Attempt(name="read_home", field="fs", needs="luck"),
    Attempt(name="read_agent_data", field="fs"),
    Attempt(name="write_root", field="fs", needs="root"),
    Attempt(name="write_usr", field="fs", needs="root"),
    Attempt(name="write_etc", field="fs", needs="root"),
    Attempt(name="write_dev", field="fs", needs="root"),
    Attempt(name="write_sysctl", field="fs", needs="root"),
    Attempt(name="look_at_file", field="fs", landlock="works"),
    Attempt(name="change_rights", field="fs"),
    Attempt(name="change_times", field="fs"),
    Attempt(name="touch_file", field="fs", landlock="works"),
    Attempt(name="watch_file", field="fs"),
    Attempt(name="mount", field="fs", needs="root"),
    Attempt(name="mknod", field="fs", needs="root"),
    Attempt(name="setuid", field="fs", needs="luck"),
    Attempt(name="user_namespace", field="calls", needs="luck"),
    Attempt(name="loopback", field="net"),
    Attempt(name="metadata", field="net", needs="luck"),
    Attempt(name="internet", field="net", needs="luck"),
    Attempt(name="abstract_socket", field="net"),
    Attempt(name="send_datagram", field="net"),
    Attempt(name="see_processes", field="pidns"),
    Attempt(name="read_environments", field="pidns"),
    Attempt(name="trace", field="pidns", needs="root"),
    Attempt(name="send_signal", field="pidns"),
    Attempt(name="slow_down", field="pidns"),
    Attempt(name="limit_others", field="pidns"),
    Attempt(name="shared_memory", field="pidns"),
    Attempt(name="keyring", field="calls", needs="luck"),
    Attempt(name="bpf", field="calls", needs="root"),
    Attempt(name="io_uring", field="calls", needs="luck"),
    Attempt(name="userfaultfd", field="calls", needs="luck"),
    Attempt(name="perf_events", field="calls", needs="luck"),
    Attempt(name="type_into_terminal", field="calls", needs="luck"),
    Attempt(name="dump_core", field="disk", needs="luck"),
    Attempt(name="fill_tmp", field="disk", needs="luck"),
    Attempt(name="fill_shm", field="disk", needs="luck"),
    Attempt(name="many_files", field="disk", bubblewrap="works", container="works"),
    Attempt(name="raise_priority", field="prio", needs="root"),
    Attempt(name="run_in_real_time", field="prio", needs="luck"),
    Attempt(name="raise_group", field="prio", needs="luck"),
    Attempt(name="leave_group", field="prio", needs="luck"),
    Attempt(name="use_gpu", field="gpu", needs="luck"),
    Attempt(name="shed_mark", field="kill", bubblewrap="works", container="works"),
    Attempt(name="outlive", field="kill", process="refused"),
)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What came of an attempt."""

    outcome: Outcome
    detail: str


def expected(attempt: Attempt, tier: str) -> Outcome:
    """Raises KeyError for a tier that the table does not know."""
    outcomes: dict[str, Outcome] = {
        "bubblewrap": attempt.bubblewrap,
        "landlock": attempt.landlock,
        "container": attempt.container,
        "process": attempt.process,
    }
    return outcomes[tier]


def breaches(
    seen: Mapping[str, Seen], tier: str = "bubblewrap", *, conceded: Collection[str] = ()
) -> dict[Field, str]:
    """What should have been refused in this tier and was not, by line; an attempt that was not made counts too.

    ``conceded`` are attempts that the tier does not claim to refuse on this machine.
    """
    found: dict[Field, list[str]] = {}
    for attempt in ATTEMPTS:
        if expected(attempt, tier) == "works" or attempt.name in conceded:
            continue
        outcome = seen.get(attempt.name)
        if outcome is None:
            found.setdefault(attempt.field, []).append(f"{attempt.name} was not tried")
        elif outcome.outcome == "works":
            found.setdefault(attempt.field, []).append(f"{attempt.name} works ({outcome.detail})")
    return {field: "; ".join(texts) for field, texts in found.items()}
