"""WebAssembly jobs on their way: what is checked before anything is sent, and which nodes they and others may go to."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from idle_accelerator.cli.submit import module_named_by
from idle_accelerator.core.match import lasting_mismatches
from idle_accelerator.errors import InvalidInput
from idle_accelerator.scheduler.store.rows import summary
from idle_accelerator.scheduler.store.waiting import requirements_of
from idle_accelerator.sdk.functions import payload_of
from idle_accelerator.sdk.submission import command_draft, function_draft
from idle_accelerator.wire.jobs import Command, Function, InputFile, JobSpec, Requirements, Wasm
from idle_accelerator.wire.nodes import NodeFacts
from idle_accelerator.wire.resources import Resources

MODULE = b"\0asm\1\0\0\0"


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "app.wasm"
    path.write_bytes(MODULE)
    return path


def facts(**fields: str) -> NodeFacts:
    return NodeFacts(
        name="n", os="linux", arch="x86_64", python="3.11", resources=Resources(cpus=8), **fields
    )


def codes(requirements: Requirements, node: NodeFacts) -> list[str]:
    return [item.code for item in lasting_mismatches(requirements, node, node_id="n1")]


def test_a_module_goes_along_as_an_input_under_its_own_name(module: Path) -> None:
    draft = command_draft(["a", "b"], array=3, options={"wasm": module})
    assert draft.spec.workload == Wasm(module="app.wasm", arguments=("a", "b"))
    assert [file.path for file in draft.files] == ["app.wasm"]
    assert draft.spec.tasks == 3


def test_a_module_that_is_among_the_inputs_already_keeps_the_name_that_it_has_there(module: Path) -> None:
    draft = command_draft([], array=1, options={"wasm": str(module), "inputs": {"bin/x.wasm": module}})
    assert draft.spec.workload == Wasm(module="bin/x.wasm")
    assert [file.path for file in draft.files] == ["bin/x.wasm"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"MZ", "no WebAssembly"),
        (b"\0asm\x0d\0\1\0", "component"),
        (b"", "no WebAssembly"),
        (None, "No such file"),
    ],
    ids=["a program of Windows", "a component", "empty", "absent"],
)
def test_what_no_node_could_run_is_refused_with_the_argument_named(
    content: bytes | None, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.wasm"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidInput, match=said) as caught:
        command_draft([], array=1, options={"wasm": path})
    assert caught.value.field == "wasm"
    assert caught.value.hint


def test_wrong_arguments_of_a_module_are_named_as_the_command(module: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        command_draft(["a\0b"], array=1, options={"wasm": module})
    assert caught.value.field == "command[0]"


def test_a_function_is_no_module(module: Path) -> None:
    function = Function(code=payload_of(b"x"), arguments=payload_of(b"x"), python="3.11")
    with pytest.raises(InvalidInput) as caught:
        function_draft(function, tasks=1, options={"wasm": module})
    assert caught.value.field == "wasm"


def test_a_module_has_to_be_among_the_inputs() -> None:
    with pytest.raises(ValidationError, match="none of the input files"):
        JobSpec(workload=Wasm(module="x.wasm"))


def test_a_command_that_begins_with_a_module_is_one_and_no_other(
    module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(module.parent)
    assert module_named_by(["app.wasm", "1"]) == (Path("app.wasm"), ["1"])
    Path("script.wasm").write_text("#!/bin/sh\n")
    for words in (["python3", "app.wasm"], ["script.wasm"], ["absent.wasm"], []):
        assert module_named_by(words) == (None, words)


def test_modules_go_only_where_something_runs_them_and_others_not_where_nothing_else_runs() -> None:
    spec = JobSpec(
        workload=Wasm(module="x.wasm", arguments=("7",)),
        inputs=(InputFile(path="x.wasm", digest="0" * 64, size_bytes=8),),
    )
    wanted = requirements_of(spec)
    plain = requirements_of(JobSpec(workload=Command(argv=("true",))))
    assert codes(wanted, facts()) == ["match.wasm"]
    assert codes(wanted, facts(wasm="wasmtime 50.0.1")) == []
    assert codes(wanted, facts(wasm="wasmtime 50.0.1", sandbox_tier="wasm")) == []
    assert codes(plain, facts(wasm="wasmtime 50.0.1", sandbox_tier="wasm")) == ["match.only_wasm"]
    assert codes(plain, facts()) == []
    assert summary(spec) == "x.wasm 7"


def test_what_is_not_said_of_webassembly_is_not_on_the_wire() -> None:
    spec = JobSpec(workload=Command(argv=("true",)))
    assert "wasm" not in spec.model_dump_json(exclude_defaults=True)
    assert JobSpec.model_validate_json(spec.model_dump_json()) == spec
