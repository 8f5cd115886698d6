"""``from idle_accelerator import task`` in whatever Python a guest runs, without standing in the way of an installation."""

import asyncio
import json
import os
import shutil
import sys
import sysconfig
import venv
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sandbox_guests import bubblewrap

import idle_accelerator
from idle_accelerator import task
from idle_accelerator.agent.sandbox import GuestSpec, Sandbox, open_sandbox
from idle_accelerator.agent.workloads.contract import FOR_GUESTS, task_environment
from idle_accelerator.wire.ids import AttemptRef

DEADLINE_S = 120.0
LOOK = """
import json, sys
import idle_accelerator
from idle_accelerator import task
import idle_accelerator.task as again
assert again is task is idle_accelerator.task is sys.modules["idle_accelerator.task"]
print(json.dumps({
    "package": idle_accelerator.__spec__.origin, "task": task.__file__, "version": getattr(idle_accelerator, "__version__", None),
    "count": task.count(), "path": sys.path,
}))
"""


@pytest.fixture(params=["process", "bubblewrap"])
async def sandbox(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    opened = open_sandbox() if request.param == "process" else bubblewrap()
    yield opened
    await opened.close()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


def make_python(place: Path) -> tuple[str, Path]:
    """A virtual environment of the system's Python, with nothing in it: its interpreter, and where packages go."""
    venv.EnvBuilder(symlinks=sys.platform != "win32", with_pip=False).create(place)
    scheme = {"base": str(place), "platbase": str(place)}
    packages = Path(sysconfig.get_path("purelib", "venv", scheme))
    name = "Scripts/python.exe" if sys.platform == "win32" else "bin/python"
    return str(place / name), packages


async def run(sandbox: Sandbox, workspace: Path, *argv: str, **extra: str) -> str:
    env = task_environment(
        ref=AttemptRef("j" + "a" * 16, 0, 1),
        task_count=3,
        threads=1,
        workspace=workspace,
        grace_s=5.0,
        extra=extra,
    )
    guest = await sandbox.start(GuestSpec(argv=argv, workspace=workspace, env=env))
    assert guest.stdout is not None
    assert guest.stderr is not None
    async with asyncio.timeout(DEADLINE_S):
        said, complained, ended = await asyncio.gather(guest.stdout.read(), guest.stderr.read(), guest.wait())
    assert ended.exit_code == 0, complained.decode()
    return said.decode()


async def test_a_python_without_the_package_has_the_module_and_nothing_else(
    sandbox: Sandbox, workspace: Path
) -> None:
    python, _ = make_python(workspace / "bare")
    (workspace / "train.py").write_text(LOOK)
    found = json.loads(await run(sandbox, workspace, python, "train.py"))
    assert Path(found["package"]).parent == Path(FOR_GUESTS)
    assert Path(found["task"]) == Path(idle_accelerator.__file__).with_name("task.py")
    assert found["count"] == 3
    tried = await run(
        sandbox,
        workspace,
        python,
        "-c",
        "try:\n    import idle_accelerator.sdk\nexcept ModuleNotFoundError as e:\n    print(e.name)",
    )
    assert tried.strip() == "idle_accelerator.sdk"


async def test_an_installation_is_used_as_if_the_stand_in_were_not_there(
    sandbox: Sandbox, workspace: Path
) -> None:
    python, packages = make_python(workspace / "having")
    own = Path(idle_accelerator.__file__).parent
    (packages / "idle_accelerator").mkdir()
    for name in ("__init__.py", "task.py", "errors.py"):
        shutil.copy(own / name, packages / "idle_accelerator" / name)
    found = json.loads(await run(sandbox, workspace, python, "-c", LOOK))
    assert Path(found["package"]) == packages / "idle_accelerator" / "__init__.py"
    assert Path(found["task"]) == packages / "idle_accelerator" / "task.py"
    assert found["version"] == idle_accelerator.__version__
    used = "from idle_accelerator.errors import InvalidInput; print(InvalidInput.__module__)"
    assert (await run(sandbox, workspace, python, "-c", used)).strip() == "idle_accelerator.errors"


async def test_an_installation_by_a_path_file_or_older_than_the_module_is_found_as_well(
    sandbox: Sandbox, workspace: Path
) -> None:
    python, packages = make_python(workspace / "older")
    (workspace / "tree" / "idle_accelerator").mkdir(parents=True)
    (workspace / "tree" / "idle_accelerator" / "__init__.py").write_text("__version__ = '0.0.1'\n")
    (packages / "editable.pth").write_text(f"{workspace / 'tree'}\n")
    found = json.loads(await run(sandbox, workspace, python, "-c", LOOK))
    assert Path(found["package"]).parent.parent == workspace / "tree"
    assert found["version"] == "0.0.1"
    assert Path(found["task"]) == Path(idle_accelerator.__file__).with_name("task.py")


async def test_an_installation_that_fails_says_so_itself(sandbox: Sandbox, workspace: Path) -> None:
    python, packages = make_python(workspace / "broken")
    (packages / "idle_accelerator").mkdir()
    (packages / "idle_accelerator" / "__init__.py").write_text("raise RuntimeError('broken here')\n")
    code = "try:\n    import idle_accelerator\nexcept RuntimeError as e:\n    import sys; print(e, 'idle_accelerator' in sys.modules)"
    assert (await run(sandbox, workspace, python, "-c", code)).strip() == "broken here False"


async def test_the_jobs_own_python_path_comes_first(sandbox: Sandbox, workspace: Path) -> None:
    python, _ = make_python(workspace / "bare")
    (workspace / "mine" / "idle_accelerator").mkdir(parents=True)
    (workspace / "mine" / "idle_accelerator" / "__init__.py").write_text("__version__ = 'mine'\n")
    shutil.copy(task.__file__, workspace / "mine" / "idle_accelerator" / "task.py")
    (workspace / "mine" / "other.py").write_text("")
    code = f"import other\n{LOOK}"
    found = json.loads(await run(sandbox, workspace, python, "-c", code, PYTHONPATH=str(workspace / "mine")))
    assert found["version"] == "mine"
    assert Path(found["package"]).parent.parent == workspace / "mine"
    assert found["path"].index(str(workspace / "mine")) < found["path"].index(FOR_GUESTS)


async def test_a_folder_that_merely_has_the_name_is_no_installation(
    sandbox: Sandbox, workspace: Path
) -> None:
    python, _ = make_python(workspace / "bare")
    (workspace / "idle_accelerator").mkdir()
    (workspace / "train.py").write_text(LOOK)
    found = json.loads(await run(sandbox, workspace, python, "train.py"))
    assert Path(found["package"]).parent == Path(FOR_GUESTS)


async def test_two_agents_stand_ins_do_not_call_each_other(sandbox: Sandbox, workspace: Path) -> None:
    python, _ = make_python(workspace / "bare")
    shutil.copytree(FOR_GUESTS, workspace / "for_guests")
    shutil.copy(Path(FOR_GUESTS).with_name("task.py"), workspace / "task.py")
    outer = str(workspace / "for_guests")
    found = json.loads(await run(sandbox, workspace, python, "-c", LOOK, PYTHONPATH=outer))
    assert Path(found["package"]).parent == Path(outer)


def test_it_is_last_on_the_path_that_a_job_asks_for(tmp_path: Path) -> None:
    def path_of(**extra: str) -> str:
        return task_environment(
            ref=AttemptRef("j" + "a" * 16, 0, 1),
            task_count=1,
            threads=1,
            workspace=tmp_path,
            grace_s=1.0,
            extra=extra,
        )["PYTHONPATH"]

    assert path_of() == path_of(PYTHONPATH="") == FOR_GUESTS
    assert path_of(PYTHONPATH="/a") == f"/a{os.pathsep}{FOR_GUESTS}"
    assert {path.name for path in Path(FOR_GUESTS).iterdir()} - {"__pycache__"} == {"idle_accelerator.py"}
