"""The tiers that may be put around foreign work, strongest first; one line each.

What every one of them gives is a ``Found``: a sandbox that was tried on this machine, and what it holds.
"""

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from idle_accelerator.agent.sandbox.types import NoSandbox, Sandbox
from idle_accelerator.wire.nodes import Isolation


class Found(Protocol):
    """What ``Tier.find`` returns."""

    @property
    def sandbox(self) -> Sandbox: ...
    @property
    def isolation(self) -> Isolation: ...
    @property
    def sentences(self) -> tuple[str, ...]:
        """Why it is this one, for the owner."""
        ...

    @property
    def recheck(self) -> Callable[[], Awaitable[Isolation | None]]:
        """In a running event loop: tries it anew where the tool, a driver or anything else has changed that its finding depends on.
        None where nothing has. Raises NoSandbox when it does not hold any more."""
        ...


@dataclass(frozen=True, kw_only=True)
class Tier:
    """A way to keep guests apart from the owner."""

    name: str
    platforms: tuple[str, ...]
    """As in ``sys.platform``."""
    automatic: bool
    """``--sandbox auto`` takes it; else it is used by the owner's explicit word alone."""
    find: Callable[[Path, str | None], Found]
    """(the agent's data directory, the image for containers) → the sandbox, tried; raises NoSandbox. Blocks for a second or two;
    not to be called in a running event loop."""

    @property
    def is_for_here(self) -> bool:
        return sys.platform in self.platforms


def _elsewhere(_data_dir: Path, _image: str | None) -> Found:
    raise NoSandbox("This tier is for another system.", failing="tier", hint="See: idlectl doctor")


if sys.platform == "linux":

    def _bubblewrap(data_dir: Path, _image: str | None) -> Found:
        from idle_accelerator.agent.sandbox import trial  # noqa: PLC0415  # takes a while, and not every agent needs it

        return trial.find(lambda: trial.bubblewrap_here(data_dir), data_dir)

    def _landlock(data_dir: Path, _image: str | None) -> Found:
        from idle_accelerator.agent.sandbox import trial  # noqa: PLC0415  # as above

        return trial.find(lambda: trial.landlock_here(data_dir), data_dir)

    def _container(data_dir: Path, image: str | None) -> Found:
        from idle_accelerator.agent.sandbox import trial  # noqa: PLC0415  # as above

        return trial.find(lambda: trial.container_here(data_dir, image), data_dir)

else:
    _bubblewrap = _landlock = _container = _elsewhere


def _wasm(data_dir: Path, _image: str | None) -> Found:
    from idle_accelerator.agent.sandbox import wasm_trial  # noqa: PLC0415  # only who asks for it needs it

    return wasm_trial.find(data_dir)


if sys.platform == "darwin":

    def _seatbelt(data_dir: Path, _image: str | None) -> Found:
        from idle_accelerator.agent.sandbox import seatbelt  # noqa: PLC0415  # as above

        return seatbelt.find(data_dir)

else:
    _seatbelt = _elsewhere

if sys.platform == "win32":

    def _appcontainer(data_dir: Path, _image: str | None) -> Found:
        from idle_accelerator.agent.sandbox import appcontainer  # noqa: PLC0415  # as above

        return appcontainer.find(data_dir)

else:
    _appcontainer = _elsewhere


TIERS: Final = (
    Tier(name="bubblewrap", platforms=("linux",), automatic=True, find=_bubblewrap),
    Tier(name="container", platforms=("linux",), automatic=False, find=_container),
    Tier(name="landlock", platforms=("linux",), automatic=False, find=_landlock),
    # Not automatic: no machine of theirs has tried them yet.
    Tier(name="seatbelt", platforms=("darwin",), automatic=False, find=_seatbelt),
    Tier(name="appcontainer", platforms=("win32",), automatic=False, find=_appcontainer),
    # Not automatic: it takes WebAssembly alone, which whoever starts an agent has to know.
    Tier(name="wasm", platforms=("linux", "darwin", "win32"), automatic=False, find=_wasm),
)
