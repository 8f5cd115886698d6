"""The hostile attempts as a table: what each is about, and what each tier makes of it."""

from collections.abc import Mapping
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
    """What must come of it in that tier for the line to hold. Where it works, the line says so."""
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
    Attempt(name="mount", field="fs", needs="root"),
    Attempt(name="mknod", field="fs", needs="root"),
    Attempt(name="setuid", field="fs", needs="luck"),
    Attempt(name="user_namespace", field="calls", needs="luck"),
    Attempt(name="loopback", field="net"),
    Attempt(name="metadata", field="net", needs="luck"),
    Attempt(name="internet", field="net", needs="luck"),
    Attempt(name="abstract_socket", field="net"),
    Attempt(name="see_processes", field="pidns"),
    Attempt(name="read_environments", field="pidns"),
    Attempt(name="trace", field="pidns", needs="root"),
    Attempt(name="send_signal", field="pidns"),
    Attempt(name="keyring", field="calls", needs="luck"),
    Attempt(name="bpf", field="calls", needs="root"),
    Attempt(name="io_uring", field="calls", needs="luck"),
    Attempt(name="userfaultfd", field="calls", needs="luck"),
    Attempt(name="perf_events", field="calls", needs="luck"),
    Attempt(name="type_into_terminal", field="calls", needs="luck"),
    Attempt(name="dump_core", field="disk", needs="luck"),
    Attempt(name="fill_tmp", field="disk", needs="luck"),
    Attempt(name="fill_shm", field="disk", needs="luck"),
    Attempt(name="many_files", field="disk", bubblewrap="works"),
    Attempt(name="raise_priority", field="prio", needs="root"),
    Attempt(name="run_in_real_time", field="prio", needs="luck"),
    Attempt(name="raise_group", field="prio", needs="luck"),
    Attempt(name="use_gpu", field="gpu", needs="luck"),
    Attempt(name="outlive", field="kill", process="refused"),
)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What came of an attempt."""

    outcome: Outcome
    detail: str


def breaches(seen: Mapping[str, Seen]) -> dict[Field, str]:
    """What should have been refused in tier ``bubblewrap`` and was not, by line; an attempt that was not made counts too."""
    found: dict[Field, list[str]] = {}
    for attempt in ATTEMPTS:
        if attempt.bubblewrap == "works":
            continue
        outcome = seen.get(attempt.name)
        if outcome is None:
            found.setdefault(attempt.field, []).append(f"{attempt.name} was not tried")
        elif outcome.outcome == "works":
            found.setdefault(attempt.field, []).append(f"{attempt.name} works ({outcome.detail})")
    return {field: "; ".join(texts) for field, texts in found.items()}
