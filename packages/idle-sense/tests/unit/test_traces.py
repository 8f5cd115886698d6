"""Recorded traces: what they hold, how they are read, and what is wrong with broken ones."""

import io
import json
import math
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from idle_sense import Monitor, Policy, State
from idle_sense.decision import Memory, decide
from idle_sense.errors import InvalidTrace
from idle_sense.facts import (
    Calls,
    Load,
    Media,
    MemoryUse,
    Power,
    Reading,
    Seat,
    Session,
    Terminal,
)
from idle_sense.quiet_hours import QuietHours
from idle_sense.testing import ScriptedClock, ScriptedProbes
from idle_sense.trace_names import Names
from idle_sense.traces import Recorder, Trace, record, replay
from idle_sense.types import Snapshot

LOCAL = datetime.fromisoformat("2026-11-02T12:00:00+01:00")


def snapshot(now_s: float = 1000.0, **changes: object) -> Snapshot:
    facts = {
        "seats": Reading(
            value=(Seat(name=":0", idle_s=Reading(value=900.0 + now_s, source="x11 :0")),), source="x11"
        ),
        "terminals": Reading(value=(), source="utmp"),
        "load": Reading(value=Load(others_ratio=0.02), source="/proc/stat"),
        "memory": Reading(value=MemoryUse(total_bytes=16 << 30, available_bytes=12 << 30), source="memory"),
        "power": Reading(value=Power(battery=False, on_mains=None), source="power"),
        "local": LOCAL + timedelta(seconds=now_s),
    }
    return Snapshot(now_s=now_s, **(facts | changes))


def lines(*snapshots: Snapshot, policy: Policy | None = None, names: Names | None = None) -> list[str]:
    stream = io.StringIO()
    recorder = Recorder(stream, policy or Policy.desktop(), names=names or Names(), digits=None)
    for one in snapshots:
        recorder.write(one)
    return stream.getvalue().splitlines(keepends=True)


def test_a_trace_reads_back_and_only_changes_are_written() -> None:
    told = [snapshot(1000.0 + second) for second in range(600)]
    written = lines(*told)
    assert list(Trace(written)) == told
    assert len(written) == 601
    assert sum(map(len, written[2:])) / 599 < 160, "bytes a second"


def test_a_snapshot_that_is_the_same_is_an_empty_change() -> None:
    written = lines(snapshot(), snapshot())
    assert written[2] == "{}\n"
    assert list(Trace(written)) == [snapshot(), snapshot()]


def test_the_header_holds_the_policy_and_the_system() -> None:
    policy = Policy(
        name="mine",
        input_idle_s=77.0,
        quiet_hours=(QuietHours.parse("mon-fri 09:00-17:00"),),
        ignore_programs=("surveillance",),
    )
    assert '"grace_s":10.0' in lines(policy=policy)[0], "defaults may be others one day"
    header = Trace(lines(policy=policy)).header
    assert header.policy == policy
    assert header.system
    assert header.idle_sense


def test_a_replay_gives_the_verdicts_that_were_given_and_those_of_another_policy() -> None:
    clock, probes = ScriptedClock(), ScriptedProbes()
    monitor = Monitor(Policy.lab(), clock=clock, probes=probes.probes)
    stream, verdicts = io.StringIO(), []
    recorder = Recorder(stream, monitor.policy, names=Names(), digits=None)
    probes.input_idle_s = 0.0
    for second in range(400):
        if second == 380:
            probes.input_idle_s = 0.0
        verdicts.append(monitor.check())
        assert monitor.snapshot is not None
        recorder.write(monitor.snapshot)
        probes.pass_time(clock, 1.0)
    written = stream.getvalue().splitlines(keepends=True)
    assert [verdict for _, verdict in replay(Trace(written))] == verdicts
    assert {verdict.state for verdict in verdicts} >= {State.BUSY, State.IDLE}
    desktop = [verdict.state for _, verdict in replay(Trace(written), Policy.desktop())]
    assert 0 < desktop.count(State.IDLE) < sum(verdict.state is State.IDLE for verdict in verdicts)


def test_record_looks_as_often_as_it_is_told_and_stops() -> None:
    clock, probes = ScriptedClock(), ScriptedProbes()
    monitor = Monitor(Policy.server(), clock=clock, probes=probes.probes)
    stream = io.StringIO()
    count = record(
        monitor,
        Recorder(stream, monitor.policy),
        seconds=10.0,
        every_s=2.0,
        clock_s=clock.monotonic_s,
        wait=clock.advance,
    )
    told = list(Trace(stream.getvalue().splitlines(keepends=True)))
    assert count == len(told) == 6
    assert told[-1].now_s - told[0].now_s == pytest.approx(10.0)


