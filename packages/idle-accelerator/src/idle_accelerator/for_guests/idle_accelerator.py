"""``from idle_accelerator import task`` in a Python of a node that has no idle_accelerator.

This folder stands last on the PYTHONPATH of guests, which comes before what is installed. So this module hands over to an
installation where there is one: it takes this module's place as if this one had never been there. Elsewhere there is ``task`` and
nothing else. Runs in any Python from 3.9 on.
"""

# ruff: noqa: INP001  # the folder is no package: it stands on a path by itself

import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, Optional, cast

if sys.version_info < (3, 9):  # noqa: UP036  # whatever Python a node has runs this
    raise ImportError(
        f"idle_accelerator.task needs Python 3.9; this is {sys.version.split()[0]}", name=__name__
    )

_FOLDER = os.path.basename(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH119, PTH120  # pathlib is slow to load
_TASK = f"{__name__}.task"


def _installed() -> Optional[ModuleSpec]:  # noqa: UP045  # it runs at once, and Python 3.9 has no other way to write it
    for finder in cast("list[Any]", list(sys.meta_path)):
        found: list[Optional[ModuleSpec]]  # noqa: UP045  # as above
        if finder is PathFinder:
            found = [PathFinder.find_spec(__name__, [entry]) for entry in sys.path]
        elif hasattr(finder, "find_spec"):
            found = [finder.find_spec(__name__, None)]
        else:
            continue
        for spec in found:
            # A folder that merely has the name has no origin; another agent's folder of this kind is no installation.
            if spec is not None and spec.origin and spec.loader and not _is_stand_in(spec.origin):
                return spec
    return None


def _is_stand_in(origin: str) -> bool:
    return os.path.basename(os.path.dirname(origin)) == _FOLDER  # noqa: PTH119, PTH120  # as above


def _load(spec: Optional[ModuleSpec]) -> ModuleType:  # noqa: UP045  # as above
    if spec is None or spec.loader is None:
        raise ImportError(f"{__name__} could not be loaded", name=__name__)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _load_task() -> ModuleType:
    place = os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "task.py")  # noqa: PTH100, PTH118, PTH120  # as above
    return _load(importlib.util.spec_from_file_location(_TASK, os.path.abspath(place)))  # noqa: PTH100  # as above


_spec = _installed()
if _spec is None:
    __path__: list[str] = []
    task = _load_task()
else:
    _module = _load(_spec)
    if importlib.util.find_spec(_TASK) is None:  # an installation that is older than the module
        _module.task = _load_task()  # pyright: ignore[reportAttributeAccessIssue]  # a module takes any name
