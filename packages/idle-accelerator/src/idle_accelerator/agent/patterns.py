"""Patterns of output files, as a shell's: all of them at once, one look at each name, in time that no pattern can blow up.

``*`` and ``?`` within a name, ``[…]`` and ``[!…]``, ``**`` for any folders; a leading dot is matched by a dot only.
"""

import re
from collections.abc import Iterable, Sequence

States = frozenset[tuple[int, int]]
"""(pattern, part of it that is to match next); a ``**`` and what follows it stand side by side."""


class Everything:
    """As ``Patterns``, for whoever wants all that there is, names with a leading dot too."""

    def start(self) -> States:
        return frozenset({(0, 0)})

    def named(self, _states: States) -> States:
        return frozenset()

    def below(self, states: States, _name: str) -> States:
        return states

    def matched(self, _states: States, _name: str) -> list[int]:
        return [0]


class Patterns:
    """Walk with ``start``, ``below`` for each folder, ``matched`` for each file. No states: nothing below can match."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._parts = [_parts(pattern) for pattern in patterns]
        self._expressions = {
            part: _expression(part) for parts in self._parts for part in parts if part != "**"
        }

    def start(self) -> States:
        return self._closed((pattern, 0) for pattern in range(len(self._parts)))

    def named(self, states: States) -> States:
        """Without those that match any folder."""
        return frozenset(state for state in states if self._parts[state[0]][state[1]] != "**")

    def below(self, states: States, name: str) -> States:
        """In the folder of that name."""
        after: list[tuple[int, int]] = []
        for pattern, position in states:
            parts = self._parts[pattern]
            if parts[position] == "**":
                if not name.startswith("."):
                    after.append((pattern, position))
            elif position + 1 < len(parts) and self._matches(parts[position], name):
                after.append((pattern, position + 1))
        return self._closed(after) if after else frozenset()

    def matched(self, states: States, name: str) -> list[int]:
        """Which patterns a file of that name matches."""
        return [
            pattern
            for pattern, position in states
            if position + 1 == len(self._parts[pattern])
            and self._matches(self._parts[pattern][position], name)
        ]

    def _matches(self, part: str, name: str) -> bool:
        if name.startswith(".") and not part.startswith("."):
            return False
        return self._expressions[part].fullmatch(name) is not None

    def _closed(self, states: Iterable[tuple[int, int]]) -> States:
        closed: set[tuple[int, int]] = set()
        for pattern, first in states:
            position = first
            closed.add((pattern, position))
            while self._parts[pattern][position] == "**":
                position += 1
                closed.add((pattern, position))
        return frozenset(closed)


def _parts(pattern: str) -> tuple[str, ...]:
    parts = pattern.split("/")
    return (*parts, "*") if parts[-1] == "**" else tuple(parts)


def _expression(part: str) -> re.Pattern[str]:
    """Each ``*`` takes the first place where what follows it fits, and is not asked again (atomic groups): that is enough for
    everything but the last, and keeps the time to the product of both lengths."""
    pieces = [""]
    position = 0
    while position < len(part):
        sign = part[position]
        position += 1
        if sign == "*":
            if pieces[-1] or len(pieces) == 1:
                pieces.append("")
        elif sign == "?":
            pieces[-1] += "."
        elif sign == "[" and (end := _end_of_class(part, position)) is not None:
            pieces[-1] += _class(part[position:end])
            position = end + 1
        else:
            pieces[-1] += re.escape(sign)
    first, *others = pieces
    if others:
        *middle, last = others
        first += "".join(f"(?>.*?{piece})" for piece in middle) + f".*{last}"
    return re.compile(first, re.DOTALL)


def _end_of_class(part: str, start: int) -> int | None:
    """Where the bracket closes; one that stands first in the class is a member of it."""
    position = start
    if part[position : position + 1] in ("!", "^"):
        position += 1
    end = part.find("]", position + 1)
    return end if end >= 0 else None


def _class(inner: str) -> str:
    negated = inner[0] in "!^"
    members = inner[1:] if negated else inner
    ranges: list[str] = []
    position = 0
    while position < len(members):
        low = high = members[position]
        if position + 2 < len(members) and members[position + 1] == "-":
            high = members[position + 2]
            position += 2
        position += 1
        if low <= high:
            ranges.append(f"{re.escape(low)}-{re.escape(high)}")
    if not ranges:
        return "." if negated else "(?!)"
    return f"[{'^' if negated else ''}{''.join(ranges)}]"
