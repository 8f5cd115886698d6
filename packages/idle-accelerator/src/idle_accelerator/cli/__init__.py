"""``idlectl``: one file per noun. Only what a command needs is imported, when it runs, so that help is quick."""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point. The exit status: 0 done, 1 failed, 2 used wrongly, 130 after Ctrl-C."""
    from idle_accelerator.cli.program import run  # noqa: PLC0415  # the package is imported for its parts, too

    return run(sys.argv[1:] if arguments is None else arguments)
