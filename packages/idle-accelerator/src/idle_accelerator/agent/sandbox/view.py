"""What of the machine's files a guest in a sandbox sees, and whether a program is among it."""

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import idle_accelerator
import idle_sense
from idle_accelerator.agent.sandbox.types import GuestSpec, SpawnFailed

_SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
_SETTINGS: Final = (
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/pki/ca-trust/extracted",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/tls/certs",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
)
"""Of /etc, what programs need and what says nothing of the owner. Certificates alone: beside them lie private keys."""
_LINKS_LIMIT: Final = 40
_SHEBANG_BYTES: Final = 256


@dataclass(frozen=True, kw_only=True)
class View:
    """What guests see at the same path as the owner does, always without a right to write."""

    shown: tuple[Path, ...]
    links: tuple[tuple[str, str], ...]
    """(what it points to, where it stands): links on the way to what is shown."""
    settings: tuple[Path, ...]
    hidden: Path | None
    """The agent's data directory."""

    def mounts(self) -> Iterator[str]:
        """The part of bwrap's arguments that makes it, but for the workspace."""
        for path in self.shown:
            yield from ("--ro-bind", str(path), str(path))
        for target, place in self.links:
            yield from ("--symlink", target, place)
        for path in self.settings:
            yield from ("--ro-bind", str(path), str(path))
        if self._covers():
            yield from ("--tmpfs", str(self.hidden))

    def sealing(self) -> Iterator[str]:
        """The rest, when all that has to be there is in its place: no more can be made beside it."""
        yield from ("--remount-ro", "/")
        if self._covers():
            yield from ("--remount-ro", str(self.hidden))

    def _covers(self) -> bool:
        """Whether the data directory lies in something that is shown: then it is empty there."""
        return self.hidden is not None and self.shows(self.hidden)

    def shows(self, path: Path) -> bool:
        return any(path.is_relative_to(root) for root in self.shown)


def of_this_machine(hidden: Path | None) -> View:
    """The system's programs and libraries, and the Python that runs this program with what it has installed."""
    shown: list[Path] = []
    links: list[tuple[str, str]] = []
    for name in _SYSTEM:
        path = Path(name)
        if path.is_symlink() and path.parent == Path("/"):
            links.append((str(path.readlink()), name))
        elif path.is_dir():
            shown.append(path)
    for path in of_python():
        if not any(path.is_relative_to(root) for root in shown):
            shown.append(path)
    links.extend(
        (str(link.readlink()), str(link))
        for link in _chain(Path(sys.executable))
        if not any(link.is_relative_to(root) for root in shown)
    )
    settings = tuple(Path(name) for name in _SETTINGS if Path(name).exists())
    return View(
        shown=tuple(shown),
        links=tuple(links),
        settings=settings,
        hidden=None if hidden is None else hidden.resolve(),
    )


def of_python() -> Iterator[Path]:
    """Where the Python lies that runs this program, and what it has installed; some more than once."""
    return (path for path in _python() if not _shows_too_much(path))


def _python() -> Iterator[Path]:
    for prefix in (sys.base_prefix, sys.prefix, str(Path(os.path.realpath(sys.executable)).parent.parent)):
        yield Path(prefix)
        yield Path(prefix).resolve()
    for package in (idle_accelerator, idle_sense):
        # Where they are installed in place, so that they can be edited, they lie in no prefix.
        if package.__file__ is not None:
            yield Path(package.__file__).parent


def _shows_too_much(path: Path) -> bool:
    """A prefix that is no folder of its own, such as a home directory."""
    return path == Path("/") or Path.home().is_relative_to(path) or not path.is_dir()


def _chain(path: Path) -> Iterator[Path]:
    """The links that this path goes through, the last part of each."""
    for _ in range(_LINKS_LIMIT):
        if not path.is_symlink():
            return
        yield path
        path = path.parent / path.readlink()


def check_program(spec: GuestSpec, view: View) -> None:
    """Whether the guest will find its program. Raises SpawnFailed as a plain start does."""
    if not spec.argv:
        raise SpawnFailed("The command is empty.", hint="Give a program and its arguments.")
    if not spec.workspace.is_dir():
        raise SpawnFailed(
            f"The working directory {spec.workspace} does not exist.",
            hint="Make it first.",
            field="workspace",
        )
    program = spec.argv[0]
    refused: Path | None = None
    for place in _places(program, spec.workspace, spec.env):
        if not _is_seen(place, spec.workspace, view):
            continue
        if place.is_file() and os.access(place, os.X_OK):
            _check_interpreter(program, place, spec.workspace, view)
            return
        refused = refused or place
    if refused is not None:
        raise SpawnFailed(
            f"{program} may not be run: it is no executable file.",
            hint="Make it executable (chmod +x), or name its interpreter in the command.",
        )
    raise SpawnFailed(
        f"There is no program {program!r} in the sandbox of this machine.",
        hint="It shows the system's programs (/usr), the agent's Python and the workspace: give the program as an input file,"
        " or have it installed; the search follows PATH in the task's environment.",
        missing_program=program,
    )


def _places(program: str, workspace: Path, env: Mapping[str, str]) -> Iterator[Path]:
    if "/" in program:
        yield workspace / program
        return
    for folder in env.get("PATH", os.defpath).split(os.pathsep):
        yield workspace / folder / program


def _is_seen(place: Path, workspace: Path, view: View) -> bool:
    try:
        real = place.resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
        return False
    return real.is_relative_to(workspace.resolve()) or view.shows(real)


def _check_interpreter(program: str, place: Path, workspace: Path, view: View) -> None:
    """A script's first line names one, which has to be there too."""
    try:
        with place.open("rb") as file:
            first = file.read(_SHEBANG_BYTES).partition(b"\n")[0]
    except OSError:  # it may be run, but not be read
        return
    words = first[2:].split() if first.startswith(b"#!") else []
    if words and not _is_seen(workspace / os.fsdecode(words[0]), workspace, view):
        raise SpawnFailed(
            f"{program} names an interpreter in its first line that the sandbox of this machine does not have.",
            hint="Correct the line that begins with '#!', or name the interpreter in the command.",
        )
