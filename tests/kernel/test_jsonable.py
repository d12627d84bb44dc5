"""Python values become strict JSON, or are refused with type and place."""

from __future__ import annotations

import dataclasses
import json
import uuid
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import PurePosixPath
from typing import Any

import pydantic
import pytest

from bifrost_kernel import errors, jsonable


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


class User(pydantic.BaseModel):
    name: str
    since: date


@dataclasses.dataclass
class Seat:
    sku: str
    price: Decimal


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime(2026, 3, 1, 9, tzinfo=UTC), "2026-03-01T09:00:00+00:00"),
        (date(2026, 3, 1), "2026-03-01"),
        (Decimal("1.10"), "1.10"),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({"a", 1}), ["a", 1]),
        (float("nan"), None),
        ([float("inf"), 1.5], [None, 1.5]),
        ("a\ud800b", "a?b"),
        (User(name="A", since=date(2026, 1, 1)), {"name": "A", "since": "2026-01-01"}),
        (Seat("E3", Decimal(2)), {"sku": "E3", "price": "2"}),
        ((1, (2,)), [1, [2]]),
        ({True: "b", None: "c", Colour.RED: "d"}, {"true": "b", "null": "c", "red": "d"}),
        ({2: "a"}, {"2": "a"}),
        (Colour.RED, "red"),
        (Level.LOW, 1),
        (uuid.UUID(int=0), "00000000-0000-0000-0000-000000000000"),
        (PurePosixPath("a/b"), "a/b"),
        (True, True),
    ],
)
def test_values_have_one_json_form(value: Any, expected: Any) -> None:
    """The forms are those of the contract, and the standard library's strict encoder takes them."""
    converted = jsonable.to_json(value)
    assert converted == expected
    json.dumps(converted, allow_nan=False).encode()


def test_the_copy_is_the_callers_own() -> None:
    """What the author changes afterwards does not change what was kept."""
    value = {"list": [1]}
    converted = jsonable.to_json(value)
    value["list"].append(2)
    assert converted == {"list": [1]}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"users": [0, 1, 2, {"created": object()}]},
            r"result\.users\[3\]\.created is a object, which has no JSON form",
        ),
        ({"a b": b"x"}, r"result\['a b'\] is a bytes"),
        (iter([1]), "list_iterator"),
        ({(1, 2): 3}, "a key of type tuple"),
        (1 << 2000, "too large"),
        (User, "no JSON form"),
    ],
)
def test_what_has_no_form_is_refused_with_its_place(value: Any, message: str) -> None:
    """The error names the type and the path to it."""
    with pytest.raises(errors.WorkflowError, match=message):
        jsonable.to_json(value, path="result")


def test_cycles_and_depth_are_refused() -> None:
    """A list in itself and 101 levels are errors, not crashes; the same object twice is neither."""
    cycle: list[Any] = []
    cycle.append({"again": cycle})
    with pytest.raises(errors.WorkflowError, match=r"value\[0\]\.again holds itself"):
        jsonable.to_json(cycle)
    deep: list[Any] = []
    for _ in range(100):
        deep = [deep]
    with pytest.raises(errors.WorkflowError, match="deeper than 100"):
        jsonable.to_json(deep)
    shared = {"a": 1}
    assert jsonable.to_json([shared, shared]) == [{"a": 1}, {"a": 1}]
