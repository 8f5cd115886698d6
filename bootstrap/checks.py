"""`run.py test`: every check of the tree, all of them even when one fails."""

import dataclasses
import os
import shlex
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from bootstrap import environment, places, system_packages

SYSTEMS = {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    name: str
    command: list[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counts:
    passed: int
    failed: int
    """Errors in setup and teardown count as failures."""
    skipped: int


def steps(*, fast: bool, arguments: Sequence[str]) -> list[Step]:
    """The cheap ones first, pytest last. `arguments` go to pytest; with paths among them, `fast` adds none, and those
    marked `alone` run beside the others."""
    folders: list[str] = []
    named = any((places.ROOT / argument.partition("::")[0]).exists() for argument in arguments)
    if fast and not named:
        kinds = [package / "tests" / kind for package in places.PACKAGES for kind in ("unit", "property")]
        folders = [str(folder.relative_to(places.ROOT)) for folder in kinds if folder.is_dir()]
    systems = [SYSTEMS.get(sys.platform, "Linux")] if fast else list(SYSTEMS.values())

    def own(name: str) -> str:
        return str(places.program(name).relative_to(places.ROOT))

    return [
        Step(name="ruff check", command=[own("ruff"), "check"]),
        Step(name="ruff format", command=[own("ruff"), "format", "--check"]),
        Step(name="import contracts", command=[own("lint-imports")]),
        *(
            Step(name=f"types, {name}", command=[own("pyright"), "--pythonplatform", name])
            for name in systems
        ),
        *pytest_steps(own("python"), [*folders, *arguments], apart=not (fast or named)),
    ]


def pytest_steps(python: str, arguments: Sequence[str], *, apart: bool) -> list[Step]:
    """``apart``: tests marked `alone` have the machine to themselves, after the others."""
    # One more worker than there are cores: most tests wait for processes of their own.
    beside = f"-n{(os.cpu_count() or 1) + 1}"
    if not apart:
        return [Step(name="pytest", command=[python, "-m", "pytest", beside, *arguments])]
    return [
        Step(name="pytest", command=[python, "-m", "pytest", beside, "-m", "not alone", *arguments]),
        Step(name="pytest, alone", command=[python, "-m", "pytest", "-m", "alone", *arguments]),
    ]


def count_tests(reports: Sequence[Path]) -> Counts | None:
    """What pytest's JUnit reports say; None where pytest wrote none."""
    written = [report for report in reports if report.exists()]
    if not written:
        return None
    total = failed = skipped = 0
    roots = [ET.parse(report).getroot() for report in written]  # noqa: S314 - our own pytest has just written it
    for suite in (suite for root in roots for suite in root.iter("testsuite")):
        total += int(suite.get("tests", "0"))
        failed += int(suite.get("failures", "0")) + int(suite.get("errors", "0"))
        skipped += int(suite.get("skipped", "0"))
    return Counts(passed=total - failed - skipped, failed=failed, skipped=skipped)


def test(arguments: Sequence[str]) -> int:
    """0 when every step passed, else 1. The last line counts the tests."""
    environment.ensure("test")
    fast = "--fast" in arguments
    if not fast:
        system_packages.ensure(system_packages.FOR_TESTS)
    own_programs = f"{places.PYTHON.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    variables = os.environ | {
        "VIRTUAL_ENV": str(places.VENV),
        "PATH": own_programs,
        # Where the output of a check goes to a file, Windows would have it in a code page that lacks its signs.
        "PYTHONIOENCODING": "utf-8",
    }
    rows: list[tuple[Step, int, float]] = []
    with tempfile.TemporaryDirectory(prefix="idle-test-") as folder:
        reports: list[Path] = []
        for step in steps(fast=fast, arguments=[argument for argument in arguments if argument != "--fast"]):
            show(f"\n== {step.name}")
            command = [str(places.ROOT / step.command[0]), *step.command[1:]]
            if step.name.startswith("pytest"):
                reports.append(Path(folder) / f"{len(reports)}.xml")
                command.append(f"--junitxml={reports[-1]}")
            started = time.monotonic()
            status = subprocess.run(
                command, cwd=places.ROOT, env=variables, stdin=subprocess.DEVNULL, check=False
            ).returncode
            rows.append((step, status, time.monotonic() - started))
        counts = count_tests(reports)
    show_summary(rows, counts)
    return 1 if any(status for _, status, _ in rows) else 0


def show_summary(rows: Sequence[tuple[Step, int, float]], counts: Counts | None) -> None:
    show(f"\n{'step':<20}{'seconds':>8}  result")
    for step, status, seconds in rows:
        show(f"{step.name:<20}{seconds:>8.1f}  {f'FAILED, status {status}' if status else 'ok'}")
    for step, status, _ in rows:
        if status:
            show(f"to repeat {step.name!r} alone: {shlex.join(step.command)}")
    if counts is not None:
        show(f"\ntests: {counts.passed} passed, {counts.failed} failed, {counts.skipped} skipped")


def show(text: str) -> None:
    sys.stdout.write(text + "\n")
    # The steps write to the same place themselves: what comes first must stand first.
    sys.stdout.flush()
