"""The profile of tier ``seatbelt``, as text: what sandbox-exec(1) of macOS lets a guest do. All else is denied.

The language is Apple's and not documented; what its words mean is known from profiles of the system in /System/Library/Sandbox/Profiles, and from
those of browsers and build systems. Of several rules that match, the last one counts. Paths are matched after links are resolved.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from idle_accelerator.agent.sandbox.types import SpawnFailed

_SYSTEM: Final = (
    "/bin",
    "/usr/bin",
    "/usr/lib",
    "/usr/libexec",
    "/usr/share",
    "/System/Library",
    "/System/Cryptexes",
    "/System/Volumes/Preboot/Cryptexes",
    "/private/preboot/Cryptexes",
    "/Library/Apple/System/Library",
    "/Library/Developer/CommandLineTools/usr",
)
"""Programs and libraries of the system, which say nothing of the owner."""
_SETTINGS: Final = (
    "/private/etc/localtime",
    "/private/etc/ssl/cert.pem",
    "/private/etc/ssl/openssl.cnf",
    "/private/etc/ssl/certs",
    "/private/var/db/timezone",
    "/private/var/db/dyld",
    "/private/var/select/sh",
)
_LINKS: Final = ("/etc", "/var", "/tmp", "/private", "/private/etc", "/private/var", "/dev")  # noqa: S108  # names of links
"""To be looked at, not into: paths lead through them."""
_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom", "/dev/dtracehelper")
_PRIVILEGED: Final = (
    "/usr/bin/sudo",
    "/usr/bin/su",
    "/usr/bin/login",
    "/usr/bin/at",
    "/usr/bin/atq",
    "/usr/bin/atrm",
    "/usr/bin/batch",
    "/usr/bin/crontab",
    "/usr/bin/newgrp",
    "/usr/bin/quota",
    "/usr/bin/top",
    "/bin/ps",
    "/usr/libexec/authopen",
    "/usr/libexec/security_authtrampoline",
)
"""Programs that run as root for everybody, or hand work to one that does."""
_SYSCTLS: Final = (
    "kern.argmax",
    "kern.hostname",
    "kern.maxfilesperproc",
    "kern.osproductversion",
    "kern.osrelease",
    "kern.ostype",
    "kern.osvariant_status",
    "kern.osversion",
    "kern.secure_kernel",
    "kern.usrstack64",
    "kern.version",
    "machdep.cpu.brand_string",
    "security.mac.lockdown_mode_state",
    "sysctl.proc_cputype",
    "vm.loadavg",
)
"""Beside those of the hardware. Not among them: what lists processes, and their arguments."""
_USER_NAMES: Final = "com.apple.system.opendirectoryd.libinfo"


def quoted(path: str) -> str:
    """As a string of the profile's language. Raises SpawnFailed for what could end it, or cannot be said in it."""
    try:
        path.encode()
    except UnicodeEncodeError:
        printable = False
    else:
        printable = path.isprintable()
    if not printable:
        raise SpawnFailed(
            f"The path {path!r} cannot be named in a sandbox's profile: it holds a control character, or is no UTF-8.",
            hint="Rename the folder, or put the agent's data elsewhere: --data-dir.",
            field="workspace",
        )
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'


def profile(*, workspace: Path, shown: Iterable[Path], lent: Sequence[Path] = (), hidden: Path | None) -> str:
    """All of it. ``shown`` may be read and run, ``hidden`` may not though it lies there, but for ``lent``; paths have to be resolved.

    Raises SpawnFailed.
    """
    return "\n".join(_rules(workspace, tuple(shown), tuple(lent), hidden)) + "\n"


def _rules(
    workspace: Path, shown: tuple[Path, ...], lent: tuple[Path, ...], hidden: Path | None
) -> Iterator[str]:
    places = [str(path) for path in (*map(Path, _SYSTEM), *shown)]
    readable = _each("subpath", (*places, *_SETTINGS))
    runnable = _each("subpath", places)
    own = _each("subpath", [str(workspace)])
    yield "(version 1)"
    yield "(deny default)"
    yield "(allow process-fork)"
    yield "(allow signal process-info* (target same-sandbox))"
    yield f'(allow sysctl-read (sysctl-name-prefix "hw.") {_each("sysctl-name", _SYSCTLS)})'
    yield f"(allow mach-lookup {_each('global-name', [_USER_NAMES])})"
    yield "(allow ipc-posix-sem)"
    yield f"(allow file-read-metadata {_each('literal', _ways_to(workspace, (*shown, *lent)))})"
    # The dynamic linker looks into the root directory itself.
    yield f"(allow file-read* {_each('literal', ['/', *_DEVICES])})"
    yield f"(allow file-write-data {_each('literal', _DEVICES)})"
    yield f"(allow file-read* {readable})"
    yield f"(allow process-exec* file-map-executable {runnable})"
    if hidden is not None:
        yield f"(deny file-read* process-exec* file-map-executable {_each('subpath', [str(hidden)])})"
        yield f"(allow file-read-metadata {_each('literal', _ways_to(workspace, lent))})"
    if lent:
        yield f"(allow file-read* process-exec* file-map-executable {_each('subpath', map(str, lent))})"
    yield f"(allow file-read* file-write* process-exec* file-map-executable {own})"
    yield "(deny file-write-setugid)"
    yield f"(deny process-exec* {_each('literal', _PRIVILEGED)})"


def _each(kind: str, names: Iterable[str]) -> str:
    return " ".join(f"({kind} {quoted(name)})" for name in names)


def _ways_to(workspace: Path, shown: Iterable[Path]) -> list[str]:
    """The folders above, whose names and times programs look at on their way."""
    above = {str(parent) for path in (workspace, *shown) for parent in path.parents}
    return sorted({*above, *_LINKS})
