"""What `idlectl up` and `--wait` show while they stay."""

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from idle_accelerator.cli import front, waiting
from idle_accelerator.cli.front import NodeLine, Picture
from idle_accelerator.cli.stopping import Stopped
from idle_accelerator.wire.jobs import JobView, TaskCounts
from idle_accelerator.wire.reasons import ReasonView
from idle_accelerator.wire.states import JobState

SENTENCE = (
    "in use (key pressed 4 s ago); lent after 5 min without input; to lend it now: idlectl lend --for 10m"
)


def node(name="alpha", lending="in_use", running=0, sentence=SENTENCE):
    return NodeLine(name=name, lending=lending, running=running, sentence=sentence)


def drawn(picture, width=60):
    screen = io.StringIO()
    Console(file=screen, width=width, highlight=False, markup=False).print(front.drawing(picture))
    return screen.getvalue()


def view(*, queued=1, active=0, succeeded=0, waits=()):
    return JobView(
        job_id="j" + "a" * 16,
        name="",
        kind="command",
        summary="x",
        state=JobState.QUEUED,
        priority=0,
        counts=TaskCounts(
            total=queued + active + succeeded,
            queued=queued,
            active=active,
            succeeded=succeeded,
            failed=0,
            cancelled=0,
        ),
        submitted_at=datetime(2026, 11, 24, tzinfo=UTC),
        waiting=tuple(ReasonView(code="wait.node", sentence=text) for text in waits),
    )


def test_the_whole_sentence_is_seen_however_narrow_the_terminal_is():
    shown = drawn(Picture(nodes=(node(),), queued_jobs=1))
    assert " ".join(SENTENCE.split()) in " ".join(shown.split())
    assert "0 jobs running, 1 job waiting · Ctrl-C stops everything." in shown


def test_many_machines_are_cut_and_counted():
    shown = drawn(Picture(nodes=tuple(node(f"n{number}", "available", 2, "idle") for number in range(20))))
    assert "n7  available, runs 2" in shown
    assert "n8" not in shown
    assert "… and 12 more: idlectl nodes" in shown


def test_trouble_is_shown_instead_of_old_news():
    assert drawn(Picture(trouble="the scheduler does not answer.")).startswith(
        "the scheduler does not answer."
    )


class Pictures:
    """A pool that looks different each time; then somebody wants to stop."""

    def __init__(self, *pictures):
        self._left = list(pictures)
        self.picture = self._left.pop(0)

    def pause(self, _seconds, _watch):
        if not self._left:
            raise Stopped
        self.picture = self._left.pop(0)


def test_without_a_terminal_a_line_is_written_only_when_something_changed(capsys):
    pool = Pictures(
        Picture(trouble="looking …"),
        Picture(nodes=(node(sentence="key pressed 1 s ago"),)),
        Picture(nodes=(node(sentence="key pressed 3 s ago"),)),
        Picture(nodes=(node(lending="available", sentence="idle\x1b[2J"),), active_jobs=1),
        Picture(active_jobs=1),
    )
    with pytest.raises(Stopped):
        front._write(pool, pool, lambda: None)
    lines = [line.split(" ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "alpha: in_use: key pressed 1 s ago",
        "no job in the pool",
        "alpha: available: idle␛[2J",
        "1 job running, 0 jobs waiting",
        "alpha: gone",
    ]


def test_the_nearest_reason_is_said_and_the_others_counted():
    assert waiting.why_waiting(view()) == ""
    assert waiting.why_waiting(view(waits=("alpha: in\nuse",))) == "waits: alpha: in use"
    assert waiting.why_waiting(view(waits=("a", "b", "c"))) == "waits: a (and 2 more: idlectl job jaaaaaaa)"


def test_in_a_pipe_a_reason_is_said_once_though_ages_in_it_grow(capsys):
    lines = waiting._Lines()
    for why in ("waits: key pressed 4 s ago", "waits: key pressed 1.5 min ago", "waits: paused", ""):
        lines.show(view(), why)
    assert capsys.readouterr().err.splitlines() == ["waits: key pressed 4 s ago", "waits: paused"]


def test_in_a_pipe_progress_is_said_when_tasks_end_but_not_all_the_time(capsys):
    lines = waiting._Lines()
    lines.show(view(queued=3), "")
    lines.show(view(queued=1, active=1, succeeded=1), "")
    lines.show(view(active=1, queued=0, succeeded=2), "")
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == 1
    assert shown[0].startswith("1 of 3 tasks done after ")
    assert shown[0].endswith("1 running, 1 waiting")


def test_a_bar_is_drawn_and_taken_away_on_a_terminal(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(
        waiting,
        "console",
        lambda **_: Console(file=screen, force_terminal=True, width=80, highlight=False, markup=False),
    )
    bar = waiting._Bar()
    bar.show(view(queued=1, active=1, succeeded=2), "waits: alpha: paused")
    bar.close()
    assert "2/4" in screen.getvalue()
    assert "1 running, 1 waiting" in screen.getvalue()
    assert "waits: alpha: paused" in screen.getvalue()
