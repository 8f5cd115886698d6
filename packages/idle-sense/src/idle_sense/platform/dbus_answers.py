"""What a connection to a message bus hands back: answers, signals, and who holds a name."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

SILENCE = "no answer"
"""``Call.error`` of a question that nobody answered in time."""
LOST = "the connection was lost"

_MOST_SIGNALS = 1000


@dataclass(kw_only=True)
class Call:
    """A question, and once ``done`` its answer."""

    destination: str
    sent_at_s: float
    answered_at_s: float | None = None
    """When its answer was taken, or given up, on the bus's clock."""
    body: tuple[Any, ...] = ()
    """What was answered; variants are pairs of signature and value, as jeepney has them."""
    error: str = ""
    """The D-Bus name of the error that was answered, ``SILENCE`` or ``LOST``; empty: none."""
    text: str = ""
    """What the error says of itself."""

    @property
    def done(self) -> bool:
        return self.answered_at_s is not None

    @property
    def failed(self) -> bool:
        return self.done and bool(self.error)


class Signal(NamedTuple):
    path: str
    interface: str
    member: str
    sender: str
    """Unique name, such as ``:1.42``."""
    body: tuple[Any, ...]


@dataclass(kw_only=True)
class Subscription:
    """Signals that match; kept through new connections until the bus is closed."""

    rule: Mapping[str, str]
    heard: deque[Signal] = field(default_factory=lambda: deque[Signal](maxlen=_MOST_SIGNALS))

    def taken(self) -> tuple[Signal, ...]:
        """What came since the last call. After a flood the oldest are gone."""
        signals = tuple(self.heard)
        self.heard.clear()
        return signals

    def matches(self, signal: Signal) -> bool:
        """As far as it can be told here: well-known names of senders are matched by the bus alone."""
        rule = self.rule
        for key, value in (
            ("interface", signal.interface),
            ("member", signal.member),
            ("path", signal.path),
        ):
            if rule.get(key, value) != value:
                return False
        first = signal.body[0] if signal.body and isinstance(signal.body[0], str) else ""
        namespace, path = rule.get("arg0namespace", ""), rule.get("path_namespace", "")
        return (
            rule.get("arg0", first) == first
            and (not namespace or first == namespace or first.startswith(namespace + "."))
            and (not path or signal.path == path or signal.path.startswith(path.rstrip("/") + "/"))
        )


@dataclass(kw_only=True)
class Name:
    """Who holds a well-known name. ``known`` is False until the bus has said so on the present connection."""

    name: str
    owner: str = ""
    """Unique name; empty: nobody."""
    known: bool = False
    call: Call | None = None
    changes: Subscription
