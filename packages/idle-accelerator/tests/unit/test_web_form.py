"""What people type on the submit page."""

import shlex

import pytest

from idle_accelerator.web import form


@pytest.mark.parametrize(
    ("typed", "argv"),
    [
        ("python3 -c 'print(6*7)'", ["python3", "-c", "print(6*7)"]),
        ('  echo "two words"  it\\\'s ', ["echo", "two words", "it's"]),
        ("sh -c 'a | b > c; echo $HOME'", ["sh", "-c", "a | b > c; echo $HOME"]),
        ("grep 'foo$' a\\;b", ["grep", "foo$", "a;b"]),
        ("python3 -c 'one\ntwo'", ["python3", "-c", "one\ntwo"]),
        ('printf ""', ["printf", ""]),
        ("awk 100% ~ # x", ["awk", "100%", "~", "#", "x"]),
    ],
)
def test_a_command_is_split_as_in_a_terminal(typed, argv):
    assert form.parse_command(typed) == argv


@pytest.mark.parametrize(
    ("typed", "mark"),
    [
        ("ls | wc", "|"),
        ("a && b", "&"),
        ("a; b", ";"),
        ("a > out", ">"),
        ("python3 x.py $IDLE_TASK_INDEX", "$IDLE_TASK_INDEX"),
        ('python3 x.py "${HOME}"', "${"),
        ("echo $(date)", "$("),
        ('echo "`date`"', "`"),
    ],
)
def test_shell_syntax_is_refused_with_a_command_that_works(typed, mark):
    with pytest.raises(form.FormError) as refused:
        form.parse_command(typed)
    assert refused.value.field == "command"
    assert mark in str(refused.value)
    wrapped = str(refused.value.params["wrapped"])
    assert form.parse_command(wrapped) == ["sh", "-c", typed]
    assert shlex.quote(typed) in str(refused.value)


@pytest.mark.parametrize("typed", ["", "  \n ", "''", "'' x"])
def test_an_empty_command_is_refused(typed):
    with pytest.raises(form.FormError, match="command is empty"):
        form.parse_command(typed)


@pytest.mark.parametrize("typed", ["echo 'x", 'echo "x', "echo x\\"])
def test_an_open_quotation_mark_is_refused(typed):
    with pytest.raises(form.FormError, match="never closed"):
        form.parse_command(typed)


def test_pairs_keep_what_follows_the_first_equals_sign():
    assert form.parse_pairs("A=1\n\n B = x=y \nC=", field="env", example="A=1") == {
        "A": "1",
        "B": "x=y",
        "C": "",
    }


def test_pairs_that_are_none_name_their_line():
    with pytest.raises(form.FormError, match="Line 2 is no NAME=value") as refused:
        form.parse_pairs("A=1\nB", field="env", example="A=1")
    assert refused.value.field == "env"
    with pytest.raises(form.FormError, match="Line 2 sets A again"):
        form.parse_pairs("A=1\nA=2", field="labels", example="a=1")


def test_amounts_and_limits_are_read_or_refused_by_field():
    assert form.parse_amount("", field="memory") == 0
    assert form.parse_amount("1.5G", field="memory") == 3 * 1024**3 // 2
    assert form.parse_timeout(" ") is None
    assert form.parse_timeout("1h30m") == 5400
    for bad in ("many", "-1G", "1e9"):
        with pytest.raises(form.FormError, match="is not a size") as refused:
            form.parse_amount(bad, field="disk")
        assert refused.value.field == "disk"
    for bad in ("soon", "0", "-5s"):
        with pytest.raises(form.FormError, match="is not a time limit"):
            form.parse_timeout(bad)


def test_lines_are_taken_without_blanks():
    assert form.parse_lines(" out/*.png \n\n  log.txt") == ["out/*.png", "log.txt"]
