"""What is wrong with a job is said before anything is sent, in the words that the caller used."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from idle_accelerator.errors import IdleError, InvalidInput, TooLarge
from idle_accelerator.scheduler.api.bodies import JOB_BODY_LIMIT_BYTES
from idle_accelerator.sdk.submission import SPEC_LIMIT_BYTES, Draft, JobOptions, command_draft
from idle_accelerator.wire.ids import MAX_TASKS

COMMAND = ["python3", "job.py"]


def draft(command: Any = COMMAND, array: Any = 1, **options: Any) -> Draft:
    return command_draft(command, array=array, options=JobOptions(**options))


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: draft([]), "command"),
        (lambda: draft([""]), "command"),
        (lambda: draft("python3 job.py"), "command"),
        (lambda: draft(["a", "b\0c"]), "command[1]"),
        (lambda: draft(["a", 3]), "command[1]"),
        (lambda: draft(array=0), "array"),
        (lambda: draft(array=-1), "array"),
        (lambda: draft(array=MAX_TASKS + 1), "array"),
        (lambda: draft(array=True), "array"),
        (lambda: draft(cpus=0), "cpus"),
        (lambda: draft(cpus=-1), "cpus"),
        (lambda: draft(cpus="four"), "cpus"),
        (lambda: draft(cpus=float("nan")), "cpus"),
        (lambda: draft(memory=-1), "memory"),
        (lambda: draft(memory="1 elephant"), "memory"),
        (lambda: draft(memory="-1G"), "memory"),
        (lambda: draft(disk="1Q"), "disk"),
        (lambda: draft(disk=1.5), "disk"),
        (lambda: draft(gpus=-1), "gpus"),
        (lambda: draft(timeout="soon"), "timeout"),
        (lambda: draft(timeout=0), "timeout"),
        (lambda: draft(timeout=float("inf")), "timeout"),
        (lambda: draft(retries=-1), "retries"),
        (lambda: draft(priority=10_000), "priority"),
        (lambda: draft(os="beos"), "os"),
        (lambda: draft(name="two\nlines"), "name"),
        (lambda: draft(name="x" * 300), "name"),
        (lambda: draft(env={"A-B": "1"}), "env"),
        (lambda: draft(env={"IDLE_JOB_ID": "1"}), "env"),
        (lambda: draft(env={"A": 1}), "env"),
        (lambda: draft(env=["A=1"]), "env"),
        (lambda: draft(labels={"a": "b\nc"}), "labels"),
        (lambda: draft(outputs=["out/*.png", "../*.png"]), "outputs[1]"),
        (lambda: draft(outputs=["/etc/*"]), "outputs[0]"),
        (lambda: draft(outputs=["C:/x"]), "outputs[0]"),
        (lambda: draft(outputs="*.png"), "outputs"),
        (lambda: draft(inputs="data.csv"), "inputs"),
        (lambda: draft(inputs=["no/such/file"]), "inputs[0]"),
        (lambda: draft(inputs={"x": "no/such/file"}), "inputs['x']"),
        (lambda: draft(inputs=["a\0b"]), "inputs[0]"),
        (lambda: draft(memroy="1G"), "memroy"),
    ],
)
def test_each_mistake_is_named_by_the_callers_own_word(make: Callable[[], Draft], field: str) -> None:
    with pytest.raises(IdleError) as refused:
        make()
    assert refused.value.field == field
    assert refused.value.message


def test_a_misspelt_option_is_guessed() -> None:
    with pytest.raises(InvalidInput, match="'memory'"):
        draft(memroy="1G")


def test_units_and_requirements_arrive_in_the_spec() -> None:
    spec = draft(
        cpus=2,
        memory="1.5G",
        disk="10M",
        timeout="10m",
        gpus=1,
        os="linux",
        labels={"room": "12"},
        node="alpha",
    ).spec
    needs = spec.requirements
    assert (needs.cpus, needs.memory_bytes, needs.disk_bytes, needs.gpus) == (2, 3 << 29, 10 << 20, 1)
    assert (needs.os, needs.labels, needs.node, spec.timeout_s) == ("linux", {"room": "12"}, "alpha", 600)


def test_files_take_their_own_names_and_folders_bring_what_is_in_them(tmp_path: Path) -> None:
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "deep" / "a.csv").write_text("1")
    (tmp_path / "run.sh").write_text("#!/bin/sh")
    (tmp_path / "run.sh").chmod(0o755)
    inputs = draft(inputs=[tmp_path / "data", tmp_path / "run.sh"]).spec.inputs
    assert [(item.path, item.size_bytes) for item in inputs] == [("data/deep/a.csv", 1), ("run.sh", 9)]
    if sys.platform != "win32":
        assert [item.executable for item in inputs] == [False, True]


def test_a_mapping_gives_files_their_names_inside_the_workspace(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("1")
    assert draft(inputs={"conf/y.toml": tmp_path / "x"}).spec.inputs[0].path == "conf/y.toml"
    for name in ("../y", "/y", "a//b", "C:\\y", "line\nbreak", ""):
        with pytest.raises(InvalidInput) as refused:
            draft(inputs={name: tmp_path / "x"})
        assert refused.value.field == "inputs[0]"


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x").write_text("1")
    with pytest.raises(InvalidInput, match="'x'") as refused:
        draft(inputs=[tmp_path / "a" / "x", tmp_path / "b" / "x"])
    assert refused.value.field == "inputs"


@pytest.mark.skipif(sys.platform == "win32", reason="there are no named pipes among files there")
def test_what_is_no_ordinary_file_is_refused_instead_of_read_for_ever(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidInput, match="no ordinary file"):
        draft(inputs=[tmp_path / "pipe"])


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("1")
    (tmp_path / "secret").chmod(0)
    with pytest.raises(InvalidInput, match="may not be read"):
        draft(inputs=[tmp_path / "secret"])


def test_a_description_that_the_scheduler_would_refuse_is_refused_here() -> None:
    assert SPEC_LIMIT_BYTES == JOB_BODY_LIMIT_BYTES
    with pytest.raises(TooLarge) as refused:
        draft(["x", *["y" * 100_000] * 50])
    assert refused.value.field == "command"
