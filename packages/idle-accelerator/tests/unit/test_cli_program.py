"""The command line as a whole: help, usage, errors, exit statuses."""

import os
import subprocess
import sys
import time

import pytest

from idle_accelerator import __version__
from idle_accelerator.cli import main, program
from idle_accelerator.cli.program import app
from idle_accelerator.errors import Conflict

COMMANDS = [
    "up",
    "scheduler",
    "web",
    "nodes",
    "node",
    "drain",
    "forget",
    "submit",
    "jobs",
    "job",
    "logs",
    "result",
    "checkpoints",
    "cancel",
    "agent",
    "lend",
    "pause",
    "resume",
    "terms",
    "doctor",
]


def idlectl(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "idle_accelerator.cli", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=60,
        check=False,
    )


def test_the_version_is_said(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"idlectl {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name, capsys):
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"Usage: idlectl {name}" in shown
    assert f"idlectl {name}" in shown.split("Example", 1)[1]


def test_every_command_is_known_to_these_tests():
    assert [command.name for command in app.registered_commands] == COMMANDS


def test_client_commands_take_scheduler_and_key(capsys):
    for name in (
        "nodes",
        "node",
        "drain",
        "forget",
        "submit",
        "jobs",
        "job",
        "logs",
        "result",
        "checkpoints",
        "cancel",
        "doctor",
    ):
        assert main([name, "--help"]) == 0
        shown = capsys.readouterr().out
        assert "--scheduler URL" in shown
        assert "--key KEY" in shown


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from idle_accelerator.cli import main; main(['--help']); "
        "heavy = ('rich', 'pydantic', 'httpx2', 'fastapi', 'sqlalchemy', 'streamlit', 'psutil', 'asyncio'); "
        "print([name for name in heavy if name in sys.modules], file=sys.stderr)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stderr == "[]\n"
    assert "Usage: idlectl" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["subm"], "No such command 'subm'. Did you mean 'submit'"),
        (["submit"], "Missing argument 'COMMAND'"),
        (["jobs", "--limit", "0"], "Invalid value for '--limit'"),
        (["jobs", "--sate", "x"], "No such option: --sate"),
        (["up", "--port", "70000"], "Invalid value for '--port'"),
    ],
)
def test_wrong_usage_is_said_in_our_words_with_status_2(arguments, sentence, capsys):
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert sentence in shown
    assert "\nhint: idlectl" in shown


@pytest.mark.parametrize(
    ("arguments", "field", "sentence"),
    [
        (["submit", "--memory", "lots", "--", "true"], "--memory", "'lots' is not a size."),
        (["submit", "--memory=-1", "--", "true"], "--memory", "'-1' is not a size."),
        (["submit", "--timeout", "soon", "--", "true"], "--timeout", "'soon' is not a duration."),
        (["submit", "--array", "0", "--", "true"], "--array", "Give 1 to 1,000,000 tasks."),
        (["submit", "--os", "beos", "--", "true"], "--os", "Use one of: linux, macos, windows."),
        (["submit", "--cpus", "0", "--", "true"], "--cpus", "0.0: input should be greater than"),
        (
            ["submit", "--gpus", "-1", "--", "true"],
            "--gpus",
            "-1: input should be greater than or equal to 0.",
        ),
        (["submit", "--name", "a\nb", "--", "true"], "--name", "must not hold newlines"),
        (["submit", "--env", "IDLE_X=1", "--", "true"], "--env", "IDLE_"),
        (["submit", "--output", "../x", "--", "true"], "--output[0]", "it may not leave the workspace"),
        (["submit", "--", ""], "COMMAND", "is empty"),
        (
            ["submit", "--scheduler", "ftp://x", "--", "true"],
            "--scheduler",
            "is not an http:// or https:// address",
        ),
        (["submit", "--to", "x", "--", "true"], "--to", "needs --wait."),
        (["submit", "--label", "room", "--", "true"], "--label", "'room' is not of the form name=value."),
        (["jobs", "--state", "done"], "--state", "'done' is no state of a job."),
        (["job", "../nodes"], "JOB", "is not a job's id"),
        (["node", "a/b"], "NODE", "is no name of a node."),
        (["agent", "--policy", "greedy"], "--policy", "'greedy' is no policy."),
        (["up", "--policy", "greedy"], "--policy", "'greedy' is no policy."),
        (["up", "--port", "8501"], "--web-port", "cannot share port 8501"),
        (["lend", "--for", "a while"], "--for", "'a while' is not a duration."),
    ],
)
def test_bad_input_names_its_flag_and_ends_with_status_1(
    arguments, field, sentence, capsys, tmp_path, monkeypatch
):
    monkeypatch.setenv("IDLE_DATA_DIR", str(tmp_path))
    assert main(arguments) == 1
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: {field}: ")
    assert sentence in shown
    assert "\nhint: " in shown


def test_ctrl_c_gives_130_and_a_closed_pipe_no_traceback(monkeypatch, capsys):
    def interrupted(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "app", interrupted)
    assert main([]) == 130
    assert capsys.readouterr().err == ""


def test_an_error_of_ours_is_never_a_traceback(monkeypatch, capsys):
    def refused(**_):
        raise Conflict("it is so.", field="JOB", hint="Do this.")

    monkeypatch.setattr(program, "app", refused)
    assert main([]) == 1
    assert capsys.readouterr().err == "error: JOB: it is so.\nhint: Do this.\n"


def test_a_defect_is_said_in_one_line_and_shown_whole_on_demand(monkeypatch, capsys):
    def broken(**_):
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(program, "app", broken)
    monkeypatch.delenv("IDLE_TRACEBACK", raising=False)
    assert main([]) == 1
    shown = capsys.readouterr().err
    assert "it is a defect: ZeroDivisionError: oh (test_cli_program.py:" in shown
    assert "Traceback" not in shown
    monkeypatch.setenv("IDLE_TRACEBACK", "1")
    assert main([]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_a_file_that_the_system_refuses_is_named(monkeypatch, capsys):
    def refused(**_):
        raise PermissionError(13, "Permission denied", "/some/file")

    monkeypatch.setattr(program, "app", refused)
    assert main([]) == 1
    assert capsys.readouterr().err == "error: /some/file: Permission denied\n"


def test_a_reader_that_closes_its_pipe_is_no_error_of_ours():
    process = subprocess.Popen(
        [sys.executable, "-m", "idle_accelerator.cli", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    assert b"Traceback" not in process.stderr.read()
    process.wait(timeout=60)


def test_shell_completion_offers_commands():
    shown = idlectl(_IDLECTL_COMPLETE="complete_bash", COMP_WORDS="idlectl no", COMP_CWORD="1")
    assert shown.stdout.split() == ["nodes", "node"]


def test_help_is_there_before_anybody_gets_impatient():
    idlectl("--help")  # fills the disk cache
    took = []
    for _ in range(3):
        began = time.monotonic()
        assert idlectl("--help").returncode == 0
        took.append(time.monotonic() - began)
    assert min(took) < 2  # 0.13 s on an idle machine; a loaded one gets room
