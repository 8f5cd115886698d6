"""The peers' own virtual environment, so that what they need never meets what the project needs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
VENV = Path(__file__).with_name(".venv")
INSTALL_TIMEOUT_S = 300


def peer_python() -> Path:
    return VENV / "Scripts" / "python.exe" if sys.platform == "win32" else VENV / "bin" / "python"


def _uv() -> str | None:
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else shutil.which("uv")


def _run(*command: str | Path) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"took longer than {INSTALL_TIMEOUT_S} s") from error
    if done.returncode != 0:
        words = (done.stderr or done.stdout).split("\n")
        raise RuntimeError(next((word.strip() for word in reversed(words) if word.strip()), "no word why"))


def _make() -> None:
    if peer_python().exists():
        return
    uv = _uv()
    if uv is not None:
        _run(uv, "venv", "--quiet", "--python", sys.executable, VENV)
    else:
        _run(sys.executable, "-m", "venv", VENV)


def _install(*what: str | Path) -> None:
    uv = _uv()
    installer = (
        (uv, "pip", "install", "--python", peer_python()) if uv else (peer_python(), "-m", "pip", "install")
    )
    _run(*installer, *what)


def install(packages_of: dict[str, Sequence[str]]) -> dict[str, str]:
    """Install every named system's packages, in the pinned versions; return why for those that could not be.

    All are installed at once; where that fails, one by one, so that each failure costs one system only.
    """
    if not packages_of:
        return {}
    try:
        _make()
    except RuntimeError as error:
        return dict.fromkeys(packages_of, f"{VENV} could not be made: {error}")
    everything = [package for packages in packages_of.values() for package in packages]
    try:
        _install("-c", REQUIREMENTS, *everything)
    except RuntimeError:
        failures: dict[str, str] = {}
        for name, packages in packages_of.items():
            try:
                _install("-c", REQUIREMENTS, *packages)
            except RuntimeError as error:
                failures[name] = f"{', '.join(packages)} could not be installed: {error}"
        return failures
    return {}
