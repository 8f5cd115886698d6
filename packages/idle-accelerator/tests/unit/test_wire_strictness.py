"""Wire models take what is meant and nothing else."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pool_builders import JOB_ID, command_spec, function_spec, node_facts, offer, succeeded
from pydantic import ValidationError

from idle_accelerator.wire.exchange import AttemptReport, ExchangeRequest, LogChunk
from idle_accelerator.wire.ids import AttemptRef, from_random
from idle_accelerator.wire.jobs import JobSpec, Requirements
from idle_accelerator.wire.model import WireModel
from idle_accelerator.wire.nodes import NodeFacts, Offer
from idle_accelerator.wire.payload import Payload
from idle_accelerator.wire.reasons import Reason
from idle_accelerator.wire.resources import Resources
from idle_accelerator.wire.texts import check_workspace_path

PLAIN: dict[str, Any] = {"workload": {"kind": "command", "argv": ["true"]}}


def read(model: type[WireModel], value: Any) -> WireModel:
    return model.model_validate_json(json.dumps(value))


def refused(model: type[WireModel], value: Any) -> list[tuple[Any, ...]]:
    with pytest.raises(ValidationError) as caught:
        read(model, value)
    return [item["loc"] for item in caught.value.errors()]


def test_every_model_comes_back_from_json_as_it_was() -> None:
    for value in (
        command_spec("a", "ä😀"),
        function_spec(3),
        node_facts(),
        offer(),
        succeeded(AttemptRef(JOB_ID, 0, 1), b"\xff\0"),
    ):
        assert type(value).model_validate_json(value.model_dump_json()) == value


@pytest.mark.parametrize("wrong", [False, True, "1", 1.5, None, [1], {}])
def test_a_count_is_an_integer_and_nothing_like_one(wrong: object) -> None:
    assert refused(JobSpec, {**PLAIN, "tasks": wrong}) == [("tasks",)]


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("tasks", 0),
        ("tasks", -1),
        ("tasks", 1_000_001),
        ("retries", -1),
        ("timeout_s", 0),
        ("timeout_s", -5),
        ("priority", 1001),
        ("name", "two\nlines"),
        ("name", "x" * 201),
        ("outputs", ["../secret"]),
        ("outputs", ["/etc/*"]),
        ("outputs", "out/*"),
        ("env", {"A": 1}),
    ],
)
def test_a_job_out_of_bounds_is_refused_at_its_field(field: str, wrong: object) -> None:
    assert {loc[0] for loc in refused(JobSpec, {**PLAIN, field: wrong})} == {field}


@pytest.mark.parametrize("wrong", [0, -1, 1e-300, 1e300])
def test_cores_are_an_amount_that_can_be_counted_with(wrong: float) -> None:
    assert refused(Requirements, {"cpus": wrong}) == [("cpus",)]


@pytest.mark.parametrize("name", ["memory_bytes", "disk_bytes", "gpus"])
def test_negative_and_endless_sizes_are_refused(name: str) -> None:
    for wrong in (-1, 1 << 63, 10**400):
        assert refused(Requirements, {name: wrong}) == [(name,)]
        assert refused(Resources, {name: wrong}) == [(name,)]


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        JobSpec.model_validate_json('{"workload":{"kind":"command","argv":["x"]},"timeout_s":' + text + "}")


def test_unknown_fields_are_refused_at_every_depth() -> None:
    assert refused(JobSpec, {**PLAIN, "tusks": 1}) == [("tusks",)]
    assert refused(JobSpec, {**PLAIN, "requirements": {"cpu": 1}}) == [("requirements", "cpu")]
    workload = {**PLAIN["workload"], "shell": True}
    assert refused(JobSpec, {"workload": workload}) == [("workload", "command", "shell")]


@pytest.mark.parametrize("argv", [[], [""], ["a\0b"], "true", [1], None])
def test_a_command_names_a_program(argv: object) -> None:
    refused(JobSpec, {"workload": {"kind": "command", "argv": argv}})


@pytest.mark.parametrize(
    "path",
    [
        "a",
        "a/b.txt",
        "out/*.png",
        "**/*.csv",
        "ä/日本/😀.txt",
        "a b",
        "测试\u3000一.txt",
        "👩\u200d🔬.png",
        ".hidden",
        "a..b",
        "...a",
        "12:30.csv",
        "a" * 1000,
    ],
)
def test_paths_inside_the_workspace_are_taken(path: str) -> None:
    assert check_workspace_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/etc/passwd",
        "..",
        "../a",
        "a/../../b",
        "a/..",
        "./a",
        "a//b",
        "a/",
        "a\\b",
        "..\\a",
        "C:",
        "C:/x",
        "c:x",
        "a/C:/x",
        "\\\\server\\share",
        "//server/share",
        ".. ",
        ".. /a",
        "a/.. ./b",
        "...",
        " ",
        "a\nb",
        "a\0b",
        "a\u202eb",
        "a\u2028b",
        "a\x7fb",
        "\ufeffa",
    ],
)
def test_paths_that_leave_the_workspace_on_any_system_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="must"):
        check_workspace_path(path)


@given(st.text(max_size=30) | st.text(alphabet="./\\ aC:*", max_size=12))
def test_no_accepted_path_leaves_the_workspace(path: str) -> None:
    import ntpath
    import posixpath

    try:
        check_workspace_path(path)
    except ValueError:
        return
    assert posixpath.normpath(posixpath.join("/w/s", path)).startswith("/w/s/")
    trimmed = "/".join(part.rstrip(". ") for part in path.split("/"))  # as Windows reads names
    assert ntpath.normpath(ntpath.join("c:\\w\\s", trimmed)).startswith("c:\\w\\s\\")


@pytest.mark.parametrize("name", ["", "A B", "1A", "A-B", "A=B", "Ä", "IDLE_JOB_ID", "IDLE_", "A\n", "A\0"])
def test_variables_have_portable_names_and_none_of_ours(name: str) -> None:
    refused(JobSpec, {**PLAIN, "env": {name: "x"}})


def test_ordinary_variables_are_taken_with_any_value_but_nul() -> None:
    read(JobSpec, {**PLAIN, "env": {"A_1": "two\nlines ä", "_x": ""}})
    refused(JobSpec, {**PLAIN, "env": {"A": "a\0b"}})


@pytest.mark.parametrize("name", ["😀", "👨‍👩‍👧 family", "测试\u3000一", "a\u00a0b", ""])
def test_names_may_be_in_any_script(name: str) -> None:
    assert read(JobSpec, {**PLAIN, "name": name}).name == name


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "a\tb", "a\x1b[31mb", "a\u202eb", "a\u2029b", "\0"])
def test_names_hold_nothing_that_fools_a_terminal(name: str) -> None:
    assert refused(JobSpec, {**PLAIN, "name": name}) == [("name",)]


def test_two_inputs_of_one_path_are_refused() -> None:
    one = {"path": "a", "digest": "0" * 64, "size_bytes": 1}
    refused(JobSpec, {**PLAIN, "inputs": [one, one]})


def test_a_payload_is_inline_or_a_blob_and_as_long_as_it_says() -> None:
    refused(Payload, {"size_bytes": 0})
    refused(Payload, {"inline": "YQ==", "blob": "0" * 64, "size_bytes": 1})
    refused(Payload, {"inline": "YQ==", "size_bytes": 2})
    refused(Payload, {"inline": "not base64!", "size_bytes": 2})
    assert read(Payload, {"inline": "YQ==", "size_bytes": 1}).inline == b"a"


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("task_index", -1),
        ("task_index", 1 << 64),
        ("epoch", 0),
        ("epoch", 1 << 64),
        ("exit_code", 1 << 64),
        ("state", "DONE"),
        ("job_id", "x"),
    ],
)
def test_a_report_stays_within_what_the_store_can_hold(field: str, wrong: object) -> None:
    plain = {"job_id": JOB_ID, "task_index": 0, "epoch": 1, "state": "RUNNING"}
    read(AttemptReport, plain)
    refused(AttemptReport, {**plain, field: wrong})


def test_an_exchange_of_endless_numbers_is_refused() -> None:
    plain = {"incarnation": "a", "seq": 1, "offer": {"lending": "available"}}
    read(ExchangeRequest, plain)
    refused(ExchangeRequest, {**plain, "seq": 1 << 64})
    refused(ExchangeRequest, {**plain, "holding": [{"job_id": JOB_ID, "attempts": [[0, 1 << 64]]}]})
    chunk = {"job_id": JOB_ID, "task_index": 0, "epoch": 1, "stream": "stdout", "data": "YQ=="}
    read(LogChunk, {**chunk, "offset": 0})
    refused(LogChunk, {**chunk, "offset": 1 << 64})
    refused(LogChunk, {**chunk, "offset": -1})


def test_a_node_cannot_flood_its_offer_or_its_facts() -> None:
    why = {"code": "a.b"}
    read(Offer, {"lending": "in_use", "reasons": [why] * 50})
    refused(Offer, {"lending": "in_use", "reasons": [why] * 51})
    facts = json.loads(node_facts().model_dump_json())
    refused(NodeFacts, {**facts, "idleness": ["x"] * 101})
    refused(Reason, {"code": "a.b", "params": {"age_s": 10**400}})
    refused(Reason, {"code": "NOT A CODE"})


@given(st.binary(min_size=10, max_size=20))
def test_ids_are_of_one_form(random_bytes: bytes) -> None:
    for letter in "jn":
        made = from_random(letter, random_bytes)
        assert len(made) == 17
        assert made[0] == letter
        assert set(made[1:]) <= set("abcdefghijklmnopqrstuvwxyz234567")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("requirements", {"network": {"hosts": ["pypi.org"]}}, "has no network"),
        ("environment", {"requirements": "six==1.17.0"}, "runs without Python"),
    ],
)
def test_a_module_is_not_promised_what_it_cannot_have(field: str, value: object, said: str) -> None:
    module = {"path": "app.wasm", "digest": "a" * 64, "size_bytes": 1}
    plain = {"workload": {"kind": "wasm", "module": "app.wasm"}, "inputs": [module]}
    assert JobSpec.model_validate_json(json.dumps(plain)).workload.kind == "wasm"
    with pytest.raises(ValidationError, match=said):
        JobSpec.model_validate_json(json.dumps({**plain, field: value}))
