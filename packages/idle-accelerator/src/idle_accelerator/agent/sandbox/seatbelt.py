"""Tier ``seatbelt``: guests under a profile of macOS's own sandbox that denies all but what programs need.

sandbox-exec(1) sets the profile on itself and then becomes the program: what descends from it is under the same profile, for good. Apple calls the
program deprecated and has kept it for years; browsers and build systems rest on the same mechanism. It was never run by who wrote this: see
``verified``. ``portable`` tries it at each start of an agent.
"""

import sys
from pathlib import Path
from typing import Final

from idle_accelerator.agent import host
from idle_accelerator.agent.sandbox import portable, view, ways
from idle_accelerator.agent.sandbox.seatbelt_profile import profile
from idle_accelerator.agent.sandbox.types import Guest, GuestSpec, SpawnFailed, Verified

if sys.platform != "darwin":
    raise ImportError("This file is for macOS.")

PROGRAM: Final = Path("/usr/bin/sandbox-exec")
_LIMITS: Final = 'ulimit -c 0; ulimit -n 1024; exec "$@"'
_HOMEBREW: Final = ("/opt/homebrew", "/usr/local")
_HOMEBREW_PARTS: Final = ("Cellar", "opt", "lib")
_LINKER: Final = "DYLD_"


class SeatbeltSandbox:
    """See ``types.Sandbox``. That it works here is not known before ``portable`` has tried it."""

    tier: str = "seatbelt"
    verified: Verified = "signature-only"

    def __init__(self, *, hidden: Path | None = None) -> None:
        """``hidden`` is shown to no guest, wherever it lies."""
        self._hidden = None if hidden is None else hidden.resolve()
        self._shown = _places_of_python()

    @property
    def shown(self) -> tuple[Path, ...]:
        """What of the machine's files guests may read, beside the system's own."""
        return self._shown

    async def start(self, spec: GuestSpec) -> Guest:
        """Start a guest; it runs on return. Raises SpawnFailed, and then nothing of it runs."""
        if any(name.startswith(_LINKER) for name in spec.env):
            raise SpawnFailed(
                f"Variables that begin with {_LINKER} are read before the sandbox is made.",
                hint="Leave them out of the job's environment.",
                field="env",
            )
        seen = (*map(Path, ("/bin", "/usr/bin", "/usr/libexec", "/System/Library")), *self._shown)
        view.check_program(spec, view.View(shown=seen, links=(), settings=(), hidden=self._hidden))
        text = profile(
            workspace=spec.workspace.resolve(),
            shown=self._shown,
            lent=[path.resolve() for path in spec.read_only],
            hidden=self._hidden,
        )
        # The shell is under the profile already; it sets limits that the owner's processes are not to have.
        argv = (str(PROGRAM), "-p", text, "--", "/bin/sh", "-c", _LIMITS, "sh", *spec.argv)
        return await host.spawn(
            host.Launch(
                argv=argv,
                cwd=spec.workspace,
                env=spec.env,
                stdin=spec.stdin,
                stdout=spec.stdout,
                stderr=spec.stderr,
                nice=spec.nice,
                first_input=spec.first_input,
                memory_bytes=spec.memory_bytes,
                processes=spec.processes,
            )
        )

    async def start_forked(self, spec: GuestSpec) -> Guest:
        """As ``start``: each guest gets a profile of its own."""
        return await self.start(spec)

    async def close(self) -> None:
        """Nothing: it keeps no helpers."""


def _places_of_python() -> tuple[Path, ...]:
    places = [path.resolve() for path in view.of_python()]
    for root in _HOMEBREW:
        if any(path.is_relative_to(root) for path in places):
            # Its libraries lie beside it, by way of links.
            places += [Path(root) / part for part in _HOMEBREW_PARTS]
    return tuple(dict.fromkeys(places))


def find(data_dir: Path) -> portable.Found:
    """Blocks for some seconds; must not be called in a running event loop. Raises NoSandbox when it does not hold."""
    if not PROGRAM.exists():
        raise portable.not_here("seatbelt", f"this macOS has no {PROGRAM}.")
    sandbox = SeatbeltSandbox(hidden=data_dir)
    held = {
        "fs": "sandbox profile: of the owner's files none, all but the workspace read-only",
        "net": "sandbox profile: no network, no sockets of other programs",
        "pidns": "sandbox profile: no signals to others, nothing of them is told but that they are there",
        "calls": "sandbox profile: no devices, no services but that for names of users",
        "mem": ways.memory(),
        "disk": f"{ways.NONE}: a guest may write until the disk is full",
        "freeze": ways.of("freeze"),
        "prio": ways.of("cpu"),
        "kill": ways.of("kill"),
        "gpu": "no devices",
    }
    return portable.find(sandbox, data_dir, held, sandbox.shown)
