"""Functions travel with what nodes cannot have, and by name with what they have installed."""

import dataclasses
import functools
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from idle_accelerator.errors import InvalidInput, TooLarge
from idle_accelerator.sdk import functions
from idle_accelerator.sdk.functions import (
    dataclasses_near,
    name_of,
    pack_items,
    pickle_arguments,
    pickle_function,
)
from idle_accelerator.wire.ids import MAX_TASKS

_PROGRAM = """
import sys
import beside
from package.deep import shout
from idle_accelerator.sdk.functions import pickle_function, pickle_arguments, pack_items

class Local:
    def __init__(self, word): self.word = word

def work(item):
    return [beside.twice(item.word), shout(item.word), beside.Thing(item.word).word]

with open(sys.argv[1], "wb") as out: out.write(pickle_function(work))
with open(sys.argv[2], "wb") as out: out.write(pack_items([Local("a")])[0])
"""
_NODE = """
import pickle, sys
fn = pickle.load(open(sys.argv[1], "rb"))
args, kwargs = pickle.load(open(sys.argv[2], "rb"))
print(fn(*args, **kwargs), sorted(name for name in sys.modules if name.split(".")[0] in ("beside", "package")))
"""


def test_a_programs_own_modules_travel_with_its_functions(tmp_path: Path) -> None:
    program, node = tmp_path / "program", tmp_path / "node"
    (program / "package").mkdir(parents=True)
    node.mkdir()
    (program / "main.py").write_text(_PROGRAM)
    (program / "beside.py").write_text(
        "class Thing:\n    def __init__(self, word): self.word = word\n\ndef twice(word): return word * 2\n"
    )
    (program / "package" / "__init__.py").write_text("MARK = '!'\n")
    (program / "package" / "deep.py").write_text(
        "from package import MARK\n\ndef shout(word): return word + MARK\n"
    )
    code, arguments = node / "code", node / "arguments"
    subprocess.run([sys.executable, str(program / "main.py"), str(code), str(arguments)], check=True)
    ran = subprocess.run(
        [sys.executable, "-c", _NODE, str(code), str(arguments)],
        cwd=node,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout.strip() == "['aa', 'a!', 'a'] []", ran.stderr


def test_what_is_installed_travels_by_name() -> None:
    assert len(pickle_function(pytest.approx)) < 200
    assert b"statistics" in pickle_function(__import__("statistics").median)


def test_pickling_leaves_cloudpickles_registry_as_it_was() -> None:
    before = set(cloudpickle.list_registry_pickle_by_value())
    pickle_function(lambda: test_what_is_installed_travels_by_name)
    with pytest.raises(InvalidInput):
        pickle_function(functools.partial(print, threading.Lock()))
    assert cloudpickle.list_registry_pickle_by_value() == before


def test_what_cannot_travel_is_named_with_the_way_out() -> None:
    lock = threading.Lock()
    with pytest.raises(InvalidInput, match="lock") as refused:
        pickle_function(lambda: lock)
    assert refused.value.field == "fn"
    assert "inside the function" in (refused.value.hint or "")
    with pytest.raises(InvalidInput) as refused:
        pickle_arguments((1, lock), {})
    assert refused.value.field == "args"
    with pytest.raises(InvalidInput) as refused:
        pack_items([1, "two", lock])
    assert refused.value.field == "iterable[2]"
    not_callable: Any = 3
    with pytest.raises(InvalidInput):
        pickle_function(not_callable)


def test_items_of_every_sort_arrive_as_they_were() -> None:
    items = [1, "two", b"3", None, 4.0, True, [5], {"six": 7}, Thing(8)]
    assert [pickle.loads(packed) for packed in pack_items(items)] == [((item,), {}) for item in items]


def test_too_many_items_are_refused_even_if_there_is_no_end_of_them() -> None:
    def endless() -> Any:
        while True:
            yield None

    with pytest.raises(TooLarge, match=f"{MAX_TASKS:,}"):
        pack_items(endless())


def test_names_for_people_are_one_short_line() -> None:
    assert name_of(functools.partial(name_of, 1)) == "name_of"
    assert name_of(Thing(1).method) == "Thing.method"
    assert name_of(Thing(1)) == "Thing"
    odd = lambda: 1  # noqa: E731  # it gets an odd name
    odd.__qualname__ = "a\nb" * 200
    assert name_of(odd).isprintable()
    assert len(name_of(odd)) == 200


@dataclasses.dataclass(frozen=True)
class Thing:
    number: int

    def method(self) -> int:
        return self.number

    def __call__(self) -> int:
        return self.number


def test_dataclasses_that_a_function_can_name_are_found() -> None:
    @dataclasses.dataclass
    class Inner:
        x: int

    found = dataclasses_near(lambda: Inner)
    assert set(found.values()) >= {Thing, Inner}
    assert found[f"{Thing.__module__}.Thing"] is Thing


def test_a_large_payload_is_named_by_its_digest_and_a_small_one_travels_inside() -> None:
    assert functions.payload_of(b"x").inline == b"x"
    large = functions.payload_of(b"x" * 100_000)
    assert (large.inline, large.size_bytes) == (None, 100_000)
