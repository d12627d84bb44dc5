"""Whoever writes first writes for all who wait: nobody is forgotten, whatever becomes of the one who writes."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from bifrost_kernel import errors
from bifrost_scheduler.store.writer import Writer

Operation = Callable[[Database], Any]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "numbers.db"


@pytest.fixture
def writer(path: Path) -> Iterator[Writer]:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    database = Database(connection)
    database.execute("CREATE TABLE numbers (number INTEGER)")
    writer = Writer(database)
    yield writer
    writer.close()


def numbers(path: Path) -> list[int]:
    with sqlite3.connect(path) as connection:
        return sorted(number for (number,) in connection.execute("SELECT number FROM numbers"))


def add(number: int) -> Operation:
    def operation(database: Database) -> int:
        database.execute("INSERT INTO numbers VALUES (?)", (number,))
        return number

    return operation


class Held:
    """An operation that lasts until it is let go."""

    def __init__(self) -> None:
        self.has_begun = threading.Event()
        self.may_end = threading.Event()

    def __call__(self, database: Database) -> None:
        self.has_begun.set()
        assert self.may_end.wait(60)


@pytest.fixture
def held(writer: Writer) -> Iterator[Held]:
    """Somebody writes until it is let go."""
    operation = Held()
    with ThreadPoolExecutor(1) as threads:
        threads.submit(writer.run, operation)
        assert operation.has_begun.wait(60)
        yield operation
        operation.may_end.set()


def wait_until_waiting(writer: Writer, count: int) -> None:
    pause = threading.Event()
    while len(writer._jobs) < count:
        pause.wait(0.001)


def test_everybody_who_comes_meanwhile_gets_an_own_answer(writer: Writer, held: Held, path: Path) -> None:
    """Those who waited while somebody wrote are written next."""
    with ThreadPoolExecutor(20) as threads:
        waiting = [threads.submit(writer.run, add(number)) for number in range(20)]
        wait_until_waiting(writer, 20)
        held.may_end.set()
        assert [one.result(60) for one in waiting] == list(range(20))
    assert numbers(path) == list(range(20))


def test_more_than_a_batch_may_wait(writer: Writer, held: Held, path: Path) -> None:
    """What does not fit into one transaction goes into the next."""
    for number in range(450):
        writer.post(add(number))
    with ThreadPoolExecutor(1) as threads:
        last = threads.submit(writer.run, add(450))
        wait_until_waiting(writer, 451)
        held.may_end.set()
        assert last.result(60) == 450
    assert numbers(path) == list(range(451))


def test_what_nobody_waits_for_is_written_before_it_closes(writer: Writer, path: Path) -> None:
    """Posted operations need no other write to take them along."""
    for number in range(5):
        writer.post(add(number))
    writer.close()
    assert numbers(path) == list(range(5))


def test_an_interrupted_write_is_nobody_elses(writer: Writer, held: Held, path: Path) -> None:
    """The one who is interrupted gets the interrupt, and whoever comes next writes."""

    def interrupted(database: Database) -> None:
        database.execute("INSERT INTO numbers VALUES (-1)")
        raise KeyboardInterrupt

    def write_and_catch() -> str:
        try:
            writer.run(interrupted)
        except KeyboardInterrupt:
            return "interrupted"
        return "written"

    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(write_and_catch)
        wait_until_waiting(writer, 1)
        held.may_end.set()
        assert first.result(60) == "interrupted"
    assert writer.run(add(7)) == 7
    assert numbers(path) == [7]


def test_a_closed_one_says_so(writer: Writer) -> None:
    """To whoever waits and to whoever does not."""
    writer.close()
    for way in (writer.run, writer.post):
        with pytest.raises(errors.Unavailable, match="closed"):
            way(add(1))
