"""What only the SQLite store promises: durability, file modes, group commit, and errors of the file underneath."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bifrost_kernel import errors
from bifrost_scheduler import ledger
from bifrost_scheduler.store import contract
from bifrost_scheduler.store.sqlite import SqliteStore

APPENDER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from bifrost_kernel import models
from bifrost_scheduler.store.sqlite import SqliteStore

store, (execution_id, fence) = SqliteStore(Path(sys.argv[1])), sys.argv[2:]
while True:
    at = datetime.now(UTC)
    seq = store.append_event(execution_id, fence=fence, type=models.EventType.LOG, body={"x": "y" * 200}, at=at)
    print(seq, flush=True)
"""

FILLER = """
import resource, sys
from datetime import UTC, datetime
from pathlib import Path
from bifrost_kernel import errors
from bifrost_scheduler.store import contract
from bifrost_scheduler.store.sqlite import SqliteStore

store = SqliteStore(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
act = contract.AuditEntry(at=datetime.now(UTC), actor="a", action="b", details={"x": "y" * 100_000})
written = 0
try:
    while written < 100:
        store.append_audit(act)
        written += 1
except errors.Unavailable as error:
    print("refused after", written, error.retry_after_seconds > 0)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.append_audit(act)
print("rows", written + 1, len(store.list_ledger()))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bifrost.db"


@pytest.fixture
def store(path):
    opened = SqliteStore(path, busy_timeout_seconds=0.05)
    yield opened
    opened.close()


@pytest.fixture
def python():
    """Starts Python on a text of code with the import path of this process."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    started = []

    def start(code, *arguments):
        command = [sys.executable, "-c", code, *map(str, arguments)]
        started.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_kill_loses_no_acknowledged_event(path, new_execution, now, python):
    """After `kill -9` in the middle of appends every event that was acknowledged is there, without a gap."""
    store = SqliteStore(path)
    store.submit_execution(new_execution(), queue_limit=1)
    running = store.claim_execution(owner="runner", now=now, lease_seconds=10, organization_limit=1)
    store.close()
    process = python(APPENDER, path, running.id, running.fence)
    acknowledged = [int(process.stdout.readline()) for _ in range(200)]
    process.send_signal(signal.SIGKILL)
    acknowledged += [int(line) for line in process.stdout.read().split("\n")[:-1]]
    reopened = SqliteStore(path)
    kept = [event.seq for event in reopened.list_events(running.id, limit=1_000_000)]
    reopened.close()
    assert kept == list(range(1, len(kept) + 1))
    assert kept[-1] >= acknowledged[-1]


def test_a_full_disk_refuses_and_recovers(path, python):
    """Writes beyond the space are `Unavailable`, what was acknowledged stays, and more space is enough to go on."""
    process = python(FILLER, path)
    said = process.stdout.read()
    assert "refused after" in said
    assert "True" in said
    rows = said.split("rows ")[1].split()
    assert rows[0] == rows[1]


def test_the_files_are_readable_by_their_owner_alone(store, path, audit):
    """Database and write-ahead log have mode 0600, also when the file was open to others before."""
    store.append_audit(audit)
    for suffix in ("", "-wal", "-shm"):
        assert Path(f"{path}{suffix}").stat().st_mode & 0o777 == 0o600


