"""Errors as one clear sentence with the next step. A traceback never reaches the viewer."""

import contextlib
import logging
from collections.abc import Generator

import streamlit as st

from idle_accelerator.errors import Forbidden, IdleError, NotFound, Unauthorized, Unavailable
from idle_accelerator.settings import connection
from idle_accelerator.web import plain
from idle_accelerator.web.form import FormError
from idle_accelerator.web.language import say

_LOG = logging.getLogger(__name__)
_SENTENCE_LIMIT = 1000


@contextlib.contextmanager
def shown() -> Generator[None]:
    """Whatever goes wrong inside is said in its place on the page. A fragment that refreshes recovers by itself."""
    try:
        yield
    except IdleError as error:
        show(error)
    except OSError as error:
        _LOG.exception("the page could not use a file")
        st.error(plain.label(say("error.files", detail=str(error)), _SENTENCE_LIMIT), icon=":material/error:")


def show(error: IdleError) -> None:
    """What it is goes by the error's class; details of the server's own sentence are kept."""
    if isinstance(error, Unavailable):
        st.warning(
            plain.label(say("error.unavailable", url=where()), _SENTENCE_LIMIT), icon=":material/cloud_off:"
        )
        st.caption(say("error.unavailable_next"))
    elif isinstance(error, Unauthorized):
        st.error(plain.label(say("error.key", url=where()), _SENTENCE_LIMIT), icon=":material/key_off:")
        st.caption(say("error.key_next"))
    else:
        st.error(plain.label(sentence(error), _SENTENCE_LIMIT), icon=_icon(error))


def sentence(error: IdleError) -> str:
    """In the viewer's language where the page knows the error, else the server's own English one."""
    if isinstance(error, FormError):
        return say(error.key, **error.params)
    return str(error)


def _icon(error: IdleError) -> str:
    if isinstance(error, NotFound):
        return ":material/search_off:"
    return ":material/block:" if isinstance(error, Forbidden) else ":material/error:"


def where() -> str:
    """The scheduler that this page speaks to, or why none is named."""
    try:
        return connection().url
    except IdleError as error:
        return str(error)
