"""Mistakes in a body are named where they stand, with what to write instead."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from idle_accelerator.errors import InvalidInput
from idle_accelerator.scheduler.api.mistakes import describe
from idle_accelerator.wire.exchange import ExchangeRequest
from idle_accelerator.wire.jobs import JobSpec
from idle_accelerator.wire.model import WireModel

PLAIN: dict[str, Any] = {"workload": {"kind": "command", "argv": ["true"]}}


def mistake(value: object, model: type[WireModel] = JobSpec) -> InvalidInput:
    raw = value if isinstance(value, str) else json.dumps(value)
    with pytest.raises(ValidationError) as caught:
        model.model_validate_json(raw)
    return describe(caught.value, model)


@pytest.mark.parametrize(
    ("value", "field", "meant"),
    [
        ({**PLAIN, "retrys": 1}, "retrys", "retries"),
        ({**PLAIN, "requirements": {"cpu": 1}}, "requirements.cpu", "cpus"),
        ({**PLAIN, "requirements": {"memory_byte": 1}}, "requirements.memory_byte", "memory_bytes"),
        ({"workload": {"kind": "command", "argv": ["x"], "arg": 1}}, "workload.arg", "argv"),
        ({**PLAIN, "inputs": [{"paths": "a"}]}, "inputs.0.path", None),
    ],
)
def test_an_unknown_field_is_named_with_its_nearest_neighbour(
    value: object, field: str, meant: str | None
) -> None:
    error = mistake(value)
    assert error.field == field
    if meant is not None:
        assert error.hint == f"Did you mean {meant!r}?"


def test_a_field_like_no_other_gets_the_list() -> None:
    error = mistake({**PLAIN, "requirements": {"zzzz": 1}})
    assert error.hint is not None
    assert "memory_bytes" in error.hint


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({**PLAIN, "tasks": 0}, "tasks"),
        ({**PLAIN, "requirements": {"memory_bytes": -1}}, "requirements.memory_bytes"),
        ({"workload": {"kind": "command", "argv": []}}, "workload.argv"),
        ({"workload": {"kind": "command", "argv": [""]}}, "workload"),
        ({"workload": {"kind": "command", "argv": ["a", 1]}}, "workload.argv.1"),
        ({**PLAIN, "outputs": ["ok", "../x"]}, "outputs.1"),
        ({**PLAIN, "env": {"A B": "x"}}, "env.A B"),
        ({**PLAIN, "env": {"command": 1}}, "env.command"),
        ({**PLAIN, "requirements": {"labels": {"kind": 1}}}, "requirements.labels.kind"),
        ({"workload": {"kind": "ship"}}, "workload"),
        ({}, "workload"),
        ([], "body"),
        ("{", "body"),
        ("", "body"),
    ],
)
def test_the_field_is_where_the_mistake_stands_in_the_json(value: object, field: str) -> None:
    assert mistake(value).field == field


def test_a_field_deep_in_a_list_is_found() -> None:
    value = {"incarnation": "a", "seq": 1, "offer": {"lending": "available", "warm": [{"slot": 1}]}}
    error = mistake(value, ExchangeRequest)
    assert error.field is not None
    assert error.field.startswith("offer.warm.0.")


def test_further_mistakes_are_counted() -> None:
    assert "2 more problem(s)" in mistake({**PLAIN, "tasks": 0, "retries": -1, "x": 1}).message
