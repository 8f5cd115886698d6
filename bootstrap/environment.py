"""The virtual environment in .venv: made, filled with pinned packages, kept true to its stamp."""

import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from bootstrap import places
from bootstrap.console import ProblemError, run_quietly, say
from bootstrap.system_packages import apt_install

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

Profile = Literal["runtime", "test"]

STAMP_FORMAT = 1
"""Raise it when a .venv made by an older run.py must not be used any more."""


LOCKS: dict[Profile, Path] = {
    "runtime": places.RUNTIME_LOCK,
    "test": places.TEST_LOCK,
}
"""What each profile installs. The test set holds all that the runtime needs, in the same versions."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stamp:
    """What .venv holds, kept in .venv/run.json; written before the first change and after the last one."""

    identity: str
    """Where the tree lies and which Python it is for: another one needs another .venv."""
    profile: Profile | None
    """The set that was installed last. None: an install was cut short."""
    pins: str
    """Digest of what that set was made from: when it changes, .venv is updated in place."""


def files_digest(paths: Iterable[Path]) -> str:
    """SHA-256 over names and contents. Raises ProblemError for a file that cannot be read."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ProblemError(
                f"cannot read {path}: {error.strerror}", f"bring it back: git checkout -- {path.name}"
            ) from error
        digest.update(f"{path.name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def identity() -> str:
    return f"{STAMP_FORMAT} {sys.implementation.name} {platform.python_version()} {sys.base_prefix} {places.VENV}"


def complete_stamp(profile: Profile) -> Stamp:
    """The stamp that .venv carries once `profile` is installed."""
    return Stamp(
        identity=identity(),
        profile=profile,
        pins=files_digest([LOCKS[profile], *(package / "pyproject.toml" for package in places.PACKAGES)]),
    )


def read_stamp() -> Stamp | None:
    """None where run.py never touched .venv. A stamp that cannot be read counts as an install cut short."""
    try:
        record: dict[str, Any] = json.loads(places.STAMP.read_text(encoding="utf-8"))
        profile = record["profile"] if record["profile"] in LOCKS else None
        return Stamp(identity=str(record["identity"]), profile=profile, pins=str(record["pins"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError):
        return Stamp(identity="", profile=None, pins="")


def write_stamp(stamp: Stamp) -> None:
    new = places.STAMP.with_suffix(".new")
    new.write_text(json.dumps(dataclasses.asdict(stamp), indent=1) + "\n", encoding="utf-8")
    new.replace(places.STAMP)


def profile_for(have: Stamp | None, wanted: Profile) -> Profile:
    """What to install. `up` in a .venv made for tests leaves it one: it holds the runtime."""
    if wanted == "runtime" and have is not None and have.profile is not None and have.identity == identity():
        return have.profile
    return wanted


def try_lock(descriptor: int) -> bool:
    """Take the lock, which the system gives back when the file closes, also after a kill."""
    try:
        if sys.platform == "win32":
            # Windows lets nobody read locked bytes, so the lock sits far behind the process number.
            os.lseek(descriptor, 1 << 30, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def only_one() -> Generator[None]:
    """Hold the right to change .venv; wait, and say for whom, while another run.py holds it."""
    places.VENV.mkdir(exist_ok=True)
    with places.GUARD.open("a+", encoding="utf-8") as guard:
        waiting = False
        while not try_lock(guard.fileno()):
            if not waiting:
                guard.seek(0)
                holder = guard.read().strip() or "unknown"
                say(f"Another run.py (process {holder}) is preparing .venv; waiting for it ...")
                waiting = True
            time.sleep(0.2)
        guard.seek(0)
        guard.truncate()
        guard.write(str(os.getpid()))
        guard.flush()
        yield


def is_ready(have: Stamp | None, wanted: Profile) -> bool:
    return places.PYTHON.exists() and have == complete_stamp(profile_for(have, wanted))


def ensure(wanted: Profile) -> None:
    """Bring .venv to what `wanted` needs; costs a few file reads when it is there already.

    Raises ProblemError when that fails; the next call then tries again.
    """
    if is_ready(read_stamp(), wanted):
        return
    with only_one():
        have = read_stamp()
        if not is_ready(have, wanted):
            prepare(have, profile_for(have, wanted))


def prepare(have: Stamp | None, profile: Profile) -> None:
    """Install `profile`: in place where .venv is whole, else after making it anew."""
    started = time.monotonic()
    say("Preparing .venv (first start, or what is pinned has changed):")
    complete = complete_stamp(profile)
    unfinished = dataclasses.replace(complete, profile=None)
    if have is None:
        whole = False
        fit = is_usable()
    else:
        whole = fit = have.identity == identity() and have.profile is not None and places.PYTHON.exists()
    write_stamp(unfinished)
    if not fit:
        clear()
        create()
    try:
        install(profile)
    except ProblemError:
        if have is not None and whole:
            # The installer gave up in good order: what was complete before is so still, only not up to date.
            write_stamp(have)
        raise
    write_stamp(complete)
    size_mb = sum(path.lstat().st_size for path in places.VENV.rglob("*")) / 1e6
    say(f"Ready in {time.monotonic() - started:.1f} s; .venv takes {size_mb:.0f} MB.")


def is_usable() -> bool:
    """Whether a .venv that run.py did not make (but `uv sync`, say) works here: then it is not deleted."""
    probe = (
        "import importlib.util, platform, sys\n"
        "print(sys.prefix, platform.python_version(), sys.base_prefix)\n"
        "print(importlib.util.find_spec('pip') is not None)"
    )
    try:
        run = subprocess.run(
            [places.PYTHON, "-c", probe], capture_output=True, text=True, check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        return False
    python, _, has_pip = run.stdout.strip().partition("\n")
    ours = f"{places.VENV} {platform.python_version()} {sys.base_prefix}"
    return python == ours and (has_pip == "True" or places.find_uv() is not None)


def clear() -> None:
    """Empty .venv, but for the lock that is held and the stamp that says the work is unfinished."""
    for path in places.VENV.iterdir():
        if path in (places.GUARD, places.STAMP):
            continue
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        except OSError as error:
            raise ProblemError(
                f"cannot remove {error.filename or path}: {error.strerror}",
                "stop what still runs from .venv (idlectl, an editor), or delete the folder .venv yourself",
            ) from error


def create() -> None:
    """By uv where it is installed, else by Python's own venv, which then fetches a pinned uv."""
    if uv := shutil.which("uv"):
        command = [uv, "venv", "--allow-existing", "--python", sys.executable, str(places.VENV)]
        try:
            return run_quietly("Making .venv with uv", command)
        except ProblemError as problem:
            say(f"{problem}\nGoing on with Python's own venv.")
    if importlib.util.find_spec("ensurepip") is None:
        # Debian and Ubuntu leave pip, which venv puts in, out of their python3 package.
        needed = f"python3.{sys.version_info.minor}-venv"
        if not apt_install([needed]):
            raise ProblemError(
                "this Python comes without pip, so it cannot fill a virtual environment",
                f"sudo apt-get update && sudo apt-get install -y {needed} (or install uv), then try again",
            )
    run_quietly("Making .venv", [sys.executable, "-m", "venv", str(places.VENV)])
    fetch_uv = ["-m", "pip", "install", "--only-binary=:all:", "--require-hashes", "-r", str(places.UV_LOCK)]
    try:
        run_quietly("Fetching uv, which installs faster than pip", [places.PYTHON, *fetch_uv])
    except ProblemError as problem:
        say(f"{problem}\nGoing on with pip.")
    return None


def install(profile: Profile) -> None:
    """Install the set of `profile`, every package by its hash, and link this tree.

    It is linked without build isolation, by the build back end that the lock files hold: so nothing
    of what runs here goes unpinned.
    """
    if uv := places.find_uv():
        tool, command = "uv", [uv, "pip", "install", "--python", str(places.PYTHON)]
    else:
        tool, command = "pip", [str(places.PYTHON), "-m", "pip", "install", "--no-input"]
    lock = LOCKS[profile]
    run_quietly(f"Installing {lock.name} with {tool}", [*command, "--require-hashes", "-r", str(lock)])
    links = [argument for package in places.PACKAGES for argument in ("-e", str(package))]
    run_quietly("Linking this tree into .venv", [*command, "--no-deps", "--no-build-isolation", *links])


def become(name: str, arguments: Sequence[str]) -> int:
    """Go on as a program of .venv, in the caller's working directory; on Windows, run it and pass on its status."""
    path = places.program(name)
    command = [str(path), *arguments]
    if sys.platform != "win32":
        os.execv(path, command)  # noqa: S606 - no shell is wanted
    process = subprocess.Popen(command)
    while True:
        # Ctrl-C reaches the program by itself; this process waits until it has ended in its own time.
        with contextlib.suppress(KeyboardInterrupt):
            return process.wait()
