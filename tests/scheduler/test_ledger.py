"""What `audit verify` finds."""

from __future__ import annotations

import sqlite3

import pytest

from bifrost_kernel import errors
from bifrost_scheduler import ledger
from bifrost_scheduler.identity import Principal
from bifrost_scheduler.store import chain
from bifrost_scheduler.store.sqlite import SqliteStore


@pytest.fixture
def signer(tmp_path):
    return ledger.load_signer(tmp_path)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "bifrost.db"


@pytest.fixture
def store(path, signer, audit):
    """Five signed entries."""
    opened = SqliteStore(path, sign=signer.sign)
    for number in range(5):
        opened.append_audit(audit.model_copy(update={"details": {"n": number}}))
    yield opened
    opened.close()


@pytest.fixture
def tamper(path):
    def execute(sql, *parameters):
        with sqlite3.connect(path) as other:
            other.execute(sql, parameters)
        other.close()

    return execute


def test_an_untouched_chain_is_sound(store, signer):
    """With and without the key, and through its own head."""
    assert ledger.verify(store) is None
    assert ledger.verify(store, public_key=signer.public_key, expected=ledger.head(store)) is None


def test_an_empty_chain_is_sound(tmp_path):
    """Its head is the genesis."""
    empty = SqliteStore(tmp_path / "empty.db")
    assert ledger.verify(empty) is None
    assert ledger.head(empty) == ledger.Head(seq=0, hash=chain.GENESIS)
    empty.close()


@pytest.mark.parametrize(
    ("sql", "broken"),
    [
        ("UPDATE ledger SET body = replace(body, '\"n\":2', '\"n\":9') WHERE seq = 3", 3),
        ("UPDATE ledger SET execution_id = 'x' WHERE seq = 3", 3),
        ("UPDATE ledger SET kind = 'execution' WHERE seq = 3", 3),
        ("UPDATE ledger SET hash = replace(hash, substr(hash, 1, 1), 'z') WHERE seq = 5", 5),
        ("DELETE FROM ledger WHERE seq = 2", 2),
        ("DELETE FROM ledger WHERE seq = 1", 1),
        ("UPDATE ledger SET seq = CASE seq WHEN 2 THEN -3 ELSE -2 END WHERE seq IN (2, 3)", 2),
    ],
)
def test_the_first_broken_entry_is_named(store, tamper, sql, broken):
    """A flipped byte, a changed column, a deleted or a reordered entry."""
    tamper(sql)
    tamper("UPDATE ledger SET seq = -seq WHERE seq < 0")
    assert ledger.verify(store) == broken


@pytest.mark.parametrize(("kept", "broken"), [(3, 4), (0, 1)])
def test_a_cut_end_is_found_beside_an_exported_head(store, tamper, kept, broken):
    """Without the head it cannot be: what is left is a sound chain."""
    head = ledger.head(store)
    tamper("DELETE FROM ledger WHERE seq > ?", kept)
    assert ledger.verify(store) is None
    assert ledger.verify(store, expected=head) == broken


def test_a_chain_written_anew_with_another_key_is_found(store, signer, tamper, tmp_path):
    """Hashes can be computed by everybody, signatures cannot."""
    (tmp_path / "other").mkdir()
    foreign = ledger.load_signer(tmp_path / "other")
    last = store.find_ledger_head()
    body = last.body.replace('"n":4', '"n":9')
    link = chain.link_hash(last.prev_hash, body)
    tamper("UPDATE ledger SET body = ?, hash = ?, signature = ? WHERE seq = 5", body, link, foreign.sign(link))
    assert ledger.verify(store) is None
    assert ledger.verify(store, public_key=signer.public_key) == 5


@pytest.mark.parametrize("signature", ["", "zz", "00" * 64])
def test_a_missing_signature_is_found(store, signer, tamper, signature):
    """Also one that is no hex, or of zeros."""
    tamper("UPDATE ledger SET signature = ? WHERE seq = 2", signature)
    assert ledger.verify(store, public_key=signer.public_key) == 2


def test_the_signing_key_is_made_once_and_for_its_owner(tmp_path, signer):
    """A second start signs with the same key; one that others can read is refused."""
    assert ledger.load_signer(tmp_path).public_key == signer.public_key
    key = tmp_path / ledger.KEY_FILE
    assert key.stat().st_mode & 0o777 == 0o600
    key.chmod(0o644)
    with pytest.raises(errors.Unavailable, match="chmod 600"):
        ledger.load_signer(tmp_path)


def test_a_damaged_signing_key_is_refused_and_kept(tmp_path, signer):
    """It is not replaced by a new one."""
    (tmp_path / ledger.KEY_FILE).write_bytes(b"short")
    with pytest.raises(errors.Unavailable):
        ledger.load_signer(tmp_path)
    assert (tmp_path / ledger.KEY_FILE).read_bytes() == b"short"


def test_an_entry_says_who_did_what_where():
    """The actor is the principal, the time an aware one."""
    actor = Principal(subject="user:a@x.com", kind="user", email="a@x.com")
    entry = ledger.audit(actor, "config.set", organization="acme", target="size", details={"type": "int"})
    assert (entry.actor, entry.action, entry.organization, entry.target) == (
        "user:a@x.com",
        "config.set",
        "acme",
        "size",
    )
    assert entry.at.tzinfo is not None


def test_canonical_text_is_one_for_one_value():
    """The order of keys and the characters of a text make no difference in form."""
    assert chain.canonical({"b": "ü\n", "a": 1}) == '{"a":1,"b":"\\u00fc\\n"}'
