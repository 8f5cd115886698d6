"""Records as plain JSON values, and what changed between two of them. Pure.

Works on frozen dataclasses whose fields are numbers, text, flags, times, literals, tuples of such, ``Reading``s and other
dataclasses: every fact, snapshots, policies. A field with its default value is left out; so a field that is added later, with a
default, neither changes nor breaks what was written before.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any, Literal, TypeVar, Union, cast

T = TypeVar("T")

_SPECIAL = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}
"""Numbers that JSON has no word for."""
_GONE = "-"
"""In a change of an object: the names that it no longer has. No field is called so."""
_INSTEAD = "="
"""In a change of a list: an object that takes its place."""


class MisfitError(ValueError):
    """This is not the plain form of that kind of record; says where."""


class Unchanged:
    """There is no change."""


UNCHANGED = Unchanged()


def to_plain(value: object, digits: int | None = None, *, whole: bool = False) -> Any:
    """``digits``: round numbers to so many decimals; None: exactly as they are. ``whole``: with the fields that have their
    defaults, which may be others one day."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
        return value if digits is None else round(value, digits)
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, tuple):
        return [to_plain(item, digits, whole=whole) for item in cast("tuple[object, ...]", value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            item.name: to_plain(given, digits, whole=whole)
            for item in dataclasses.fields(value)
            if (given := getattr(value, item.name)) != item.default or whole
        }
    raise TypeError(f"{type(value).__name__} has no plain form")


def from_plain(kind: type[T], value: object) -> T:
    """The record that ``to_plain`` made this of.

    Raises MisfitError for anything else, naming the place.
    """
    return cast("T", _decoded(kind, value, {}, ""))


def changes(before: Any, after: Any) -> Any:
    """What turns one plain value into another, or UNCHANGED: for an object, its changed members; for a list of the same length,
    its changed items by position; for all else, the new value."""
    same_kind = type(before) is type(after)
    if isinstance(before, dict) and isinstance(after, dict):
        old, new = cast("dict[str, Any]", before), cast("dict[str, Any]", after)
        found: dict[str, Any] = {
            name: change
            for name, value in new.items()
            if not isinstance(change := changes(old[name], value) if name in old else value, Unchanged)
        }
        gone = [name for name in old if name not in new]
        if gone:
            found[_GONE] = gone
        return found or UNCHANGED
    if isinstance(before, list) and isinstance(after, list):
        was, now = cast("list[Any]", before), cast("list[Any]", after)
        if len(was) != len(now):
            return now
        moved: dict[str, Any] = {
            str(position): change
            for position, (one, other) in enumerate(zip(was, now, strict=True))
            if not isinstance(change := changes(one, other), Unchanged)
        }
        return moved or UNCHANGED
    if isinstance(before, list) and isinstance(after, dict):
        return {_INSTEAD: cast("dict[str, Any]", after)}
    return UNCHANGED if same_kind and before == after else after


def changed(before: object, change: object) -> Any:
    """``before`` with what ``changes`` found. Raises MisfitError for a change that does not fit."""
    if isinstance(before, dict) and isinstance(change, dict):
        members = cast("dict[str, Any]", change)
        gone = members.get(_GONE, [])
        if not isinstance(gone, list):
            raise MisfitError(f"the names under {_GONE!r} are no list")
        kept = {name: value for name, value in cast("dict[str, Any]", before).items() if name not in gone}
        for name, part in members.items():
            if name != _GONE:
                kept[name] = changed(kept[name], part) if name in kept else part
        return kept
    if isinstance(before, list) and isinstance(change, dict):
        parts = cast("dict[str, Any]", change)
        if _INSTEAD in parts:
            return parts[_INSTEAD]
        items = list(cast("list[Any]", before))
        for position, part in parts.items():
            if not (position.isdecimal() and len(position) < 10 and int(position) < len(items)):
                raise MisfitError(f"there is no item {position}")
            items[int(position)] = changed(items[int(position)], part)
        return items
    return change


def _decoded(kind: Any, value: object, bound: Mapping[Any, Any], where: str) -> object:
    if isinstance(kind, TypeVar):
        kind = bound[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return _one_of(arguments, value, bound, where)
    if origin is Literal:
        if value in arguments:
            return value
        raise MisfitError(f"{where or 'it'} is {value!r}, none of {', '.join(map(repr, arguments))}")
    if origin is tuple:
        if not isinstance(value, list):
            raise MisfitError(f"{where or 'it'} is {value!r}, no list")
        items = cast("list[object]", value)
        return tuple(
            _decoded(arguments[0], item, bound, f"{where}[{position}]") for position, item in enumerate(items)
        )
    if dataclasses.is_dataclass(origin or kind):
        return _record(kind, value, where)
    return _leaf(kind, value, where)


def _one_of(kinds: tuple[Any, ...], value: object, bound: Mapping[Any, Any], where: str) -> object:
    if value is None and types.NoneType in kinds:
        return None
    problem = MisfitError(f"{where or 'it'} is {value!r}")
    for kind in kinds:
        if kind is types.NoneType:
            continue
        try:
            return _decoded(kind, value, bound, where)
        except MisfitError as error:
            problem = error
    raise problem


def _record(kind: Any, value: object, where: str) -> object:
    record = typing.get_origin(kind) or kind
    if not isinstance(value, dict):
        raise MisfitError(f"{where or 'it'} is {value!r}, no object")
    given = cast("dict[str, object]", value)
    hints = _hints(record)
    unknown = sorted(given.keys() - hints.keys())
    if unknown:
        raise MisfitError(f"{where or 'it'} has {', '.join(unknown)}, which nobody here knows")
    bound = dict(zip(getattr(record, "__parameters__", ()), typing.get_args(kind), strict=False))
    parts = {
        name: _decoded(hints[name], part, bound, f"{where}.{name}" if where else name)
        for name, part in given.items()
    }
    try:
        return record(**parts)
    except TypeError as error:
        raise MisfitError(f"{where or 'it'} is not whole: {error}") from error


@cache
def _hints(record: type) -> Mapping[str, Any]:
    hints = typing.get_type_hints(record)
    return {item.name: hints[item.name] for item in dataclasses.fields(record)}


def _leaf(kind: Any, value: object, where: str) -> object:
    if kind is float:
        if isinstance(value, str) and value in _SPECIAL:
            return _SPECIAL[value]
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value
    elif kind is datetime:
        if isinstance(value, str):
            try:
                return datetime.fromisoformat(value)
            except ValueError as error:
                raise MisfitError(f"{where}: {error}") from error
    elif type(value) is kind:
        return value
    name = getattr(kind, "__name__", str(kind))
    raise MisfitError(f"{where or 'it'} is {value!r}, no {name}")
