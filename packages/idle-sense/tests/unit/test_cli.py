"""The command's words, exit status and JSON."""

import json
import subprocess
import sys

import pytest

from idle_sense import cli


def test_check_in_json_has_a_state_and_reasons_with_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    status = cli.main(["check", "--policy", "server", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["state"] in ("busy", "settling", "idle")
    assert status == (0 if told["state"] == "idle" else 1)
    assert told["reasons"]
    for reason in told["reasons"]:
        assert reason["sentence"]
        assert reason["severity"] in ("hard", "soft", "policy", "info")


def test_doctor_names_every_probe_and_how_far_it_was_tried(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [capability["probe"] for capability in told["capabilities"]] == [
        "input",
        "terminals",
        "load",
        "memory",
        "power",
    ]
    assert {one["verified"] for one in told["capabilities"]} <= {"native", "emulated", "signature-only"}
    assert told["sample_us"] > 0


def test_explain_says_what_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", "--policy", "server"]) == 0
    assert "nobody sits here" in capsys.readouterr().out


def test_a_policy_without_sense_is_refused_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "--input-idle", "-3"]) == 2
    assert "input_idle_s: -3.0 is no amount." in capsys.readouterr().err


def test_watch_tells_the_first_state_at_once_and_ends_with_its_reader() -> None:
    watch = subprocess.Popen(
        [sys.executable, "-m", "idle_sense.cli", "watch", "--json", "--policy", "server"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert watch.stdout is not None
        told = json.loads(watch.stdout.readline())
        assert told["at"].endswith("Z")
        assert told["state"] in ("busy", "settling")
    finally:
        watch.terminate()
        watch.communicate(timeout=30)


def test_importing_the_library_does_not_import_what_is_seldom_needed() -> None:
    """The bound is 60 ms; modules are counted here, since time on a loaded machine says nothing."""
    program = "import sys, idle_sense; print(*sorted(m for m in sys.modules if m in {'psutil', 'jeepney', 'socket', 'argparse', 'asyncio', 'json'}))"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.split() == []
