"""Output files land inside the folder asked for, whatever a node calls them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idle_accelerator.errors import InvalidInput
from idle_accelerator.sdk.artifacts import Placer

_NASTY = st.lists(
    st.sampled_from(
        ["..", ".", "", "a", "/", "\\", "C:", "~", "\0", "\n", "con", "nul.txt", "a ", "a.", "x:y", "é", "😀"]
    ),
    min_size=1,
    max_size=5,
).map("/".join)


@given(_NASTY | st.text(max_size=40), st.booleans())
def test_no_name_leads_out_of_the_folder(path: str, windows: bool) -> None:
    root = Path("/tmp/somewhere")  # never written to
    try:
        target = Placer(root, windows=windows, ignores_case=windows).place("3", path)
    except InvalidInput as error:
        assert error.field == "to"  # noqa: PT017  # a place inside is as good
        return
    assert target.is_relative_to(root / "3")
    assert ".." not in target.parts


@pytest.mark.parametrize(
    "path", ["con", "CON.txt", "a/nul", "com1.log", "a:stream", "a?", "dir./x", "x ", 'a"b', "LPT¹"]
)
def test_names_that_windows_takes_for_something_else_are_refused_there(tmp_path: Path, path: str) -> None:
    with pytest.raises(InvalidInput):
        Placer(tmp_path, windows=True, ignores_case=True).place(None, path)


def test_a_link_in_the_folder_is_not_followed_out_of_it(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    root = tmp_path / "root"
    outside.mkdir()
    root.mkdir()
    (root / "link").symlink_to(outside, target_is_directory=True)
    with pytest.raises(InvalidInput, match="link"):
        Placer(root, windows=False, ignores_case=False).place(None, "link/file")


def test_two_outputs_never_get_the_same_place(tmp_path: Path) -> None:
    placer = Placer(tmp_path, windows=False, ignores_case=True)
    placer.place(None, "A.txt")
    with pytest.raises(InvalidInput):
        placer.place(None, "a.txt")
    placer.place(None, "caf\u00e9")
    with pytest.raises(InvalidInput):
        placer.place(None, "cafe\u0301")
    Placer(tmp_path, windows=False, ignores_case=False).place(None, "a.txt")
