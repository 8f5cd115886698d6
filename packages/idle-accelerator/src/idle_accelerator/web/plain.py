"""Hostile text made harmless and readable: names, file names and output come from strangers.

Most of the page shows such text by elements that know no markup. Where Streamlit insists on Markdown (labels, headings),
``label`` gives text in which nothing is markup.
"""

import re
import string

LABEL_LIMIT = 120
LINE_LIMIT = 2000
"""Longer lines of output are cut: one line of a megabyte makes a browser crawl."""
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_JOINER = "\u2060"
_FOUND_LATER = re.compile(r"\\[:@]|www", re.IGNORECASE)
_PUNCTUATION = re.compile(f"([{re.escape(string.punctuation)}])")


def line(text: str, limit: int = LABEL_LIMIT) -> str:
    """One printable line of at most ``limit`` characters, for elements that know no markup."""
    shown = "".join(mark if mark.isprintable() else "\ufffd" for mark in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def label(text: str, limit: int = LABEL_LIMIT) -> str:
    """As ``line``, for places that read Markdown: every ASCII punctuation mark is escaped (CommonMark 2.4).

    Bare addresses, icon names and emoji names are found after escapes are resolved; an invisible word joiner breaks them.
    """
    escaped = _PUNCTUATION.sub(r"\\\1", line(text, limit))
    return _FOUND_LATER.sub(lambda found: found[0] + _JOINER, escaped) or "\u00a0"


def block(text: str, limit: int) -> str:
    """Several lines, each printable, ``limit`` characters at most in all."""
    shown = "\n".join(_one_line(row) for row in text[: limit + 1].split("\n"))
    return shown if len(text) <= limit else shown[:limit] + "…"


def output(tail: bytes) -> str:
    """A program's output as a terminal would leave it: no colour codes, progress bars at their last state."""
    return "\n".join(_one_line(row) for row in _ANSI.sub("", tail.decode("utf-8", "replace")).split("\n"))


def _one_line(row: str) -> str:
    last = row.rstrip("\r").rsplit("\r", 1)[-1]
    cut = last[: LINE_LIMIT + 1]
    shown = "".join(mark if mark.isprintable() or mark == "\t" else "\ufffd" for mark in cut)
    return shown if len(shown) <= LINE_LIMIT else shown[:LINE_LIMIT] + "…"


def file_name(path: str) -> str:
    """The last part of a path, fit to be offered as the name of a download on every system."""
    name = re.sub(r"[^\w.\-+= ()\[\]{},@]", "_", path.rsplit("/", 1)[-1]).strip(" .")
    return name[-LABEL_LIMIT:] or "file"
