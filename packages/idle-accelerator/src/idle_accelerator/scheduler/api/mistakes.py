"""What is wrong with a body, as a sentence that names the field and says what to write instead."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from idle_accelerator.errors import InvalidInput
from idle_accelerator.wire.model import WireModel


def describe(error: ValidationError, model: type[WireModel]) -> InvalidInput:
    """The first mistake as a sentence with its field; further ones are counted."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    path, names = _locate(model, first["loc"])
    field = ".".join(path) or "body"
    kind = first["type"]
    hint: str | None = None
    if kind == "extra_forbidden":
        message = "unknown field."
        near = get_close_matches(str(first["loc"][-1]), names, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"The fields here are: {', '.join(names)}."
    elif kind == "missing":
        message = "missing."
        hint = "The fields are listed at /docs."
    elif kind == "json_invalid":
        message = f"not valid JSON: {first['msg'].removeprefix('Invalid JSON: ')}."
    else:
        message = f"{first['msg'].removeprefix('Value error, ')}."
    if error.error_count() > 1:
        message = f"{message} ({error.error_count() - 1} more problem(s) in this body.)"
    return InvalidInput(message, field=field, hint=hint)


def _locate(model: type[WireModel], loc: Sequence[str | int]) -> tuple[list[str], list[str]]:
    """Where ``loc`` points in the JSON that was sent, and the fields that the innermost model there has.

    pydantic's own ``loc`` also holds the names of a union's members and '[key]', which stand nowhere in the JSON.
    """
    here: list[type[BaseModel]] = [model]
    names = list(model.model_fields)
    in_map = False
    path: list[str] = []
    for part in loc:
        if isinstance(part, int) or in_map:
            if part != "[key]":
                path.append(str(part))
            in_map = False
            continue
        owners = [owner for owner in here if part in owner.model_fields]
        if owners:
            path.append(part)
            annotations = [owner.model_fields[part].annotation for owner in owners]
            here = [inner for annotation in annotations for inner in _models_in(annotation)]
            in_map = any(_is_map(annotation) for annotation in annotations)
        else:
            tagged = [owner for owner in here if _tag(owner) == part]
            here = tagged or here
            if not tagged and part != "[key]":
                path.append(part)
        names = [name for owner in here for name in owner.model_fields] or names
    return path, names


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


def _is_map(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) is dict


def _tag(model: type[BaseModel]) -> str | None:
    kind = model.model_fields.get("kind")
    return kind.default if kind is not None and isinstance(kind.default, str) else None
