"""Which language this viewer reads, and the page's texts and reasons in it."""

from collections.abc import Iterable

import streamlit as st

from idle_accelerator.web import plain
from idle_accelerator.web.texts import in_language
from idle_accelerator.wire.reasons import Language, Reason, render

_NAMES: dict[Language, str] = {"en": "English", "zh": "中文"}
_KEY = "language"


def current() -> Language:
    """Chosen on the page, else by the URL (``?lang=zh``), else the browser's own."""
    chosen = st.session_state.get(_KEY)
    if chosen is None:
        chosen = st.query_params.get("lang") or st.context.locale or "en"
    return "zh" if str(chosen).lower().startswith("zh") else "en"


def switch() -> None:
    """The language switch. The choice stays in the session and in the URL, so that a link or a reload keeps it."""
    if _KEY not in st.session_state:
        st.session_state[_KEY] = current()
    st.segmented_control(
        "Language · 语言",
        list(_NAMES),
        format_func=lambda language: _NAMES[language],
        key=_KEY,
        required=True,
        label_visibility="collapsed",
    )


def remember() -> None:
    """Puts the language into the URL, which loses it whenever the viewer goes to another page."""
    if st.query_params.get("lang") != current():
        st.query_params["lang"] = current()


def say(key: str, **params: object) -> str:
    return in_language(current(), key, **params)


def sentence(reason: Reason) -> str:
    """One printable line; parts of it may come from a node, so show it without markup."""
    return plain.line(render(reason, current()), 600)


def sentences(reasons: Iterable[Reason]) -> list[str]:
    """Without repetitions, in their order."""
    return list(dict.fromkeys(sentence(item) for item in reasons))
