"""Whose load is not the owner's: what idle-sense is told of guests that begin and end."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from idle_accelerator.agent.journal import Journal
from idle_accelerator.agent.sandbox import Guest, GuestRecord
from idle_accelerator.agent.workshop import Workshop
from idle_sense import SenseError


class Book:
    """Idle-sense's book of guests; ``gone``: jobs that have ended."""

    def __init__(self) -> None:
        self.pids: set[int] = set()
        self.jobs: set[str] = set()
        self.gone: set[str] = set()
        self.groups: list[str] = []

    def add_cgroup(self, path: str) -> None:
        self.groups.append(path)
        if path in self.gone:
            raise SenseError(f"There is no folder {path}.")

    def add(self, pid: int) -> None:
        self.pids.add(pid)

    def discard(self, pid: int) -> None:
        self.pids.discard(pid)

    def add_job(self, name: str) -> None:
        if name in self.gone:
            raise SenseError(f"There is no job object {name!r}.")
        self.jobs.add(name)

    def discard_job(self, name: str) -> None:
        self.jobs.discard(name)


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


@pytest.fixture
def shop(book: Book, journal: Journal) -> Workshop:
    unused = cast("Any", None)
    return Workshop(
        sandbox=unused,
        workspaces=unused,
        cache=unused,
        link=unused,
        outbox=unused,
        journal=journal,
        ledger=book,
        saves=unused,
    )


def guest(job: str | None, *, cgroup: str | None = None) -> Guest:
    record = GuestRecord(pid=70, started="1.5", brand="idle-guest-ab")
    return cast("Guest", SimpleNamespace(pid=70, record=record, job=job, cgroup=cgroup))


def test_a_guest_is_in_the_book_from_its_begin_to_its_end(shop: Workshop, book: Book) -> None:
    """Its brand is no job's name but on Windows."""
    shop.guest_began(guest(None))
    assert (book.pids, book.jobs) == ({70}, set())
    shop.guest_ended(guest(None))
    assert (book.pids, book.jobs) == (set(), set())


def test_a_guest_on_windows_is_there_with_its_job(shop: Workshop, book: Book) -> None:
    shop.guest_began(guest("idle-guest-ab"))
    assert (book.pids, book.jobs) == ({70}, {"idle-guest-ab"})
    shop.guest_ended(guest("idle-guest-ab"))
    assert (book.pids, book.jobs) == (set(), set())


def test_a_guest_whose_job_is_gone_already_is_there_all_the_same(
    shop: Workshop, book: Book, journal: Journal
) -> None:
    book.gone.add("idle-guest-ab")
    shop.guest_began(guest("idle-guest-ab"))
    assert book.pids == {70}
    assert [record.pid for record in journal.leftover_guests] == [70]
    shop.guest_ended(guest("idle-guest-ab"))
    assert book.pids == set()


def test_the_group_of_all_guests_is_in_the_book_from_the_first_guest_on_and_stays(
    shop: Workshop, book: Book
) -> None:
    """It holds what ended guests have spent."""
    for _ in range(2):
        shop.guest_began(guest(None, cgroup="/sys/fs/cgroup/guests"))
        shop.guest_ended(guest(None, cgroup="/sys/fs/cgroup/guests"))
    assert book.groups == ["/sys/fs/cgroup/guests"]


def test_a_guest_whose_group_is_not_counted_is_in_the_book_by_its_tree(shop: Workshop, book: Book) -> None:
    book.gone.add("/sys/fs/cgroup/guests")
    shop.guest_began(guest(None, cgroup="/sys/fs/cgroup/guests"))
    assert book.pids == {70}
