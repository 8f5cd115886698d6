"""The command's words, exit status and JSON."""

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from idle_sense import Policy, cli
from idle_sense.probes.bundle import FACTS


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
    assert [probe["fact"] for probe in told["probes"]] == list(FACTS)
    for probe in told["probes"]:
        assert probe["verified"] in ("native", "emulated", "signature-only")
        assert probe["how"] in ("event", "poll")
        assert probe["cost_us"] > 0
        assert probe["status"] == "serves" or probe["advice"] or probe["problem"]
    assert told["sample_us"] > 0


def test_doctor_is_a_table_that_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--policy", "server"]) == 0
    lines = capsys.readouterr().out.splitlines()
    heading = next(line for line in lines if line.startswith("fact "))
    assert heading.split() == ["fact", "status", "how", "cost", "verified", "back", "end"]
    rows = lines[lines.index(heading) + 1 :][: len(FACTS)]
    assert [row.split()[0] for row in rows] == list(FACTS)
    column = heading.index("how")
    assert {row[column:].split()[0] for row in rows} <= {"event", "poll"}


def test_explain_says_what_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", "--policy", "server"]) == 0
    assert "nobody sits here" in capsys.readouterr().out


def test_a_policy_without_sense_is_refused_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "--input-idle", "-3"]) == 2
    assert "input_idle_s: -3.0 is no amount." in capsys.readouterr().err


def test_watch_tells_the_first_state_at_once_and_ends_with_its_reader() -> None:
    watch = subprocess.Popen(
        [sys.executable, "-m", "idle_sense.cli", "watch", "--json", "--no-history", "--policy", "server"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert watch.stdout is not None
        told = json.loads(watch.stdout.readline())
        assert datetime.fromisoformat(told["at"]).tzinfo is not None
        assert told["state"] in ("busy", "settling")
    finally:
        watch.terminate()
        watch.communicate(timeout=30)


def test_importing_the_library_does_not_import_what_is_seldom_needed() -> None:
    """The bound is 60 ms; modules are counted here, since time on a loaded machine says nothing."""
    program = "import sys, idle_sense; print(*sorted(m for m in sys.modules if m in {'psutil', 'jeepney', 'socket', 'argparse', 'asyncio', 'json'}))"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.split() == []


def test_explain_in_json_has_evidence_for_every_fact(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {item["fact"] for item in told["evidence"]} >= {"load", "memory", "power", "calls"}
    for item in told["evidence"]:
        assert item["speaks"] in ("busy", "idle", "nothing")
        assert item["sentence"]
        assert item["source"]
        assert item["age_s"] >= 0
    assert Policy.from_toml(told["policy"]) == Policy.desktop()


def test_a_policy_may_be_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('based_on = "server"\nname = "mine"\n', encoding="utf-8")
    assert cli.main(["doctor", "--json", "--policy", str(file)]) == 0
    assert json.loads(capsys.readouterr().out)["policy"] == "mine"
    file.write_text('\ninput_idel = "5 min"\n', encoding="utf-8")
    assert cli.main(["check", "--policy", str(file)]) == 2
    error = capsys.readouterr().err
    assert "line 2: input_idel: there is no such field; did you mean input_idle?" in error
    assert cli.main(["check", "--policy", str(tmp_path / "none.toml")]) == 2
    assert "Name one of desktop, server, lab, or a TOML file." in capsys.readouterr().err


def test_times_may_have_units_and_what_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli._time("90") == 90.0
    assert cli._time("1 h 30 min") == 5400.0
    with pytest.raises(SystemExit) as caught:
        cli.main(["check", "--input-idle", "soon"])
    assert caught.value.code == 2
    assert "is no time" in capsys.readouterr().err


def test_what_is_recorded_can_be_judged_again_under_another_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "monday.trace"
    arguments = ["record", str(file), "--for", "0.3", "--every", "0.1", "--policy", "server", "--json"]
    assert cli.main(arguments) == 0
    count = json.loads(capsys.readouterr().out)["snapshots"]
    assert count >= 2
    assert cli.main(arguments) == 2, "a file is not written over"
    assert "monday.trace" in capsys.readouterr().err
    for policy, name in (([], "server"), (["--policy", "lab"], "lab")):
        assert cli.main(["replay", str(file), "--json", *policy]) == 0
        *verdicts, summary = (json.loads(line) for line in capsys.readouterr().out.splitlines())
        assert verdicts[0]["after_s"] == 0
        assert (summary["policy"], summary["snapshots"]) == (name, count)
    assert cli.main(["replay", str(file)]) == 0
    assert f"{count} snapshots in " in capsys.readouterr().out
    assert cli.main(["replay", str(tmp_path / "none.trace")]) == 2
    file.write_text("no trace\n", encoding="utf-8")
    assert cli.main(["replay", str(file)]) == 2
    assert "line 1" in capsys.readouterr().err


def test_a_forecast_tells_horizons_and_confidences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("XDG_STATE_HOME", "HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path))
    arguments = ["forecast", "--policy", "server", "--horizon", "30 min", "--confidence", "0.8"]
    assert cli.main([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    ((horizon_s, share),) = told["stays"]
    assert horizon_s == 1800
    assert 0 < share < 1
    assert told["basis"] == "prior"
    assert cli.main(arguments) == 0
    assert "stays idle for 30 min" in capsys.readouterr().out
    assert cli.main(["forecast", "--horizon", "-5"]) == 2
    assert list(tmp_path.iterdir()) == [], "a look writes nothing"


@pytest.mark.parametrize("command", ["check", "watch", "explain", "doctor", "forecast", "record", "replay"])
def test_every_command_shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    told = capsys.readouterr().out
    assert f"example:\n  idle-sense {command}" in told
    assert "--json" in told


def test_idle_for_is_what_the_last_input_tells() -> None:
    from idle_sense import Reason, Severity, State, Verdict

    reason = Reason(code="idle.input", severity=Severity.INFO, params={"age_s": 1000.0})
    verdict = Verdict(state=State.IDLE, reasons=(reason,), memory_short=False, since_s=0.0)
    assert cli._idle_for_s(verdict, Policy.desktop()) == 690.0
