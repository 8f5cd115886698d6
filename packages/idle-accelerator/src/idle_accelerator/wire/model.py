"""The base of all wire models."""

from pydantic import BaseModel, ConfigDict


class WireModel(BaseModel):
    """Strict, frozen, and closed: unknown fields are refused, ``false`` is no integer, bytes travel as base64."""

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        ser_json_bytes="base64",
        val_json_bytes="base64",
        allow_inf_nan=False,
    )


class ErrorBody(WireModel):
    """The one shape of every error answer."""

    code: str
    message: str
    field: str | None = None
    hint: str | None = None
