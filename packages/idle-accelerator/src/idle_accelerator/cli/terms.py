"""``idlectl terms``: what the owner of this machine has agreed to, and where each of it comes from."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from idle_accelerator.cli.connect import JsonFlag
from idle_accelerator.cli.terminal import say, show_plain_json, show_table

DataDirFlag = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", metavar="DIR", help="Of the agent; the usual one if left out.", show_default=False
    ),
]
OwnerFileFlag = Annotated[
    Path | None,
    typer.Option(
        "--owner-file",
        metavar="FILE",
        help="What this file would say, whatever an agent that runs holds to.",
        show_default=False,
    ),
]


def terms(data_dir: DataDirFlag = None, owner_file: OwnerFileFlag = None, as_json: JsonFlag = False) -> int:
    """Show on which terms this machine is lent: shares, hours, grace. 1 when the file is broken."""
    from idle_accelerator import settings  # noqa: PLC0415  # commands import what they need when they run
    from idle_accelerator.agent import control  # noqa: PLC0415  # as above

    directory = data_dir or settings.data_dir() / "agent"
    if not control.is_running(directory) and control.is_running(directory / "agent"):
        directory = directory / "agent"  # `up` keeps its agent below its own directory
    running = owner_file is None and control.is_running(directory)
    found = _held(directory) if running else None
    if found is None:
        running = False
        found = _written(directory, owner_file)
    if as_json:
        show_plain_json({"running": running, **found})
        return 1 if found["problem"] else 0
    say(f"{found['file']}, {'as the running agent holds to it' if running else 'no agent runs'}")
    if found["problem"]:
        say(f"broken as it is now, so the last good terms hold: {found['problem']}")
    show_table(
        ("TERM", "VALUE", "FROM", "A CHANGE HOLDS", "WHAT"),
        (
            (
                item["key"],
                item["value"] or "-",
                _short(item["origin"], found["file"]),
                item["takes_effect"],
                item["meaning"],
            )
            for item in found["terms"]
        ),
        empty="",
    )
    return 1 if found["problem"] else 0


def _short(origin: str, file: str) -> str:
    return origin.replace(file, Path(file).name)


def _held(directory: Path) -> dict[str, Any] | None:
    from idle_accelerator.agent.control import TERMS_FILE  # noqa: PLC0415  # as above

    try:
        return json.loads((directory / TERMS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _written(directory: Path, owner_file: Path | None) -> dict[str, Any]:
    """What the next agent would hold to. Raises InvalidInput for a file that makes no sense."""
    from idle_accelerator.agent.config import AgentConfig  # noqa: PLC0415  # as above
    from idle_accelerator.agent.owner_file import OWNER_FILE, OwnerFile  # noqa: PLC0415  # as above
    from idle_accelerator.agent.taking_up import defaults_of, shown  # noqa: PLC0415  # as above

    file = OwnerFile(owner_file or directory / OWNER_FILE, required=owner_file is not None)
    return {
        "file": str(file.path),
        "problem": None,
        "terms": shown(file.terms(defaults_of(AgentConfig))),
    }
