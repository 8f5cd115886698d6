"""Why: a code with parameters, rendered as a sentence where it is read.

Names of parameters carry their unit (``_s``, ``_bytes``), and rendering makes them human.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from idle_accelerator.wire.model import WireModel
from idle_accelerator.wire.sentences import CHINESE, ENGLISH
from idle_accelerator.wire.units import format_duration, format_size

Language = Literal["en", "zh"]
ParamValue = Annotated[str, Field(max_length=2000)] | bool | int | float


class Reason(WireModel):
    """A refusal, a wait or a stop, explained. ``text`` is the origin's own sentence, for codes that a reader does not know."""

    code: str = Field(max_length=100, pattern=r"^[a-z_]+(\.[a-z_]+)+$", examples=["task.exit_code"])
    params: dict[str, ParamValue] = Field(default_factory=dict, max_length=20)
    text: str = Field(default="", max_length=2000)


class ReasonView(Reason):
    """A reason as the API shows it."""

    sentence: str


def reason(code: str, **params: str | float) -> Reason:
    return Reason(code=code, params=params)


def render(subject: Reason, language: Language = "en") -> str:
    """The reason's sentence. An unknown code, or parameters that do not fit, give the origin's own text, else the code."""
    template = (CHINESE if language == "zh" else ENGLISH).get(subject.code)
    if template is None:
        return subject.text or subject.code
    try:
        return template.format_map({name: _human(name, value) for name, value in subject.params.items()})
    except (KeyError, IndexError, ValueError):
        return subject.text or subject.code


def view(subject: Reason, *, older_by_s: float = 0.0) -> ReasonView:
    """For the API. ``older_by_s`` is the time since the reason was given: ages in it (``age_s``) have grown by as much."""
    params: Mapping[str, str | bool | int | float] = subject.params
    age = params.get("age_s")
    if older_by_s > 0 and isinstance(age, int | float):
        params = {**params, "age_s": round(age + older_by_s, 1)}
    aged = Reason(code=subject.code, params=dict(params), text=subject.text)
    return ReasonView(code=aged.code, params=aged.params, text=aged.text, sentence=render(aged))


def _human(name: str, value: str | float) -> str:
    if isinstance(value, str | bool):
        return str(value)
    if name.endswith("_s"):
        return format_duration(value)
    if name.endswith("_bytes"):
        return format_size(value)
    if name.endswith("_ratio"):
        return f"{value * 100:.0f} %"
    return f"{value:g}"
