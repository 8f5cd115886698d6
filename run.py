#!/usr/bin/env python3
"""Set up, start, test and measure idle-accelerator from a clone. Needs Python 3.11 or newer, nothing else.

usage: python3 run.py COMMAND [ARGUMENTS]

  up [--check] [--no-web] ...    scheduler, agent and web page on this machine (arguments go to `idlectl up`)
  agent --scheduler URL ...      let this machine join a pool (arguments go to `idlectl agent`)
  idlectl ...                    any other command of idlectl
  test [--fast] [PYTEST ARGS]    lint, import contracts, types for three systems, all tests;
                                 --fast: types for this system, unit and property tests only
  bench [NAME [ARGS]]            run bench/NAME.py; without a name, list what there is
  lock [--upgrade]               pin the dependencies of the pyproject files anew (needs uv)

examples:
  python3 run.py up --check
  python3 run.py agent --scheduler http://10.0.0.5:8000 --key KEY
  python3 run.py idlectl submit --wait -- python3 -c "print(6*7)"
  python3 run.py test --fast -k attempt
  python3 run.py bench throughput --json

Everything is installed into .venv beside this file; delete that folder to start afresh.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - this file is the one that an older Python gets to read
    import shutil

    _names = ["python3.{}".format(minor) for minor in range(20, 10, -1)]  # noqa: UP032 - Python 2 reads it too
    _newer = [name for name in _names if hasattr(shutil, "which") and shutil.which(name)]
    sys.exit(
        "run.py needs Python 3.11 or newer; this is Python {} ({}).\nnext: {}".format(
            ".".join(str(part) for part in sys.version_info[:3]),
            sys.executable,
            "a newer one is installed: start with `{} run.py`".format(_newer[0])  # noqa: UP032 - as above
            if _newer
            else "install a newer one beside it (your system's packages, or python.org) and start run.py with it",
        )
    )

import difflib
from collections.abc import Callable, Sequence

from bootstrap import benches, checks, environment, pins
from bootstrap.console import ProblemError, say


def idlectl(arguments: Sequence[str]) -> int:
    environment.ensure("runtime")
    return environment.become("idlectl", arguments)


def up(arguments: Sequence[str]) -> int:
    return idlectl(["up", *arguments])


def agent(arguments: Sequence[str]) -> int:
    return idlectl(["agent", *arguments])


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "up": up,
    "agent": agent,
    "idlectl": idlectl,
    "test": checks.test,
    "bench": benches.bench,
    "lock": pins.lock,
}


def unknown(name: str) -> ProblemError:
    close = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean `{close[0]}`?" if close else f"use one of: {', '.join(COMMANDS)}"
    return ProblemError(f"there is no command {name!r}", hint)


def main(arguments: Sequence[str]) -> int:
    """The exit status: the command's own, 1 where run.py itself had to give up, 130 after Ctrl-C."""
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help", "help"):
        sys.stdout.write(__doc__ or "")
        return 0
    try:
        if name not in COMMANDS:
            raise unknown(name)
        return COMMANDS[name](arguments[1:])
    except ProblemError as problem:
        say(f"error: {problem}\nnext: {problem.next_step}")
        return 1
    except OSError as error:
        say(f"error: {error}\nnext: see that this folder may be written to and that its disk has room")
        return 1
    except KeyboardInterrupt:
        say("\nStopped. The same command takes up from here.")
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
