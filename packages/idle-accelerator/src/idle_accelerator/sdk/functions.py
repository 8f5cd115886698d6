"""Functions and their arguments as bytes. They are opened on nodes only, inside the guest.

By cloudpickle: functions of ``__main__`` and of notebooks travel whole. So does what stands in modules of this machine
that nodes can hardly have: all that lie neither in the standard library nor in site-packages.
"""

import contextlib
import dataclasses
import functools
import os
import pickle
import site
import sys
import sysconfig
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, cast

import cloudpickle

from idle_accelerator.errors import InvalidInput, TooLarge
from idle_accelerator.wire.ids import MAX_TASKS
from idle_accelerator.wire.jobs import Function
from idle_accelerator.wire.payload import INLINE_LIMIT_BYTES, Payload, inline_payload

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
"""A pickle is opened by the minor version that made it."""
_OURS = ("idle_accelerator", "idle_sense")
_PLAIN = frozenset({int, float, str, bytes, bool, type(None)})
_NAME_LENGTH = 200
_registry = threading.RLock()
_is_local: dict[str, bool] = {}


def pickle_function(fn: Callable[..., Any]) -> bytes:
    """Raises InvalidInput, with what cannot travel."""
    if not callable(fn):
        raise InvalidInput(
            f"{type(fn).__name__} is not a function.", field="fn", hint="Give something that can be called."
        )
    local = _local_modules()
    own = [module for module in local if module.__name__ == getattr(fn, "__module__", None)]
    problem: Exception | None = None
    for modules in (local, own, []):
        try:
            with _by_value(modules):
                return cloudpickle.dumps(fn)
        except Exception as error:  # noqa: BLE001  # pickling runs code of the user's own classes
            problem = problem or error
    raise InvalidInput(
        f"{name_of(fn)} cannot be pickled: {problem}.",
        field="fn",
        hint="Open files, locks and connections inside the function instead of closing over them.",
    ) from problem


def pickle_arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
    """One task's arguments. Raises InvalidInput, with what cannot travel."""
    with _by_value(_local_modules()):
        return _pickle_call(args, kwargs, "args")


def pack_items(items: Iterable[Any]) -> list[bytes]:
    """The arguments of one task per item. Raises InvalidInput, TooLarge over MAX_TASKS items."""
    taken = list(islice(items, MAX_TASKS + 1))
    if len(taken) > MAX_TASKS:
        raise TooLarge(
            f"more than {MAX_TASKS:,} items.", field="iterable", hint="Map over groups of items instead."
        )
    with _by_value(_local_modules()):
        return [
            pickle.dumps(((item,), {}))
            if type(item) in _PLAIN
            else _pickle_call((item,), {}, f"iterable[{place}]")
            for place, item in enumerate(taken)
        ]


def _pickle_call(args: tuple[Any, ...], kwargs: Mapping[str, Any], field: str) -> bytes:
    try:
        return cloudpickle.dumps((args, dict(kwargs)))
    except Exception as error:
        raise InvalidInput(
            f"cannot be pickled: {error}.",
            field=field,
            hint="Give plain data, and open files inside the function.",
        ) from error


def workload(
    fn: Callable[..., Any], code: Payload, arguments: Payload, *, results: Literal["data", "pickle"]
) -> Function:
    if results not in ("data", "pickle"):
        raise InvalidInput(f"{results!r}: 'data' or 'pickle' is wanted.", field="results")
    return Function(name=name_of(fn), code=code, arguments=arguments, python=PYTHON, results=results)


def fits_inline(content: bytes) -> bool:
    return len(content) <= INLINE_LIMIT_BYTES


def payload_of(content: bytes) -> Payload:
    """As it travels: inline, or named by digest for the one who uploads it."""
    if fits_inline(content):
        return inline_payload(content)
    import hashlib  # noqa: PLC0415  # only for large ones

    return Payload(blob=hashlib.sha256(content).hexdigest(), size_bytes=len(content))


def name_of(fn: Callable[..., Any]) -> str:
    """One printable line that tells a person which function this is."""
    named = _innermost(fn)
    name = getattr(named, "__qualname__", None) or type(named).__qualname__
    return "".join(letter if letter.isprintable() else "·" for letter in str(name))[:_NAME_LENGTH]


def dataclasses_near(fn: Callable[..., Any]) -> dict[str, type]:
    """The dataclasses that the function can name: results of these classes come back as instances of them."""
    named = _innermost(fn)
    scopes: list[Mapping[str, Any]] = [getattr(named, "__globals__", {})]
    for cell in getattr(named, "__closure__", None) or ():
        with contextlib.suppress(ValueError):
            scopes.append({"cell": cell.cell_contents})
    modules = [value for value in scopes[0].values() if isinstance(value, ModuleType) and _local(value)]
    scopes.extend(vars(module) for module in modules)
    found: dict[str, type] = {}
    for scope in scopes:
        for value in tuple(scope.values()):
            if isinstance(value, type) and dataclasses.is_dataclass(value):
                cls = cast("type", value)
                found[f"{cls.__module__}.{cls.__qualname__}"] = cls
    return found


def _innermost(fn: Any) -> Any:
    while isinstance(fn, functools.partial):
        fn = cast("functools.partial[Any]", fn).func
    return getattr(fn, "__func__", fn)


def _local_modules() -> list[ModuleType]:
    return [module for module in tuple(sys.modules.values()) if _local(module)]


def _local(module: ModuleType) -> bool:
    """Whether a module is part of the user's own program rather than of an installation."""
    name = getattr(module, "__name__", None)
    if not isinstance(name, str):
        return False
    known = _is_local.get(name)
    if known is None:
        known = _is_local[name] = _found_locally(module, name)
    return known and sys.modules.get(name) is module


def _found_locally(module: ModuleType, name: str) -> bool:
    file = getattr(module, "__file__", None)
    if (
        name == "__main__"
        or name.partition(".")[0] in _OURS
        or not isinstance(file, str)
        or not file.endswith(".py")
    ):
        return False
    return not os.path.normcase(os.path.abspath(file)).startswith(_installations())  # noqa: PTH100  # thousands of them


@functools.cache
def _installations() -> tuple[str, ...]:
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    with contextlib.suppress(AttributeError):  # some virtual environments' site modules lack it
        paths += [*site.getsitepackages(), site.getusersitepackages()]
    # As they are and as links lead: for the standard library of a virtual environment's base.
    given = [Path(path) for path in paths if path]
    found = {*(path.absolute() for path in given), *(path.resolve() for path in given)}
    return tuple(os.path.normcase(path) + os.sep for path in found)


@contextlib.contextmanager
def _by_value(modules: Iterable[ModuleType]) -> Generator[None]:
    """Lets cloudpickle send these modules' contents whole, for the time of one pickling."""
    with _registry:
        already = cast("set[str]", cloudpickle.list_registry_pickle_by_value())
        added = [module for module in modules if module.__name__ not in already]
        for module in added:
            cloudpickle.register_pickle_by_value(module)
        try:
            yield
        finally:
            for module in added:
                cloudpickle.unregister_pickle_by_value(module)
