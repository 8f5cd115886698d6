"""What reaches the terminal, and what a pipe gets."""

import io
import sys
from datetime import UTC, datetime, timedelta

import pytest

from idle_accelerator.cli import moments, terminal
from idle_accelerator.errors import InvalidInput, RemoteException

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


class Terminal(io.TextIOWrapper):
    """A stream that says it is a terminal."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)

    def isatty(self) -> bool:
        return True

    def written(self) -> str:
        return self.buffer.getvalue().decode()


def test_an_error_is_two_lines_that_name_the_field_and_the_way_out(capsys):
    terminal.show_error(InvalidInput("'x' is not a size.", field="--memory", hint="Write 1G."))
    shown = capsys.readouterr()
    assert shown.err == "error: --memory: 'x' is not a size.\nhint: Write 1G.\n"
    assert shown.out == ""


def test_an_error_of_a_function_shows_where_it_was_raised_on_the_node(capsys):
    terminal.show_error(
        RemoteException(
            type_name="ValueError", text="no", traceback_text='File "f.py", line 3', job_id="j", task_index=0
        )
    )
    assert 'ValueError: no\n\nTraceback on the node:\nFile "f.py", line 3' in capsys.readouterr().err


def test_names_from_other_machines_cannot_steer_the_terminal():
    assert terminal.line("a\x1b]0;owned\x07b\r\nc") == "a␛]0;owned␇b c"
    assert terminal.safe("tab\tnewline\n\x9b2J\x7f") == "tab\tnewline\n\\u009b2J␡"
    assert terminal.safe("a\u202egpj.exe\u3000 \u4e2d") == "a\\u202egpj.exe\u3000 \u4e2d"


@pytest.mark.parametrize(
    ("text", "width", "shown"), [("short", 5, "short"), ("longer", 5, "long…"), ("a\nb", 9, "a b")]
)
def test_long_cells_are_cut_to_one_line(text, width, shown):
    assert terminal.shorten(text, width) == shown


def test_output_of_a_task_goes_into_a_pipe_byte_by_byte(capfdbinary, monkeypatch):
    with open(1, "w", closefd=False, encoding="utf-8") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        writer = terminal.OutputWriter()
        writer.write(b"\xff\x00\x1b[2Jraw")
        writer.end_line()
    assert capfdbinary.readouterr().out == b"\xff\x00\x1b[2Jraw\n"


def test_output_of_a_task_may_colour_a_terminal_but_not_steer_it(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    writer = terminal.OutputWriter()
    writer.write(b"\x1b[31mred\x1b[0m\x1b]0;title\x07 \xe2\x82")
    writer.write(b"\xac\n")  # the rest of a character that was cut in two
    assert screen.written() == "\x1b[31mred\x1b[0m␛]0;title␇ €\n"


def test_a_table_in_a_pipe_is_never_wrapped_or_cut(capsys):
    long = "x" * 500
    terminal.show_table(("ID", "WHY"), [("a", long), ("b[bold]", "y")], empty="none")
    lines = [text.rstrip() for text in capsys.readouterr().out.splitlines()]
    assert lines == ["ID       WHY", f"a        {long}", "b[bold]  y"]


def test_an_empty_table_says_so_and_leaves_stdout_alone(capsys):
    terminal.show_table(("ID",), [], empty="No jobs.")
    assert capsys.readouterr() == ("", "No jobs.\n")


@pytest.mark.parametrize(
    ("age_s", "words"),
    [
        (-30, "just now"),
        (0.4, "just now"),
        (59.9, "59 s ago"),
        (240, "4 min ago"),
        (3600, "1 h ago"),
        (47 * 3600, "47 h ago"),
        (72 * 3600, "3 d ago"),
    ],
)
def test_moments_are_said_as_people_say_them(age_s, words):
    assert moments.ago(NOW - timedelta(seconds=age_s), NOW) == words


def test_what_never_happened_is_never():
    assert moments.ago(None) == "never"
