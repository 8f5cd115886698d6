"""Where things lie in this tree and in its virtual environment."""

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (ROOT / "packages" / "idle-sense", ROOT / "packages" / "idle-accelerator")
RUNTIME_LOCK = ROOT / "requirements.lock"
TEST_LOCK = ROOT / "requirements-test.lock"
UV_LOCK = ROOT / "requirements-uv.lock"
BENCH = ROOT / "bench"

VENV = ROOT / ".venv"
STAMP = VENV / "run.json"
GUARD = VENV / "run.lock"


def program(name: str) -> Path:
    """A program of the virtual environment, whether it is there or not."""
    if sys.platform == "win32":
        return VENV / "Scripts" / f"{name}.exe"
    return VENV / "bin" / name


PYTHON = program("python")


def find_uv() -> str | None:
    """The uv on PATH, else the one inside .venv."""
    own = program("uv")
    return shutil.which("uv") or (str(own) if own.exists() else None)
