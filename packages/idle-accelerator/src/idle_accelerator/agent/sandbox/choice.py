"""Which sandbox an agent uses: its own pool's guests may be plain processes, everybody else's run in what was tried and held."""

import ipaddress
import platform
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from idle_accelerator.agent.sandbox import ways
from idle_accelerator.agent.sandbox.process import ProcessSandbox
from idle_accelerator.agent.sandbox.tiers import TIERS, Tier
from idle_accelerator.agent.sandbox.types import TRUST, NoSandbox, Sandbox
from idle_accelerator.errors import InvalidInput
from idle_accelerator.wire.nodes import Isolation

Choice = str
"""``auto``, ``process``, or the name of a tier."""
CHOICES: Final = ("auto", *(tier.name for tier in TIERS), "process")
FLAG: Final = "--sandbox"


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A sandbox, what it was found to hold, and why it is this one, in sentences for the owner."""

    sandbox: Sandbox
    isolation: Isolation
    sentences: tuple[str, ...]
    recheck: Callable[[], Awaitable[Isolation | None]] | None = None
    """See ``tiers.Found``; None where nothing is claimed."""


def check(text: str) -> Choice:
    """Raises InvalidInput for what is no choice."""
    for choice in CHOICES:
        if text == choice:
            return choice
    raise InvalidInput(f"{text!r} is no sandbox.", field=FLAG, hint=f"Use one of: {', '.join(CHOICES)}.")


def choose(
    choice: Choice,
    *,
    scheduler_url: str,
    data_dir: Path,
    keyed: bool = False,
    container_image: str | None = None,
) -> Chosen:
    """The agent's sandbox. ``keyed`` as in ``is_own_pool``. Blocks for about a second where it has to be tried; call it before the event loop runs.

    Raises NoSandbox where what is asked for does not hold here: an agent of somebody else's pool then does not start.
    """
    if choice == "process" or (choice == "auto" and is_own_pool(scheduler_url, keyed=keyed)):
        why = (
            "the scheduler is on this machine and takes no key, so its pool is your own"
            if choice == "auto"
            else "you asked for it: you trust everybody who has the pool's key"
        )
        return Chosen(
            sandbox=ProcessSandbox(),
            isolation=ways.of_process(),
            sentences=(f"tier process: {why}. Tasks run as your user and can read what you can read.",),
        )
    for tier in TIERS:
        if tier.name == choice:
            return _of(tier, data_dir, container_image)
    return strongest(data_dir)


def is_own_pool(scheduler_url: str, *, keyed: bool) -> bool:
    """Whether the scheduler is reached by the loopback, and nobody else can reach it. ``keyed``: it took a key, so others have it too, for
    one that listens on the loopback alone has none."""
    if keyed:
        return False
    name = (urlsplit(scheduler_url).hostname or "").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def strongest(data_dir: Path) -> Chosen:
    """The strongest tier that needs no word of the owner's and holds here, tried if that is not known yet.

    Raises NoSandbox, of the strongest. See ``choose`` for when to call it.
    """
    first: NoSandbox | None = None
    for tier in TIERS:
        if tier.automatic and tier.is_for_here:
            try:
                return _of(tier, data_dir, None)
            except NoSandbox as error:
                first = first or error
    if first is not None:
        raise first
    raise NoSandbox(
        f"On {platform.system()} no sandbox keeps guests apart from you yet.",
        failing="tier",
        hint=f"Lend to a pool of your own on this machine, {TRUST}",
    )


def tried(data_dir: Path) -> Iterator[tuple[Tier, Chosen | NoSandbox]]:
    """Every tier of this system, strongest first, tried if that is not known yet: what it holds, or why it does not."""
    for tier in TIERS:
        if tier.is_for_here:
            try:
                yield tier, _of(tier, data_dir, None)
            except NoSandbox as error:
                yield tier, error


def _of(tier: Tier, data_dir: Path, container_image: str | None) -> Chosen:
    """Raises NoSandbox."""
    if not tier.is_for_here:
        raise NoSandbox(
            f"The tier {tier.name!r} is not for {platform.system()}.",
            failing="tier",
            hint=f"Lend to a pool of your own on this machine, {TRUST}",
        )
    found = tier.find(data_dir, container_image)
    return Chosen(
        sandbox=found.sandbox,
        isolation=found.isolation,
        sentences=found.sentences,
        recheck=found.recheck,
    )
