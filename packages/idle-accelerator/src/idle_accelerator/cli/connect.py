"""The flags that every client command has, and the client they lead to."""

import contextlib
import re
from collections.abc import Generator
from typing import TYPE_CHECKING, Annotated

import typer

from idle_accelerator.errors import InvalidInput

if TYPE_CHECKING:
    from idle_accelerator.sdk.client import Client

_PANEL = "Connection"
SchedulerFlag = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="URL",
        help="The scheduler. Else IDLE_SCHEDULER, the config file, http://127.0.0.1:8000.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
KeyFlag = Annotated[
    str | None,
    typer.Option(
        "--key",
        metavar="KEY",
        help="The pool's key. Else IDLE_KEY, the config file. Needed beyond loopback only.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
JsonFlag = Annotated[bool, typer.Option("--json", help="JSON on stdout, with UTC times.")]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, or a unique beginning of it.")]

PATIENCE_S = 3.0
"""How long a command goes on trying while nobody answers: long enough for a connection that was dropped."""
SHORT_ID_LENGTH = 8
"""Characters of an id that listings show: 35 random bits, enough to be unique in any pool."""


@contextlib.contextmanager
def open_client(scheduler: str | None, key: str | None) -> "Generator[Client]":
    """A client of the scheduler that flags, environment or config file name, in this order."""
    from idle_accelerator.sdk.client import Client  # noqa: PLC0415  # commands import what they need when they run

    with Client(scheduler, key, patience_s=PATIENCE_S) as client:
        yield client


def short(job_or_node_id: str) -> str:
    return job_or_node_id[:SHORT_ID_LENGTH]


def check_id(text: str, *, field: str = "JOB") -> str:
    """What can be an id or its beginning. Raises InvalidInput, so that nothing odd becomes part of an address."""
    if not re.fullmatch(r"j[a-z2-7]{0,16}", text):
        raise InvalidInput(
            f"{text!r} is not a job's id, nor the beginning of one.",
            field=field,
            hint="Ids begin with j, as `idlectl jobs` lists them.",
        )
    return text


def pairs(texts: list[str] | None, *, flag: str, example: str) -> dict[str, str]:
    """``name=value`` texts of a flag that may be given often. Raises InvalidInput."""
    found: dict[str, str] = {}
    for text in texts or ():
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise InvalidInput(
                f"{text!r} is not of the form name=value.", field=flag, hint=f"For example: {flag} {example}."
            )
        found[name] = value
    return found
