"""The contract with a task: its whole environment. The same for a program in any language and for a Python function.

==========================  =====================================================================================
``IDLE_JOB_ID``             the job
``IDLE_TASK_INDEX``         from 0 to ``IDLE_TASK_COUNT`` - 1
``IDLE_TASK_COUNT``
``IDLE_ATTEMPT``            1 at the first try; rises with each
``IDLE_THREADS``            how many threads to use; the usual numeric libraries are told as well
``IDLE_CHECKPOINT_DIR``     where to save what a later attempt can go on from
``IDLE_RESUME_FROM``        the checkpoint to go on from; empty on the first run
``IDLE_PROGRESS_FILE``      where to say how far the task is, as JSON: {"done_ratio": 0.4, "note": "epoch 40 of 100"}
``IDLE_VACATE_FILE``        this file appears, and SIGTERM comes (CTRL_BREAK on Windows), when it is time to save and leave
``IDLE_GRACE_S``            seconds from that notice to the kill; may be 0
==========================  =====================================================================================

The working directory is the workspace, which is also ``HOME``, and temporary files go into it. Nothing of the agent's own
environment is passed on but ``PATH`` and what Windows itself needs: no secret of the owner's can leak by it.

A function's process hears the notice too, but is not ended by it: a call that has begun may finish until the grace is
over, unless the function installed a handler of its own for SIGTERM; no further call is begun.
"""

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from idle_accelerator.agent.folders import open_folder
from idle_accelerator.agent.workloads import places
from idle_accelerator.wire.ids import AttemptRef

FOR_GUESTS: Final = str(Path(__file__).parents[2] / "for_guests")
"""With it on its path every Python on this machine finds ``idle_accelerator.task``. What sandboxes show of this package holds it."""
_THREADS: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "JULIA_NUM_THREADS",
    "GOMAXPROCS",
    "PYTHON_CPU_COUNT",
)
_WINDOWS_NEEDS: Final = (
    "SYSTEMROOT",
    "SYSTEMDRIVE",
    "WINDIR",
    "COMSPEC",
    "PATHEXT",
    "NUMBER_OF_PROCESSORS",
    "PROCESSOR_ARCHITECTURE",
    "PROGRAMFILES",
    "PROGRAMDATA",
)


def task_environment(
    *,
    ref: AttemptRef,
    task_count: int,
    threads: int,
    workspace: Path,
    grace_s: float,
    extra: Mapping[str, str],
    resume_from: Path | None = None,
    inherited: Mapping[str, str] = os.environ,
) -> dict[str, str]:
    """The complete environment of a guest; makes the folders in the workspace that it names.

    ``extra`` is what the job asks for. It may change everything but the names that begin with ``IDLE_``. ``inherited`` is
    the agent's own environment, of which next to nothing is taken. Raises OSError when the folders cannot be made.
    """
    places.make(workspace)
    env = _base(inherited)
    env |= {
        "HOME": str(workspace),
        "TMPDIR": str(places.temporary_dir(workspace)),
        "XDG_CACHE_HOME": str(places.cache_dir(workspace)),
        # Output is followed while a task runs, and what a killed task said last matters most.
        "PYTHONUNBUFFERED": "1",
    }
    if sys.platform == "win32":
        env |= dict.fromkeys(("TEMP", "TMP"), env["TMPDIR"])
        env |= {name: str(workspace) for name in ("USERPROFILE", "APPDATA", "LOCALAPPDATA")}
    env |= dict.fromkeys(_THREADS, str(max(1, threads)))
    for name, value in extra.items():
        # Names of variables have no case on Windows: a second PATH beside the first would be anybody's guess.
        env[name.upper() if sys.platform == "win32" else name] = value
    # Last, so that what the job brings itself comes first.
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (env.get("PYTHONPATH"), FOR_GUESTS)))
    return env | {
        "IDLE_JOB_ID": ref.job_id,
        "IDLE_TASK_INDEX": str(ref.task_index),
        "IDLE_TASK_COUNT": str(task_count),
        "IDLE_ATTEMPT": str(ref.epoch),
        "IDLE_THREADS": str(max(1, threads)),
        "IDLE_CHECKPOINT_DIR": str(places.checkpoint_dir(workspace)),
        "IDLE_RESUME_FROM": "" if resume_from is None else str(resume_from),
        "IDLE_PROGRESS_FILE": str(places.progress_file(workspace)),
        "IDLE_VACATE_FILE": str(places.vacate_file(workspace)),
        "IDLE_GRACE_S": f"{grace_s:g}",
    }


def in_environment(env: Mapping[str, str], folder: Path, programs: Path) -> dict[str, str]:
    """The same in a virtual environment: its programs are found first, whatever PATH the job asked for."""
    return {
        **env,
        "PATH": os.pathsep.join((str(programs), env.get("PATH") or os.defpath)),
        "VIRTUAL_ENV": str(folder),
    }


def give_notice(workspace: Path) -> None:
    """Make the vacate file appear. The signal is to follow, so that the file is there when it comes."""
    # FileExistsError: it was given before. Others: the task removed the folder, or put a link there, and will hear the signal alone.
    with contextlib.suppress(OSError), open_folder(workspace) as folder:
        folder.create(f"{places.OURS}/{places.VACATE}")


def _base(inherited: Mapping[str, str]) -> dict[str, str]:
    if sys.platform == "win32":
        upper = {name.upper(): value for name, value in inherited.items()}
        taken = {name: upper[name] for name in ("PATH", *_WINDOWS_NEEDS) if name in upper}
    else:
        taken = {"PATH": inherited.get("PATH") or os.defpath}
        taken["LANG"] = "en_US.UTF-8" if sys.platform == "darwin" else "C.UTF-8"
    return taken
