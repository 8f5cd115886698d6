"""Holds the agent's declarations for app containers of Windows against mingw-w64's headers: `python bench/windows_container_headers.py`.

Compiled, not run, for x86_64 and arm64: the size of every structure, the place and size of each field, every number, and of every function the
count of its arguments and the width and sign of each. It takes the ``ziglang`` wheel from PyPI (100 MB), as bench/windows_headers.py does.
"""

import ctypes
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from windows_headers import MATCHING, TARGETS, compiled, kind_of, same

from idle_accelerator.agent.host import windows_calls as calls

INCLUDES = ("#include <stddef.h>", "#include <userenv.h>", "#include <aclapi.h>", "#include <accctrl.h>")
UNDECLARED = {"DeriveCapabilitySidsFromName": "mingw-w64's <securitybaseapi.h> may leave it out"}
"""Functions that are held against the header only where it has them."""


def layout_checks() -> Iterator[str]:
    for name, structure in calls.STRUCTURES.items():
        yield same(f"sizeof({name})", ctypes.sizeof(structure), f"size of {name}")
        for field, kind in ((one[0], one[1]) for one in structure._fields_):
            yield same(
                f"offsetof({name}, {field})", getattr(structure, field).offset, f"place of {name}.{field}"
            )
            yield same(f"sizeof((({name} *)0)->{field})", ctypes.sizeof(kind), f"size of {name}.{field}")


def number_checks() -> Iterator[str]:
    for name, value in vars(calls).items():
        if isinstance(value, int) and name.isupper():
            yield same(f"(unsigned long long)(unsigned)({name})", value, name)


def function_checks(declared: frozenset[str]) -> Iterator[str]:
    for functions in calls.FUNCTIONS.values():
        for name, (result, arguments) in functions.items():
            if name in UNDECLARED and name not in declared:
                continue
            kinds = ", ".join(kind_of(one) for one in (result, *arguments))
            yield f'static_assert(matches<{kinds}>(&{name}), "{name}");'


def main() -> int:
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for target in TARGETS:
            there = frozenset(
                name
                for name in UNDECLARED
                if not compiled(target, "c", [*INCLUDES, f"void *p = (void *){name};"], Path(folder))[0]
            )
            layouts, numbers, functions = (
                list(layout_checks()),
                list(number_checks()),
                list(function_checks(there)),
            )
            complaints, _ = compiled(target, "c", [*INCLUDES, *layouts, *numbers], Path(folder))
            more, _ = compiled(target, "c++", [*INCLUDES, MATCHING, *functions], Path(folder))
            complaints += more
            print(
                f"{target}: {len(calls.STRUCTURES)} structures ({len(layouts)} sizes and places), {len(numbers)} numbers, "
                f"{len(functions)} functions: {len(complaints)} wrong"
            )
            for complaint in complaints:
                print(f"  {complaint}")
            for name in set(UNDECLARED) - there:
                print(f"  read only: {name}: {UNDECLARED[name]}")
            failed += len(complaints)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
