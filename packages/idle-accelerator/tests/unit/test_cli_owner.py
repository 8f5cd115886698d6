"""The owner's word, against a scripted agent that speaks through its files as the real one does."""

import os
import threading
import time

import pytest

from idle_accelerator import locks
from idle_accelerator.agent import control
from idle_accelerator.cli import main, owner

WHOLE_ID = "j" + "a" * 16


class ScriptedAgent:
    """Holds the lock of its data directory, acts on words, and says so. ``deaf``: it never does."""

    def __init__(self, data_dir, *, name, deaf=False):
        data_dir.mkdir(parents=True)
        self.data_dir = data_dir
        self.name = name
        self._lock = locks.take(data_dir / control.LOCK_FILE)
        self._registration = control.register(data_dir, name=name, scheduler_url="http://127.0.0.1:1")
        self._registration = self._registration.rename(self._registration.with_name(f"{name}.json"))
        self._ended = threading.Event()
        if not deaf:
            threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        while not self._ended.wait(0.01):
            given = control.read_word(self.data_dir)
            lending = {None: "available", "lend": "lent", "pause": "paused"}[given.word and given.word.kind]
            status = control.AgentStatus(
                pid=os.getpid(),
                word_id=given.word_id,
                lending=lending,
                sentences=("because\x1b[2J",),
                running=2 if lending == "paused" else 0,
                frozen=1,
                node_id="n" + "a" * 16,
                name=self.name,
                scheduler_url="http://127.0.0.1:1",
                connected=True,
                updated_at_s=time.time(),
            )
            control.write_status(self.data_dir, status)

    def close(self):
        self._ended.set()
        self._lock.close()


@pytest.fixture(autouse=True)
def registry(tmp_path, monkeypatch):
    monkeypatch.setattr(control, "_registry", lambda: tmp_path / "registry")


@pytest.fixture
def start_agent(tmp_path):
    started = []

    def start(name, *, folder=None, **options):
        agent = ScriptedAgent(tmp_path / (folder or name), name=name, **options)
        started.append(agent)
        return agent

    yield start
    for agent in started:
        agent.close()


def test_lending_says_until_when_and_what_the_agent_makes_of_it(start_agent, capsys):
    agent = start_agent("alpha")
    assert main(["lend", "--for", "10m"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("alpha: lent by your word for 10 min (until ")
    assert shown.err == "  now lent: because␛[2J\n"
    word = control.read_word(agent.data_dir).word
    assert word == control.OwnerWord(kind="lend", for_s=600.0)


def test_lending_without_an_end_ends_after_an_hour(start_agent):
    agent = start_agent("alpha")
    assert main(["lend"]) == 0
    assert control.read_word(agent.data_dir).word == control.OwnerWord(kind="lend", for_s=3600.0)


def test_lending_can_be_to_named_jobs_only(start_agent, capsys):
    agent = start_agent("alpha")
    assert main(["lend", "--for", "90s", "--job", WHOLE_ID]) == 0
    assert control.read_word(agent.data_dir).word == control.OwnerWord(
        kind="lend", for_s=90.0, jobs=(WHOLE_ID,)
    )
    assert "lent to jaaaaaaa only by your word" in capsys.readouterr().out


def test_pausing_holds_until_resumed_and_says_what_is_frozen(start_agent, capsys):
    agent = start_agent("alpha")
    assert main(["pause"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "alpha: paused until you type: idlectl resume\n"
    assert "now paused, holds 2, 1 of them frozen" in shown.err
    assert control.read_word(agent.data_dir).word == control.OwnerWord(kind="pause", for_s=None)
    assert main(["resume"]) == 0
    assert control.read_word(agent.data_dir).word is None


def test_a_word_goes_to_every_agent_of_this_machine(start_agent):
    agents = [start_agent("alpha"), start_agent("beta")]
    assert main(["pause", "--for", "1h"]) == 0
    assert {control.read_word(agent.data_dir).word for agent in agents} == {
        control.OwnerWord(kind="pause", for_s=3600.0)
    }


def test_a_data_directory_names_one_agent_also_when_up_keeps_it_one_level_below(start_agent, tmp_path):
    alpha, beta, below = start_agent("alpha"), start_agent("beta"), start_agent("gamma", folder="pool/agent")
    assert main(["pause", "--data-dir", str(alpha.data_dir)]) == 0
    assert main(["pause", "--data-dir", str(tmp_path / "pool")]) == 0
    assert control.read_word(alpha.data_dir).word is not None
    assert control.read_word(beta.data_dir).word is None
    assert control.read_word(below.data_dir).word is not None


@pytest.mark.parametrize("arguments", [["lend"], ["pause"], ["resume"], ["pause", "--data-dir", "elsewhere"]])
def test_without_an_agent_the_owner_learns_how_to_start_one(arguments, capsys):
    assert main(arguments) == 1
    shown = capsys.readouterr().err
    assert "no agent of yours runs" in shown
    assert "hint: Start one: idlectl up" in shown


def test_an_agent_that_does_not_react_is_named(start_agent, capsys, monkeypatch):
    monkeypatch.setattr(owner, "_APPLY_S", 0.1)
    start_agent("alpha", deaf=True)
    assert main(["pause"]) == 1
    assert "error: alpha: the agent in" in capsys.readouterr().err


@pytest.mark.parametrize("duration", ["0", "400d", "99999999999999d"])
def test_a_duration_that_makes_no_sense_is_refused_and_no_word_given(start_agent, duration, capsys):
    agent = start_agent("alpha")
    assert main(["lend", "--for", duration]) == 1
    assert capsys.readouterr().err.startswith("error: --for: ")
    assert control.read_word(agent.data_dir).word_id == ""
