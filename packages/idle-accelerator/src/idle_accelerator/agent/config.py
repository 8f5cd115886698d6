"""How an owner lends this machine: all settings of an agent."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from idle_accelerator.agent.checkpoints.saves import DEFAULT_UPLOAD_BYTES_PER_S
from idle_accelerator.agent.environments import (
    DEFAULT_KEPT_BYTES,
    DEFAULT_SIZE_BYTES,
    DEFAULT_TIME_S,
)
from idle_accelerator.agent.owner_file import OwnerFile
from idle_accelerator.agent.sandbox.choice import Choice
from idle_accelerator.core.reclaim import DEFAULT_GRACE_S, DEFAULT_VACATE_AFTER_S
from idle_accelerator.errors import InvalidInput
from idle_sense import InvalidPolicy, Policy
from idle_sense.quiet_hours import QuietHours

_POLICIES = {"desktop": Policy.desktop, "server": Policy.server, "lab": Policy.lab}


@dataclass(frozen=True, kw_only=True)
class AgentConfig:
    """How an owner lends this machine. None means: as much as is polite."""

    scheduler_url: str
    data_dir: Path
    key: str | None = None
    """The scheduler's key, for enrolment only; the node then has a token of its own."""
    name: str | None = None
    policy: str = "desktop"
    """'desktop', 'server' (no owner at the keyboard) or 'lab'."""
    input_idle_s: float | None = None
    """How long without input until the machine counts as idle; the policy's own value if None."""
    cpus: float | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    lend_for_s: float | None = None
    """Lend by the owner's word for so long, from the start on."""
    pool_pid: int | None = None
    """A process whose tree belongs to the pool, such as ``idlectl up`` with its scheduler: its load is not the owner's."""
    network: str = "off"
    """What guests in a sandbox may reach: 'off', 'proxy' (``allow_hosts``) or 'open'."""
    allow_hosts: tuple[str, ...] = ()
    """As ``wire.hosts.lent_host`` reads them."""
    network_bytes_per_s: float | None = None
    """Each guest's, through the proxy. None: as much as there is."""
    sandbox: Choice = "auto"
    """'auto': plain processes for a scheduler on this machine, and for any other the strongest tier that holds."""
    container_image: str | None = None
    """For the tier 'container'; None for an empty one that shows the system's programs."""
    upload_bytes_per_s: float = DEFAULT_UPLOAD_BYTES_PER_S
    """Of checkpoints, all together; 0 is no limit, and none holds for a scheduler on this machine."""
    vacate_after_s: float = DEFAULT_VACATE_AFTER_S
    grace_s: float = DEFAULT_GRACE_S
    environments_kept_bytes: int = DEFAULT_KEPT_BYTES
    """All environments of tasks and what they are made of; 0: none are made."""
    environment_size_bytes: int = DEFAULT_SIZE_BYTES
    environment_time_s: float = DEFAULT_TIME_S
    """Making one."""
    gpus: int | str | None = None
    """How many graphics cards; or 'all', 'none', or which, such as '0,2'. None: all where guests are plain processes, else none."""
    present_cpus: float = 0.0
    """What may run on while somebody uses the machine; 0: nothing."""
    present_memory_bytes: int | None = None
    present_gpus: int = 0
    present_during: tuple[str, ...] = ()
    """What of ``terms.DURING`` does not end that."""
    hours: tuple[QuietHours, ...] = ()
    """When lending is allowed; empty: always."""
    on_battery: str = "vacate"
    """One of ``terms.ON_BATTERY``."""
    owner_file: OwnerFile | None = field(default=None, compare=False)
    """Where the terms come from, for changes while the agent runs; None: nowhere."""


def policy_of(config: AgentConfig) -> Policy:
    make = _POLICIES.get(config.policy)
    if make is None:
        raise InvalidInput(
            f"there is no policy {config.policy!r}.",
            field="--policy",
            hint=f"Use one of: {', '.join(_POLICIES)}.",
        )
    policy = make()
    if config.on_battery == "lend":
        policy = replace(policy, lend_on_battery=True)
    if config.input_idle_s is not None:
        try:
            policy = replace(policy, input_idle_s=config.input_idle_s)
        except InvalidPolicy as error:
            raise InvalidInput(
                f"{error}", field="--input-idle", hint="For example: --input-idle 5m."
            ) from error
    return policy
