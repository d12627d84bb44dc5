"""Form objects and drafts in a store of each kind: versions, scopes, persons, and what is forgotten."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from bifrost_kernel import errors
from bifrost_scheduler.store import contract, form_contract

NewForm = Callable[..., form_contract.StoredForm]
NewDraft = Callable[..., form_contract.Draft]


@pytest.fixture
def new_form(now: datetime) -> NewForm:
    def make(name: str = "hiring", **fields: Any) -> form_contract.StoredForm:
        given = {"scope": "acme", "name": name, "definition": {"workflow": "hire"}}
        return form_contract.StoredForm(**{**given, "updated_at": now, "updated_by": "user:a", **fields})

    return make


@pytest.fixture
def new_draft(now: datetime) -> NewDraft:
    """Makes a draft that is some days old."""

    def make(subject: str = "user:a", *, days: int = 0, sealed: bytes = b"sealed") -> form_contract.Draft:
        return form_contract.Draft(
            subject=subject, organization="acme", form="hiring", sealed=sealed, updated_at=now - timedelta(days=days)
        )

    return make


def test_a_form_comes_back_under_the_next_version(
    store: contract.Store, audit: contract.AuditEntry, new_form: NewForm
) -> None:
    """Each write counts on, also after a deletion; each has its entry."""
    first = store.put_form(new_form(), audit=audit)
    second = store.put_form(new_form(definition={"workflow": "hire", "title": "Ä"}), audit=audit)
    assert (first.version, second.version, store.find_form("acme", "hiring")) == (1, 2, second)
    store.delete_form("acme", "hiring", audit=audit)
    assert store.find_form("acme", "hiring") is None
    assert store.put_form(new_form(), audit=audit).version == 3
    assert len(store.list_ledger()) == 4


def test_forms_of_a_scope_are_its_own(store: contract.Store, audit: contract.AuditEntry, new_form: NewForm) -> None:
    """They are listed by name, page by page; another scope's are not there."""
    for name in ("c", "a", "b"):
        store.put_form(new_form(name), audit=audit)
    assert [form.name for form in store.list_forms("acme", limit=2)] == ["a", "b"]
    assert [form.name for form in store.list_forms("acme", after="b")] == ["c"]
    assert store.list_forms("globex") == []
    assert store.find_form("globex", "a") is None


def test_a_form_that_is_not_there_is_not_deleted(
    store: contract.Store, audit: contract.AuditEntry, new_form: NewForm
) -> None:
    """Another scope's form of that name stays, and nothing is entered."""
    store.put_form(new_form(), audit=audit)
    with pytest.raises(errors.NotFound):
        store.delete_form("globex", "hiring", audit=audit)
    assert len(store.list_ledger()) == 1


def test_drafts_are_of_a_person_and_forgotten_in_time(
    store: contract.Store, new_draft: NewDraft, now: datetime
) -> None:
    """A draft replaces the one before; an old one is not found, and goes when another is kept."""
    store.put_draft(new_draft(days=31), oldest=now - timedelta(days=60))
    assert store.find_draft("user:a", "acme", "hiring", not_before=now - timedelta(days=30)) is None
    store.put_draft(new_draft("user:b"), oldest=now - timedelta(days=30))
    assert store.find_draft("user:a", "acme", "hiring", not_before=now - timedelta(days=60)) is None
    store.put_draft(new_draft("user:b", sealed=b"newer"), oldest=now - timedelta(days=30))
    found = store.find_draft("user:b", "acme", "hiring", not_before=now)
    assert found == new_draft("user:b", sealed=b"newer")
    store.delete_draft("user:b", "acme", "hiring")
    store.delete_draft("user:b", "acme", "hiring")
    assert store.find_draft("user:b", "acme", "hiring", not_before=now) is None


def test_the_form_of_an_execution_is_kept(store: contract.Store, submit: Callable[..., contract.Execution]) -> None:
    """With the names of what it hid; a search in inputs does not look into those executions."""
    hid = submit(parameters={"name": "needle"}, form="hiring", hidden_inputs=("name",))
    open_ = submit(parameters={"name": "needle"}, form="hiring")
    found = store.find_execution(hid.id)
    assert found is not None
    assert (found.form, found.hidden_inputs) == ("hiring", ("name",))
    listed = store.list_executions(contract.ExecutionFilter(organizations=("acme",), text="needle"))
    assert [row.id for row in listed] == [open_.id]