def test_a_locked_database_is_unavailable_and_then_works(store, path, audit):
    """While another process holds the write lock callers are told to retry; afterwards nothing is lost."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(errors.Unavailable) as refused:
        store.append_audit(audit)
    assert 0 < refused.value.retry_after_seconds <= 5
    other.execute("ROLLBACK")
    other.close()
    store.append_audit(audit)
    assert len(store.list_ledger()) == 1


def test_one_failing_write_does_not_touch_those_beside_it(store, now, audit):
    """Of writes that are committed together, each succeeds or fails for itself."""
    store.create_organization(contract.Organization(id="acme", name="A", created_at=now), audit=audit)

    def create(number):
        key = "acme" if number % 2 else f"org-{number:02}"
        try:
            store.create_organization(contract.Organization(id=key, name="A", created_at=now), audit=audit)
        except errors.Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(create, range(40))) == 20
    assert len(store.list_organizations(limit=100)) == 21
    assert len(store.list_ledger()) == 21
    assert ledger.verify(store) is None


def test_concurrent_writers_share_commits(store, path, audit):
    """What waits while another process holds the lock is committed together once it is free."""
    slow = SqliteStore(path, busy_timeout_seconds=30)
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(slow.append_audit, audit) for _ in range(8)]
        threading.Timer(0.05, other.execute, ["ROLLBACK"]).start()
        for one in waiting:
            one.result()
    other.close()
    slow.close()
    assert len(store.list_ledger()) == 8


def test_a_text_without_a_utf8_form_is_refused_and_not_half_written(store, now, audit):
    """A lone surrogate in a name is the caller's mistake, not a broken store."""
    with pytest.raises(errors.ValidationError):
        store.create_organization(contract.Organization(id="acme", name="\ud800", created_at=now), audit=audit)
    assert store.find_organization("acme") is None
    store.check()


def test_a_commit_of_nothing_shows_nothing(store, claim, now, audit):
    """What was refused, or found nothing to change, never reached the disk."""
    with pytest.raises(errors.ValidationError):
        store.create_organization(contract.Organization(id="acme", name="\ud800", created_at=now), audit=audit)
    assert claim() is None
    assert not store.has_committed_within(60)
    store.check()
    assert store.has_committed_within(60)


def test_replaced_and_deleted_ciphertext_leaves_the_files(store, path, now, audit):
    """Neither the database nor its log holds a byte of what was replaced or deleted."""
    sealed = contract.SealedSecret(
        scope="acme", name="t", version=1, sealed=b"FIRST-CIPHERTEXT", updated_at=now, updated_by="a"
    )
    store.put_secret(sealed, audit=audit)
    store.put_secret(sealed.model_copy(update={"version": 2, "sealed": b"SECOND-CIPHERTEXT"}), audit=audit)
    store.delete_secret("acme", "t", audit=audit)
    store.check()
    files = b"".join(Path(f"{path}{suffix}").read_bytes() for suffix in ("", "-wal"))
    assert b"CIPHERTEXT" not in files


def test_a_file_that_is_no_database_is_refused_and_kept(path):
    """Another file of that name is not overwritten."""
    path.write_bytes(b"important" * 1000)
    with pytest.raises(errors.Unavailable):
        SqliteStore(path)
    assert path.read_bytes() == b"important" * 1000


def test_a_missing_folder_is_said(tmp_path):
    """The text names the file."""
    with pytest.raises(errors.Unavailable, match=r"gone.bifrost\.db"):
        SqliteStore(tmp_path / "gone" / "bifrost.db")


def test_a_database_of_a_newer_version_is_refused(store, path):
    """An unknown migration means that a newer version wrote it."""
    with sqlite3.connect(path) as other:
        other.execute("INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('bifrost', 'x', 'y')")
    other.close()
    with pytest.raises(errors.Unavailable, match="newer version"):
        SqliteStore(path)


def test_entries_carry_the_signature_of_the_signer(tmp_path, audit):
    """The store signs the hash of each entry with what it was given."""
    store = SqliteStore(tmp_path / "signed.db", sign=lambda text: f"signed:{text}")
    store.append_audit(audit)
    (entry,) = store.list_ledger()
    store.close()
    assert entry.signature == f"signed:{entry.hash}"


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE executions SET fence = NULL WHERE id = 'x'",
        "SELECT id FROM executions INDEXED BY executions_by_status "
        "WHERE organization = 'a' AND status = 'failed' AND id < 'z' ORDER BY id DESC LIMIT 50",
        "SELECT id FROM executions INDEXED BY executions_by_organization WHERE organization = 'a' ORDER BY id DESC",
    ],
)
def test_hot_statements_neither_scan_nor_sort(store, path, sql):
    """The plans of the hot path are index searches."""
    with sqlite3.connect(path) as other:
        plan = " ".join(row[3] for row in other.execute(f"EXPLAIN QUERY PLAN {sql}"))
    other.close()
    assert "SEARCH" in plan
    assert "SCAN" not in plan
    assert "TEMP B-TREE" not in plan
