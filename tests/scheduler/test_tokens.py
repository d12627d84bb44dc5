"""API keys and kernel tokens."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from bifrost_kernel import models
from bifrost_scheduler import tokens


@pytest.fixture
def made(store, now, audit):
    """A stored key and its text, valid for an hour."""
    key, text = tokens.make_api_key(
        name="ci",
        organizations=("acme",),
        workflows=None,
        permissions=("canExecuteWorkflows",),
        created_by="user:a",
        now=now,
        expires_at=now + timedelta(hours=1),
    )
    store.create_key(key, audit=audit)
    return key, text


def grant(execution_id="e1"):
    caller = models.Caller(subject="key:1")
    return tokens.Grant(execution_id=execution_id, organization="acme", caller=caller, name="w", fence="f")


def test_a_key_is_found_by_its_text(store, made, now):
    """The text that was shown once finds the row."""
    key, text = made
    assert tokens.find_api_key(store, text, now=now) == key


def test_the_row_does_not_hold_the_text(made):
    """Nothing of the secret part stands in what is stored."""
    key, text = made
    assert text.removeprefix(f"bfk_{key.id}_") not in key.model_dump_json()


def test_an_expired_key_is_none(store, made, now):
    """From the instant of expiry on."""
    assert tokens.find_api_key(store, made[1], now=now + timedelta(hours=1)) is None


def test_a_deleted_key_is_none(store, made, now, audit):
    """At once."""
    store.delete_key(made[0].id, audit=audit)
    assert tokens.find_api_key(store, made[1], now=now) is None


@pytest.mark.parametrize(
    "text", ["", "test", "undefined", "bfk_", "x" * 10_000, "bfk_" + "0" * 16 + "_" + "A" * 43, "bfk_\ud800_x"]
)
def test_anything_else_is_none(store, made, now, text):
    """Empty, well-known, malformed and unknown keys are all nobody's."""
    assert tokens.find_api_key(store, text, now=now) is None


def test_one_changed_character_is_none(store, made, now):
    """In the secret part, and with something behind it."""
    _, text = made
    changed = text[:-1] + ("A" if text[-1] != "A" else "B")
    assert tokens.find_api_key(store, changed, now=now) is None
    assert tokens.find_api_key(store, text + "\n", now=now) is None


def test_a_kernel_token_stands_for_its_grant_until_it_is_revoked():
    """Another token, also one character off, stands for nothing."""
    live = tokens.ExecutionTokens()
    token = live.issue(grant())
    assert live.find(token) == grant()
    assert live.find(token[:-1]) is None
    live.revoke(token)
    assert live.find(token) is None


def test_the_tokens_of_an_execution_end_together():
    """Those of another execution live on."""
    live = tokens.ExecutionTokens()
    first, second, other = live.issue(grant()), live.issue(grant()), live.issue(grant("e2"))
    live.revoke_execution("e1")
    assert [live.find(token) for token in (first, second)] == [None, None]
    assert live.find(other) == grant("e2")


def test_kernel_tokens_hold_under_concurrency():
    """Eight threads that issue, find and revoke never see each other's grant."""
    live = tokens.ExecutionTokens()

    def use(number):
        token = live.issue(grant(f"e{number}"))
        found = live.find(token)
        live.revoke(token)
        return found.execution_id == f"e{number}" and live.find(token) is None

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(200)))
