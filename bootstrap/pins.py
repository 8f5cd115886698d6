"""`run.py lock`: the lock files, which name every package by version and hash, for every platform.

They are made by `uv pip compile`, not taken from uv.lock: that file names the registry it was made from.
"""

import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

from bootstrap import places
from bootstrap.console import ProblemError, tool_environment

HEADER = "# Made by `python3 run.py lock`; do not edit.\n"


def refuse_places(name: str, pinned: str) -> None:
    """Raises ProblemError where an address or a path would tie the lock file to one machine or registry."""
    for line in pinned.splitlines():
        if "://" in line or " @ " in line or line.startswith((".", "/", "-")):
            raise ProblemError(
                f"{name} would hold a place instead of a version: {line}",
                "give that package a version in its pyproject.toml",
            )


def build_requirements() -> list[str]:
    """What it takes to link this tree without build isolation."""
    found = {"editables"}  # hatchling asks for it besides, when it links
    for package in places.PACKAGES:
        settings = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))
        found.update(settings["build-system"]["requires"])
    return sorted(found)


def compiled(uv: str, lock: Path, requirements: Sequence[str], options: Sequence[str]) -> str:
    """The new text of `lock`. Versions that it holds already stay, unless they no longer fit."""
    with tempfile.TemporaryDirectory(prefix="idle-lock-") as folder:
        new = Path(folder) / lock.name
        if lock.exists():
            shutil.copyfile(lock, new)
        command = [
            uv,
            "pip",
            "compile",
            "-",
            "-o",
            str(new),
            "--quiet",
            "--universal",
            "--python-version",
            "3.11",
        ]
        command += ["--generate-hashes", "--no-header", "--no-annotate", *options]
        command += [f"--no-emit-package={package.name}" for package in places.PACKAGES]
        result = subprocess.run(
            command,
            cwd=places.ROOT,
            env=tool_environment(),
            input="\n".join(requirements),
            text=True,
            stdout=subprocess.DEVNULL,
            check=False,
        )
        if result.returncode != 0:
            raise ProblemError(
                f"uv could not make {lock.name} (see above)", "mend the requirement that it names"
            )
        return new.read_text(encoding="utf-8")


def lock(arguments: Sequence[str]) -> int:
    """Make the lock files from the pyproject files and bench/requirements.in."""
    if any(argument != "--upgrade" for argument in arguments):
        raise ProblemError(f"lock does not know {' '.join(arguments)!r}", "use `lock` or `lock --upgrade`")
    uv = places.find_uv()
    if uv is None:
        raise ProblemError("lock needs uv", "install uv, or let `python3 run.py test` put one into .venv")
    tree = "-e packages/idle-sense{}\n-e packages/idle-accelerator[scheduler,web{}]"
    # The test set comes first and holds the others to its versions, so that all of them can live in one .venv.
    wanted = {
        places.TEST_LOCK: [tree.format("[test]", ",test"), *build_requirements()],
        places.RUNTIME_LOCK: [tree.format("", ""), *build_requirements()],
        places.UV_LOCK: ["uv"],
        places.BENCH_LOCK: ["-r bench/requirements.in"],
    }
    for path, requirements in wanted.items():
        limits = [] if path == places.TEST_LOCK else ["-c", str(places.TEST_LOCK)]
        pinned = compiled(uv, path, requirements, [*limits, *arguments])
        refuse_places(path.name, pinned)
        path.write_bytes((HEADER + pinned).encode())
        packages = sum(not line.startswith((" ", "#")) for line in pinned.splitlines())
        sys.stdout.write(f"{path.relative_to(places.ROOT)}: {packages} packages\n")
    return 0