def test_the_last_line_may_be_cut_anywhere() -> None:
    """A killed recorder."""
    written = lines(snapshot(1000.0), snapshot(1001.0), snapshot(1002.0))
    for keep in range(len(written[3]) - 1):
        trace = Trace([*written[:3], *([written[3][:keep]] if keep else [])])
        assert list(trace) == [snapshot(1000.0), snapshot(1001.0)]
        assert trace.cut is (keep > 0)
    whole = Trace([*written[:3], written[3].rstrip("\n")])
    assert len(list(whole)) == 3, "only its line end is missing"
    assert not whole.cut


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("\n", "no JSON"),
        ("{\n", "no JSON"),
        ("[1]\n", "no object"),
        ('{"now_s":"late"}\n', "now_s is 'late', no float"),
        ('{"now_s":true}\n', "now_s is True, no float"),
        ('{"keys":"secret"}\n', "has keys, which nobody here knows"),
        ('{"load":{"value":{"others_ratio":"much"}}}\n', "load.value.others_ratio is 'much'"),
        ('{"seats":{"value":{"7":{"name":"x"}}}}\n', "there is no item 7"),
        ('{"seats":{"value":{"0":{"name":5}}}}\n', r"seats.value\[0\].name is 5, no str"),
        ('{"-":["load"]}\n', "is not whole"),
        ('{"-":5}\n', "no list"),
        ('{"local":"yesterday"}\n', "local: "),
        ('{"memory":{"value":{"total_bytes":1.5}}}\n', "memory.value.total_bytes is 1.5, no int"),
        ('{"thermal":{"value":{"hottest_c":1.0,"pressure":"awful"},"source":"x"}}\n', "pressure is 'awful'"),
        ("[" * 100_000 + "\n", "no JSON"),
    ],
)
def test_a_broken_line_is_named(line: str, says: str) -> None:
    trace = Trace([*lines(snapshot()), line, *lines(snapshot())[1:]])
    with pytest.raises(InvalidTrace, match=says) as raised:
        list(trace)
    assert raised.value.line == 3
    assert str(raised.value).startswith("line 3: ")


@pytest.mark.parametrize(
    ("first", "says"),
    [
        ([], "no trace"),
        (["\n"], "no JSON"),
        (["hello\n"], "no JSON"),
        (["{}\n"], "no trace"),
        (['{"format":"idle-sense trace","version":9}\n'], "version 9"),
        (['{"format":"idle-sense trace","version":1}\n'], "not whole"),
        (['{"format":"idle-sense trace","version":1,"policy":{"input_idle_s":-5}}\n'], "input_idle_s"),
        (['{"format":"idle-sense trace"'], "no trace"),
    ],
)
def test_a_file_that_is_no_trace_is_refused_at_its_first_line(first: list[str], says: str) -> None:
    with pytest.raises(InvalidTrace, match=says) as raised:
        Trace(first)
    assert raised.value.line == 1


def test_a_file_without_line_ends_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(InvalidTrace):
        Trace.open(path)


def test_numbers_that_json_has_no_word_for_come_through() -> None:
    odd = snapshot(
        paused_for_s=math.inf, jumped_s=-math.inf, load=Reading(value=Load(others_ratio=math.nan), source="x")
    )
    written = lines(odd)
    for line in written:
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    (again,) = Trace(written)
    assert (again.paused_for_s, again.jumped_s) == (math.inf, -math.inf)
    assert again.load.value is not None
    assert math.isnan(again.load.value.others_ratio or 0.0)


def test_people_programs_and_other_machines_are_numbers() -> None:
    session = Session(name="3 of anna on seat0", user="anna", remote=False, active=True, locked=False)
    told = snapshot(
        sessions=Reading(value=(session,), source="logind"),
        terminals=Reading(
            value=(
                Terminal(name="pts/3", idle_s=900.0, user="anna"),
                Terminal(name="pts/4", idle_s=900.0, user="bob", host="laptop-of-bob.example.org"),
            ),
            source="utmp",
        ),
        calls=Reading(
            value=Calls(microphones=("Zoom", "surveillance"), cameras=("/dev/video0", "Zoom")), source="pw"
        ),
        media=Reading(value=Media(playing=("Spotify",), inhibitors=("Zoom",)), source="mpris"),
        power=Reading.missing("power", "cannot open /home/anna/x as anna", "ask bob"),
    )
    policy = Policy(ignore_programs=("surveillance",))
    names = Names(people=["anna"], folders=["/home/anna"], kept=policy.ignore_programs)
    written = "".join(lines(told, policy=policy, names=names)[1:])
    for secret in ("anna", "bob", "Zoom", "Spotify", "example"):
        assert secret not in written
    (again,) = Trace(lines(told, policy=policy, names=names))
    assert again.calls.value == Calls(
        microphones=("program 1", "surveillance"), cameras=("/dev/video0", "program 1")
    )
    assert again.media.value == Media(playing=("program 2",), inhibitors=("program 1",))
    assert [terminal.user for terminal in again.terminals.value or ()] == ["user 1", "user 2"]
    assert again.power.problem == "cannot open ~/x as user 1"
    assert again.power.advice == "ask user 2"
    assert [seat.name for seat in again.seats.value or ()] == [":0"]
    hidden, _ = decide(again, policy, Memory())
    plain, _ = decide(told, policy, Memory())
    assert (hidden.state, hidden.codes) == (plain.state, plain.codes)


def test_a_recorder_replaces_no_file_and_lets_only_the_user_read(tmp_path: Path) -> None:
    path = tmp_path / "monday.trace"
    with Recorder.create(path, Policy.desktop()) as recorder:
        recorder.write(snapshot())
        assert len(list(Trace.open(path))) == 1, "each line is out at once"
    assert path.stat().st_mode & 0o077 == 0
    with pytest.raises(FileExistsError):
        Recorder.create(path, Policy.desktop())
    assert len(list(Trace.open(path))) == 1
