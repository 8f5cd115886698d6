"""How `idlectl submit` reads its flags."""

import pytest

from idle_accelerator.cli.connect import check_id, pairs
from idle_accelerator.cli.input_files import files_named_by, input_files
from idle_accelerator.cli.submit import environment
from idle_accelerator.errors import InvalidInput


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.csv").write_text("1")
    (tmp_path / "plot.py").write_text("print(1)")
    (tmp_path / "parts" / "deep").mkdir(parents=True)
    (tmp_path / "parts" / "a.txt").write_text("a")
    (tmp_path / "parts" / "deep" / "b.txt").write_text("b")
    (tmp_path / "odd=name.txt").write_text("o")
    return tmp_path


def test_a_file_below_here_keeps_its_path_and_others_their_name(here):
    outside = here.parent / "outside.bin"
    outside.write_text("x")
    assert input_files(["data.csv", "parts/a.txt", str(outside), "../outside.bin"]) == {
        "data.csv": "data.csv",
        "parts/a.txt": "parts/a.txt",
        "outside.bin": "../outside.bin",
    }


def test_a_file_may_be_given_another_place():
    assert input_files(["data.csv=in/x.csv", "plot.py=bin/"]) == {
        "in/x.csv": "data.csv",
        "bin/plot.py": "plot.py",
    }


def test_a_file_whose_name_holds_an_equals_sign_is_itself():
    assert input_files(["odd=name.txt"]) == {"odd=name.txt": "odd=name.txt"}
    assert input_files(["odd=name.txt=o.txt"]) == {"o.txt": "odd=name.txt"}


def test_a_folder_brings_all_of_its_files_and_a_glob_its_matches():
    everything = {"parts/a.txt": "parts/a.txt", "parts/deep/b.txt": "parts/deep/b.txt"}
    assert input_files(["parts"]) == everything
    assert input_files(["parts/**/*.txt"]) == everything
    assert input_files(["parts=in"]) == {"in/a.txt": "parts/a.txt", "in/deep/b.txt": "parts/deep/b.txt"}


@pytest.mark.parametrize("text", ["missing.csv", "missing.csv=x", "*.nothing"])
def test_a_missing_input_is_named(text):
    with pytest.raises(InvalidInput, match="there is no file") as refused:
        input_files([text])
    assert refused.value.field == "--input"


def test_two_files_for_one_place_are_refused():
    with pytest.raises(InvalidInput, match="would both be 'x'"):
        input_files(["data.csv=x", "plot.py=x"])


def test_an_empty_folder_is_refused(here):
    (here / "empty").mkdir()
    with pytest.raises(InvalidInput, match="holds no files"):
        input_files(["empty"])


def test_files_that_the_command_names_go_along_but_no_others(here):
    command = [
        "python3",
        "plot.py",
        "--in=data.csv",
        "./parts/a.txt",
        "parts",
        str(here / "data.csv"),
        "../x",
        "\0",
        "",
    ]
    assert files_named_by(command, taken=frozenset()) == {
        "plot.py": "plot.py",
        "parts/a.txt": "./parts/a.txt",
    }
    assert files_named_by(command, taken=frozenset({"plot.py", "parts/a.txt"})) == {}


def test_a_variable_without_a_value_takes_ours(monkeypatch):
    monkeypatch.setenv("SEED", "7")
    assert environment(["A=1=2", "SEED", "EMPTY="]) == {"A": "1=2", "SEED": "7", "EMPTY": ""}


@pytest.mark.parametrize(
    ("text", "sentence"), [("NOT_SET_HERE", "is not set here"), ("=1", "names no variable")]
)
def test_a_variable_that_cannot_be_read_is_named(text, sentence, monkeypatch):
    monkeypatch.delenv("NOT_SET_HERE", raising=False)
    with pytest.raises(InvalidInput, match=sentence) as refused:
        environment([text])
    assert refused.value.field == "--env"


def test_labels_need_a_value():
    assert pairs(["room=12", "kind="], flag="--label", example="a=b") == {"room": "12", "kind": ""}
    with pytest.raises(InvalidInput, match="'room' is not of the form"):
        pairs(["room"], flag="--label", example="a=b")


@pytest.mark.parametrize("text", ["", "x123", "j/../nodes", "J123", "j?x", "jaaaaaaaaaaaaaaaaa"])
def test_what_can_be_no_id_never_becomes_part_of_an_address(text):
    with pytest.raises(InvalidInput, match="is not a job's id"):
        check_id(text)
