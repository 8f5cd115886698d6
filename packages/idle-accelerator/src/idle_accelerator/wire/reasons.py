"""Why: a code with parameters, rendered as a sentence where it is read.

Names of parameters carry their unit (``_s``, ``_bytes``), and rendering makes them human.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Annotated, Literal

from pydantic import Field

from idle_accelerator.wire.model import WireModel
from idle_accelerator.wire.sentences import CHINESE, ENGLISH
from idle_accelerator.wire.units import format_duration, format_size

Language = Literal["en", "zh"]
ParamValue = (
    Annotated[str, Field(max_length=2000)] | bool | Annotated[int, Field(ge=-(2**63), lt=2**63)] | float
)


class Cause(WireModel):
    """One part of an explanation: a code with its parameters. ``text`` is the origin's own sentence, for codes that a reader does not know."""

    code: str = Field(max_length=100, pattern=r"^[a-z_]+(\.[a-z_]+)+$", examples=["task.exit_code"])
    params: dict[str, ParamValue] = Field(default_factory=dict, max_length=20)
    text: str = Field(default="", max_length=2000)


class Reason(Cause):
    """A refusal, a wait or a stop, explained. ``because`` says what it follows from, where that has codes of its own."""

    because: tuple[Cause, ...] = Field(default=(), strict=False, max_length=50)


class ReasonView(Reason):
    """A reason as the API shows it."""

    sentence: str


def reason(code: str, *, because: Iterable[Cause] = (), **params: str | float) -> Reason:
    causes = tuple(Cause(code=item.code, params=item.params, text=item.text) for item in because)
    return Reason(code=code, params=params, because=causes)


def render(subject: Cause, language: Language = "en") -> str:
    """The reason's sentence. An unknown code, or parameters that do not fit, give the origin's own text, else the code."""
    template = (CHINESE if language == "zh" else ENGLISH).get(subject.code) or _sensed(language).get(
        subject.code
    )
    if template is None:
        return subject.text or subject.code
    values = {name: _human(name, value) for name, value in subject.params.items()}
    if isinstance(subject, Reason) and subject.because:
        values["why"] = ("；" if language == "zh" else "; ").join(
            render(cause, language) for cause in subject.because
        )
        if "{why}" not in template:
            template += "（{why}）" if language == "zh" else " ({why})"
    try:
        return template.format_map(values)
    except (KeyError, IndexError, ValueError):
        return subject.text or subject.code


def view(subject: Reason) -> ReasonView:
    """For the API."""
    return ReasonView(
        code=subject.code,
        params=subject.params,
        text=subject.text,
        because=subject.because,
        sentence=render(subject),
    )


def aged(subject: Reason, by_s: float) -> Reason:
    """The reason as it reads ``by_s`` seconds after it was given: ages (``age_s``) have grown, what remains has shrunk."""
    params = dict(subject.params)
    age, remaining = params.get("age_s"), params.get("remaining_s")
    if isinstance(age, int | float):
        params["age_s"] = round(age + by_s, 1)
    if isinstance(remaining, int | float):
        params["remaining_s"] = max(0, round(remaining - by_s))
    return subject.model_copy(update={"params": params})


@cache
def _sensed(language: Language) -> Mapping[str, str]:
    """Sentences of idle-sense's own codes."""
    from idle_sense import sentences  # noqa: PLC0415  # 30 ms, for those alone who meet such a code

    return sentences.CHINESE if language == "zh" else sentences.ENGLISH


def _human(name: str, value: str | float) -> str:
    if isinstance(value, str | bool):
        return str(value)
    try:
        return _with_unit(name, value)
    except OverflowError:
        return str(value)


def _with_unit(name: str, value: float) -> str:
    if name.endswith("_bytes_per_s"):
        return f"{format_size(value)}/s"
    if name.endswith("_s"):
        return format_duration(value)
    if name.endswith("_bytes"):
        return format_size(value)
    if name.endswith("_ratio"):
        return f"{value * 100:.0f} %"
    if name.endswith("_c"):
        return f"{value:.0f} °C"
    return f"{value:g}"
