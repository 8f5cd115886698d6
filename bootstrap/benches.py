"""`run.py bench`: what we claim, measured beside the peers."""

import ast
import sys
from collections.abc import Sequence

from bootstrap import environment, places, system_packages
from bootstrap.console import ProblemError


def known() -> dict[str, str]:
    """Names and first lines of the benches: modules whose docstring says `run.py bench NAME`.

    The other modules of bench/ are what the benches share.
    """
    found: dict[str, str] = {}
    for path in sorted(places.BENCH.glob("*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        if f"run.py bench {path.stem}" in text:
            found[path.stem] = text.partition("\n")[0]
    return found


def bench(arguments: Sequence[str]) -> int:
    """Run one, or list them all where none is named."""
    names = known()
    if not arguments:
        sys.stdout.writelines(f"{name:<16}{text}\n" for name, text in names.items())
        return 0
    name = arguments[0].removesuffix(".py")
    if name not in names:
        raise ProblemError(f"there is no bench {name!r}", f"use one of: {', '.join(names) or '(none yet)'}")
    environment.ensure("runtime")
    system_packages.ensure(system_packages.FOR_BENCHES)
    return environment.become("python", [str(places.BENCH / f"{name}.py"), *arguments[1:]])
