"""The OpenAPI document: what FastAPI can see, and what it cannot.

Routes read and write their bodies themselves (api.bodies says why), so schemas, examples and the two kinds of bearer are
added here.
"""

from typing import Any

from fastapi import FastAPI

from idle_accelerator.scheduler.api.examples import EXAMPLES
from idle_accelerator.scheduler.api.health import Health
from idle_accelerator.scheduler.api.nodes import Drain
from idle_accelerator.wire.checkpoints import Asked
from idle_accelerator.wire.exchange import ExchangeRequest
from idle_accelerator.wire.jobs import JobSpec
from idle_accelerator.wire.model import ErrorBody, WireModel
from idle_accelerator.wire.nodes import Enrolment

_READ_BY_ROUTES: tuple[type[WireModel], ...] = (JobSpec, Asked, Enrolment, ExchangeRequest, Drain, ErrorBody)
_EXAMPLES = (*EXAMPLES, Drain(drain=True), Health(status="ready", version="0.1.0"))
_SCHEMES = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "description": "The scheduler's key, from scheduler.key in its data directory. On loopback none is needed.",
    },
    "node_token": {
        "type": "http",
        "scheme": "bearer",
        "description": "A node's own token, shown once when it enrolled.",
    },
}
_KEY: dict[str, list[str]] = {"key": []}
_NODE_TOKEN: dict[str, list[str]] = {"node_token": []}


def describe(app: FastAPI, *, key_needed: bool) -> None:
    """Completes the app's OpenAPI document, once, when it is first asked for. Without ``key_needed`` the key may be left out."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = made()
            _add_schemas(document)
            _add_security(document, key_needed=key_needed)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi


def _add_schemas(document: dict[str, Any]) -> None:
    parts: dict[str, Any] = document.setdefault("components", {}).setdefault("schemas", {})
    for model in _READ_BY_ROUTES:
        described = model.model_json_schema(ref_template="#/components/schemas/{model}")
        for name, part in described.pop("$defs", {}).items():
            parts.setdefault(name, part)
        parts[model.__name__] = described
    for example in _EXAMPLES:
        name = type(example).__name__
        if name in parts:
            parts[name]["examples"] = [example.model_dump(mode="json", exclude_defaults=True)]


def _add_security(document: dict[str, Any], *, key_needed: bool) -> None:
    document["components"]["securitySchemes"] = _SCHEMES
    for path, item in document["paths"].items():
        for operation in item.values():
            operation["security"] = _who_may(path, key_needed=key_needed)


def _who_may(path: str, *, key_needed: bool) -> list[dict[str, list[str]]]:
    """As the routes' dependencies (api.access) have it: a list of alternatives, of which {} is nothing at all."""
    if path.endswith("/exchange"):
        return [_NODE_TOKEN]
    if not path.startswith("/v1/"):
        return []
    nothing: list[dict[str, list[str]]] = [] if key_needed else [{}]
    return [*nothing, _KEY, _NODE_TOKEN] if path.startswith("/v1/blobs/") else [*nothing, _KEY]
