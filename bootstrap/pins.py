"""`run.py lock`: the lock files, which name every package by version and hash, for every platform.

They are made by `uv pip compile`, not taken from uv.lock: that file names the registry it was made from.
"""

import re
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


def preferences(*locks: Path) -> str:
    """The versions to keep while they fit, as plain `name==version` lines; an earlier file outweighs a later one."""
    kept: dict[str, list[str]] = {}
    for lock in locks:
        versions: dict[str, list[str]] = {}
        text = lock.read_text(encoding="utf-8") if lock.exists() else ""
        for line in text.splitlines():
            if re.match(r"\w", line):
                versions.setdefault(line.partition("==")[0], []).append(line.removesuffix("\\"))
        kept = versions | kept
    return "".join(f"{line}\n" for lines in kept.values() for line in lines)


def compiled(uv: str, kept: str, requirements: Sequence[str], options: Sequence[str]) -> str:
    """The text of a lock file for `requirements`. Raises ProblemError where uv finds no solution."""
    with tempfile.TemporaryDirectory(prefix="idle-lock-") as folder:
        new = Path(folder) / "requirements.txt"
        new.write_text(kept, encoding="utf-8")
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
                "uv could not pin the packages (see above)", "mend the requirement that it names"
            )
        return new.read_text(encoding="utf-8")


def lock(arguments: Sequence[str]) -> int:
    """Make the lock files from the pyproject files. The test set comes first, and the runtime set is held to its versions.

    The peers of a bench have an environment of their own (bench/environment.py), since they may need other versions.
    """
    if any(argument != "--upgrade" for argument in arguments):
        raise ProblemError(f"lock does not know {' '.join(arguments)!r}", "use `lock` or `lock --upgrade`")
    uv = places.find_uv()
    if uv is None:
        raise ProblemError("lock needs uv", "install uv, or let `python3 run.py test` put one into .venv")
    tree = [
        "-e packages/idle-sense",
        "-e packages/idle-accelerator[scheduler,web,wasm]",
        *build_requirements(),
    ]
    tests = ["-e packages/idle-sense[test]", "-e packages/idle-accelerator[test]"]
    hold = ["-c", str(places.TEST_LOCK)]
    runtime = places.RUNTIME_LOCK
    for path, kept, requirements, options in (
        (places.TEST_LOCK, [places.TEST_LOCK], [*tree, *tests], []),
        (runtime, [runtime], tree, hold),
        (places.UV_LOCK, [places.UV_LOCK], ["uv"], hold),
    ):
        pinned = compiled(uv, preferences(*kept), requirements, [*options, *arguments])
        refuse_places(path.name, pinned)
        path.write_bytes((HEADER + pinned).encode())
        packages = sum(not line.startswith((" ", "#")) for line in pinned.splitlines())
        sys.stdout.write(f"{path.name}: {packages} packages\n")
    return 0
