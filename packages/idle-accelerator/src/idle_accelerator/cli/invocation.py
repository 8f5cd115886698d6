"""How the person at the keyboard calls this program: hints must be commands that work when they are copied."""

import shlex
import shutil
import sys
from pathlib import Path


def idlectl() -> str:
    """``idlectl`` where that is on PATH, else by ``run.py`` of the clone that this Python belongs to."""
    if shutil.which("idlectl") is None and _run_py() is not None:
        return f"{run_py_command()} idlectl"
    return "idlectl"


def run_py_command() -> str:
    """``python3 run.py``, with its path when that is elsewhere."""
    run_py = _run_py()
    python = "py" if sys.platform == "win32" else "python3"
    if run_py is None or run_py.parent == Path.cwd():
        return f"{python} run.py"
    return f"{python} {shlex.quote(str(run_py))}"


def _run_py() -> Path | None:
    path = Path(sys.prefix).parent / "run.py"
    return path if path.is_file() else None
