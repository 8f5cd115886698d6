"""The commands put together, and the one place where errors become words and exit statuses."""

import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from idle_accelerator import __version__
from idle_accelerator.cli import (
    agent,
    checkpoints,
    doctor,
    jobs,
    logs,
    nodes,
    owner,
    result,
    scheduler,
    submit,
    terms,
    up,
    web,
)
from idle_accelerator.cli.help_pages import HelpCommand, HelpGroup
from idle_accelerator.cli.terminal import say, show, show_error
from idle_accelerator.errors import IdleError

_TRACEBACK = "IDLE_TRACEBACK"
_USAGE = 2
_INTERRUPTED = 130

app = typer.Typer(
    name="idlectl",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    cls=HelpGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="One pool out of the machines that sit idle.",
    epilog="Start with: idlectl up\n\nThen, in another terminal: idlectl submit --wait -- python3 -c 'print(6*7)'",
)


def _version(wanted: bool) -> None:
    if wanted:
        show(f"idlectl {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    del version  # its callback has done the work


def _add(name: str, function: Callable[..., Any], panel: str, example: str, **settings: Any) -> None:
    app.command(
        name,
        cls=HelpCommand,
        rich_help_panel=panel,
        epilog="\n\n".join(["Example:" if "\n" not in example else "Examples:", *example.split("\n")]),
        context_settings=settings,
    )(function)


_POOL = "A pool"
_WORK = "Work"
_MACHINE = "This machine"
_add("up", up.up, _POOL, "idlectl up --check\nidlectl up --host 0.0.0.0 --port 8100 --web-port 8600")
_add("scheduler", scheduler.scheduler, _POOL, "idlectl scheduler --host 0.0.0.0 --port 8000")
_add("web", web.web, _POOL, "idlectl web --scheduler http://10.0.0.5:8000 --port 8501")
_add("nodes", nodes.nodes, _POOL, "idlectl nodes --json")
_add("node", nodes.node, _POOL, "idlectl node alpha")
_add("drain", nodes.drain, _POOL, "idlectl drain alpha\nidlectl drain alpha --undo")
_add("forget", nodes.forget, _POOL, "idlectl forget alpha")
_add(
    "submit",
    submit.submit,
    _WORK,
    "idlectl submit --wait -- python3 -c 'print(6*7)'\n"
    "idlectl submit --input data.csv --output 'out/*.png' --array 8 --retries 2 --memory 1G --timeout 10m --wait"
    " -- python3 plot.py",
    allow_interspersed_args=False,
)
_add("jobs", jobs.jobs, _WORK, "idlectl jobs --state ACTIVE --json")
_add("job", jobs.job, _WORK, "idlectl job jx3k\nidlectl job jx3k --task 4")
_add("logs", logs.logs, _WORK, "idlectl logs jx3k --task 4 --follow")
_add("result", result.result, _WORK, "idlectl result jx3k --wait --to results")
_add(
    "checkpoints",
    checkpoints.checkpoints,
    _WORK,
    "idlectl checkpoints jx3k\nidlectl checkpoints jx3k 4 --download saved",
)
_add("cancel", jobs.cancel, _WORK, "idlectl cancel jx3k")
_add(
    "agent",
    agent.agent,
    _MACHINE,
    "idlectl agent --scheduler http://10.0.0.5:8000 --key KEY\n"
    "idlectl agent --scheduler http://10.0.0.5:8000 --policy server --cpus 4 --label room=12",
)
_add("lend", owner.lend, _MACHINE, "idlectl lend --for 10m\nidlectl lend --for 2h --job jx3k")
_add("pause", owner.pause, _MACHINE, "idlectl pause\nidlectl pause --for 1h")
_add("resume", owner.resume, _MACHINE, "idlectl resume")
_add("terms", terms.terms, _MACHINE, "idlectl terms\nidlectl terms --owner-file my.toml --json")
_add("doctor", doctor.doctor, _MACHINE, "idlectl doctor --json")


def run(arguments: Sequence[str]) -> int:
    """Runs a command line; nothing but its exit status comes out."""
    for stream in (sys.stdout, sys.stderr):
        # A character that the terminal's encoding lacks must not turn a result into an error.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        status = app(args=list(arguments), prog_name="idlectl", standalone_mode=False)
    except IdleError as error:
        show_error(error)
        return 1
    except typer.TyperException as error:
        return _show_usage_error(error)
    except typer.Abort:
        return _INTERRUPTED
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        return _reader_gone()
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        say(f"error: {where}{error.strerror or error}")
        return 1
    except Exception as error:  # noqa: BLE001  # the last line: a defect is said, never shown as a crash
        return _show_defect(error)
    return status if isinstance(status, int) else 0


def _show_usage_error(error: typer.TyperException) -> int:
    status = int(getattr(error, "exit_code", _USAGE))
    context: Any = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        say(error.format_message())
        return status
    say(f"error: {error.format_message()}")
    say(f"hint: {context.command_path if context is not None else 'idlectl'} --help")
    return status


def _reader_gone() -> int:
    """Whoever read our output has closed it, as `head` does: that is no error of theirs."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    return 1


def _show_defect(error: Exception) -> int:
    if os.environ.get(_TRACEBACK):
        traceback.print_exception(error)
        return 1
    last = traceback.extract_tb(error.__traceback__)[-1:]
    where = f" ({os.path.basename(last[0].filename)}:{last[0].lineno})" if last else ""  # noqa: PTH119  # no path is needed
    say(f"error: idlectl failed at this; it is a defect: {type(error).__name__}: {error}{where}")
    say(f"hint: Set {_TRACEBACK}=1 and try again to see all of it, and report it, please.")
    return 1
