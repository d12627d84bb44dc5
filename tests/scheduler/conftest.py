"""What the control plane's tests share: a real store of each kind, and rows to put into it."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bifrost_kernel import models
from bifrost_scheduler.store import contract
from bifrost_scheduler.store.sqlite import SqliteStore

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)

_COUNTER = itertools.count()

OPENERS: dict[str, Callable[[Path], contract.Store]] = {"sqlite": lambda folder: SqliteStore(folder / "bifrost.db")}


@pytest.fixture(params=sorted(OPENERS))
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], contract.Store]:
    """Opens the same database again and again, as restarts do."""
    return lambda: OPENERS[request.param](tmp_path)


@pytest.fixture
def store(open_store: Callable[[], contract.Store]) -> Iterator[contract.Store]:
    opened = open_store()
    yield opened
    opened.close()


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture
def audit() -> contract.AuditEntry:
    return contract.AuditEntry(at=NOW, actor="user:admin@example.com", action="test.act", organization="acme")


@pytest.fixture
def new_execution() -> Callable[..., contract.NewExecution]:
    """Makes a submit; `age` seconds lie between its creation and `NOW`."""

    def make(*, age: float = 0, **fields: Any) -> contract.NewExecution:
        created_at = NOW - timedelta(seconds=age)
        given = {
            "id": uuid7_at(created_at),
            "organization": "acme",
            "workflow": "hello_world",
            "status": models.ExecutionStatus.PENDING,
            "trigger": models.Trigger.API,
            "caller": models.Caller(subject="key:1"),
            "parameters": {"name": "Ada"},
            "code_hash": "c0de",
            "timeout_seconds": 300,
            "created_at": created_at,
        }
        return contract.NewExecution(**{**given, **fields})

    return make


@pytest.fixture
def submit(
    store: contract.Store, new_execution: Callable[..., contract.NewExecution]
) -> Callable[..., contract.Execution]:
    return lambda **fields: store.submit_execution(new_execution(**fields), queue_limit=10_000).execution


@pytest.fixture
def claim(store: contract.Store) -> Callable[..., contract.Execution | None]:
    def make(*, owner: str = "runner", organization_limit: int = 8) -> contract.Execution | None:
        return store.claim_execution(owner=owner, now=NOW, lease_seconds=10, organization_limit=organization_limit)

    return make


def uuid7_at(instant: datetime) -> str:
    """A UUIDv7 (RFC 9562 §5.7) of that instant; of two, the later made is the greater."""
    milliseconds = int(instant.timestamp() * 1000)
    return str(uuid.UUID(int=(milliseconds << 80) | (7 << 76) | (2 << 62) | next(_COUNTER)))
