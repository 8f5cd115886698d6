"""uv and the Pythons that environments are made of, as found on this machine, and how they are called.

Packages come as wheels alone, so that nothing of them runs while they are installed; and no step starts the environment's own Python once
something is in it, since that would run what a package put into a ``.pth`` file. Code is compiled by the Python underneath.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

OLDEST: Final = (0, 5)
_ASK_S: Final = 20.0
_MINORS: Final = range(11, 31)
"""3.11 is the oldest that the program inside a function's process runs on."""


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """A Python of this machine, outside of any environment."""

    minor: str
    """Such as ``3.11``."""
    path: Path

    @property
    def identity(self) -> str:
        """Changes when another one is put in its place."""
        try:
            status = self.path.stat()
        except OSError:
            return str(self.path)
        return f"{self.path} {status.st_size} {status.st_mtime_ns}"

    @property
    def prefix(self) -> Path | None:
        """The folder with its library; None where that holds more than a Python, such as a home directory."""
        prefix = self.path.parent if sys.platform == "win32" else self.path.parent.parent
        return None if prefix == Path(prefix.anchor) or Path.home().is_relative_to(prefix) else prefix


def find_uv() -> Path | None:
    """The one beside this program's Python, else the one on PATH; None where there is none that works and is new enough."""
    name = "uv.exe" if sys.platform == "win32" else "uv"
    beside = Path(sys.executable).parent / name
    on_path = shutil.which("uv")
    for candidate in (beside, Path(on_path) if on_path else None):
        if candidate is not None and candidate.is_file() and _works(candidate):
            return candidate
    return None


def _works(program: Path) -> bool:
    try:
        done = subprocess.run(
            [program, "--version", "--no-config"], capture_output=True, text=True, timeout=_ASK_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return False
    found = re.match(r"uv (\d+)\.(\d+)", done.stdout)
    return found is not None and (int(found[1]), int(found[2])) >= OLDEST


def find_interpreters() -> tuple[Interpreter, ...]:
    """This program's own first, then one of each other minor version: on PATH, or kept by uv or pyenv. None is started."""
    own = Interpreter(minor=f"{sys.version_info[0]}.{sys.version_info[1]}", path=_own())
    found = {own.minor: own}
    if platform.system() != "Windows":
        for number in _MINORS:
            minor = f"3.{number}"
            at = None if minor in found else next(_programs(minor), None)
            if at is not None:
                found[minor] = Interpreter(minor=minor, path=at)
    return tuple(found.values())


def _own() -> Path:
    """The Python under this program's virtual environment, if it is in one."""
    base = getattr(sys, "_base_executable", None) or sys.executable
    return Path(base).resolve() if sys.platform != "win32" else Path(base)


def _programs(minor: str) -> Iterator[Path]:
    """Pythons of that version, the nearest first, whose folders hold nothing else."""
    name = f"python{minor}"
    on_path = shutil.which(name)
    if on_path is not None:
        yield from _fitting([Path(on_path)], minor)
    by_uv = os.environ.get("UV_PYTHON_INSTALL_DIR") or Path.home() / ".local" / "share" / "uv" / "python"
    by_pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for kept in (Path(by_uv), by_pyenv):
        yield from _fitting(sorted(kept.glob(f"*/bin/{name}"), reverse=True), minor)


def _fitting(paths: Iterable[Path], minor: str) -> Iterator[Path]:
    for path in paths:
        real = path.resolve()
        if _is_program(real) and Interpreter(minor=minor, path=real).prefix is not None:
            yield real


def _is_program(path: Path) -> bool:
    """And no script that stands for one, such as pyenv's shims; nor a Python of some virtual environment."""
    try:
        with path.open("rb") as file:
            script = file.read(2) == b"#!"
    except OSError:
        return False
    return not script and not (path.parent.parent / "pyvenv.cfg").exists()


@dataclass(frozen=True, kw_only=True)
class Commands:
    """How one environment is made, step by step."""

    uv: Path
    interpreter: Interpreter
    folder: Path
    """Where it is made; it is moved when it is whole, so its scripts find their Python beside them."""
    requirements: Path
    locked: bool

    def create(self) -> tuple[str, ...]:
        return (
            *(str(self.uv), "venv", "--no-config", "--no-project", "--relocatable", "--quiet"),
            *("--python", str(self.interpreter.path), str(self.folder)),
        )

    def install(self) -> tuple[str, ...]:
        hashes = ("--require-hashes",) if self.locked else ()
        return (
            *(str(self.uv), "pip", "install", "--no-config", "--quiet"),
            *("--python", str(python_in(self.folder)), "--only-binary", ":all:"),
            *(*hashes, "--requirements", str(self.requirements)),
        )

    def compile(self) -> tuple[str, ...]:
        places = [str(path) for path in packages_in(self.folder)]
        return (str(self.interpreter.path), "-I", "-S", "-m", "compileall", "-q", *places)


def call_environment(index: Mapping[str, str], cache: Path) -> dict[str, str]:
    """The whole environment of a call of uv: ``index`` says where from."""
    return {
        **index,
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "UV_CACHE_DIR": str(cache),
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_PROGRESS": "1",
        "UV_NO_ENV_FILE": "1",
        "NO_COLOR": "1",
        # A process for each core would be felt; what is downloaded is bounded by the network.
        "UV_CONCURRENT_INSTALLS": "1",
        "UV_CONCURRENT_DOWNLOADS": "4",
    }


def programs_in(folder: Path) -> Path:
    return folder / ("Scripts" if sys.platform == "win32" else "bin")


def python_in(folder: Path) -> Path:
    return programs_in(folder) / ("python.exe" if sys.platform == "win32" else "python")


def packages_in(folder: Path) -> list[Path]:
    """The folders that hold its packages."""
    if sys.platform == "win32":
        return [folder / "Lib" / "site-packages"]
    return sorted(folder.glob("lib/python3*/site-packages"))
