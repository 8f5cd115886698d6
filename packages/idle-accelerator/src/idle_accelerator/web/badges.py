"""States as the page shows them: word, colour, symbol. Colour never stands alone, so that nobody needs to tell colours apart."""

from collections.abc import Iterable
from typing import Any, Literal

import streamlit as st

from idle_accelerator.web.language import say
from idle_accelerator.wire.nodes import Lending
from idle_accelerator.wire.states import AttemptState, JobState, TaskState

Colour = Literal["green", "blue", "red", "orange", "violet", "gray"]

_STATES: dict[str, tuple[Colour, str]] = {
    "QUEUED": ("gray", "hourglass_empty"),
    "ACTIVE": ("blue", "play_arrow"),
    "SUCCEEDED": ("green", "check"),
    "FAILED": ("red", "close"),
    "CANCELLED": ("gray", "block"),
    "LEASED": ("blue", "schedule"),
    "STAGING": ("blue", "download"),
    "RUNNING": ("blue", "play_arrow"),
    "SUSPENDED": ("violet", "ac_unit"),
    "VACATING": ("orange", "logout"),
    "VACATED": ("gray", "logout"),
    "REJECTED": ("gray", "undo"),
    "LOST": ("orange", "link_off"),
}
_LENDING: dict[Lending, tuple[Colour, str]] = {
    "available": ("green", "check"),
    "lent": ("green", "volunteer_activism"),
    "settling": ("blue", "hourglass_top"),
    "in_use": ("orange", "person"),
    "paused": ("violet", "pause"),
    "draining": ("orange", "block"),
    "offline": ("gray", "cloud_off"),
}
LENDING_ORDER: tuple[Lending, ...] = tuple(_LENDING)
TAKING_WORK: frozenset[Lending] = frozenset({"available", "lent"})

State = JobState | TaskState | AttemptState


def word(state: State) -> str:
    return say(f"state.{state.value}")


def state_badge(state: State) -> None:
    colour, icon = _STATES[state.value]
    st.badge(word(state), icon=f":material/{icon}:", color=colour)


def lending_badge(lending: Lending, *, count: int | None = None) -> None:
    colour, icon = _LENDING[lending]
    number = "" if count is None else f" {count}"
    st.badge(say(f"lending.{lending}") + number, icon=f":material/{icon}:", color=colour)


def state_column(heading: str, states: Iterable[State]) -> Any:
    """A column of coloured chips for a table; its cells are lists of one word."""
    words = {word(state): _STATES[state.value][0] for state in states}
    return st.column_config.MultiselectColumn(
        heading, options=list(words), color=list(words.values()), width=105
    )
