"""Half-filled forms: one per person, organization and form, encrypted, and forgotten after 30 days.

`form_desk` calls it. What customers have typed stands in no audit entry and in no log.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from bifrost_kernel import errors, models
from bifrost_scheduler.identity import Principal
from bifrost_scheduler.secret_store.contract import SecretStore
from bifrost_scheduler.store import contract, form_contract

KEPT = timedelta(days=30)
MAX_BYTES = 64 * 1024
_KIND = "draft"


class DraftValues(models.Frozen):
    """What was filled in; `updated_at` None means that nothing was."""

    values: dict[str, Any]
    updated_at: datetime | None = None


def _now() -> datetime:
    return datetime.now(UTC)


class Drafts:
    def __init__(self, *, store: contract.Store, secrets: SecretStore, clock: Callable[[], datetime] = _now) -> None:
        self._store = store
        self._secrets = secrets
        self._clock = clock

    def get(self, principal: Principal, organization: str, form: str, editable: Collection[str]) -> DraftValues:
        """The values of fields that the form still has.

        Raises:
            Forbidden: keys have no drafts.
        """
        _require_person(principal)
        oldest = self._clock() - KEPT
        draft = self._store.find_draft(principal.subject, organization, form, not_before=oldest)
        if draft is None:
            return DraftValues(values={})
        values = self._secrets.open_json(draft.sealed, **_place(principal, organization, form))
        kept = {name: value for name, value in values.items() if name in editable}
        return DraftValues(values=kept, updated_at=draft.updated_at)

    def put(
        self,
        principal: Principal,
        organization: str,
        form: str,
        editable: Collection[str],
        values: Mapping[str, Any],
    ) -> DraftValues:
        """
        Raises:
            Forbidden: keys have no drafts.
            ValidationError: a name that is no field to fill in.
            LimitExceeded: over 64 KB.
        """
        _require_person(principal)
        _check(form, editable, values)
        now = self._clock()
        sealed = self._secrets.seal_json(dict(values), **_place(principal, organization, form))
        draft = form_contract.Draft(
            subject=principal.subject, organization=organization, form=form, sealed=sealed, updated_at=now
        )
        self._store.put_draft(draft, oldest=now - KEPT)
        return DraftValues(values=dict(values), updated_at=now)

    def delete(self, principal: Principal, organization: str, form: str) -> None:
        """Raises `Forbidden`: keys have no drafts."""
        _require_person(principal)
        self._store.delete_draft(principal.subject, organization, form)


def _check(form: str, editable: Collection[str], values: Mapping[str, Any]) -> None:
    unknown = [name for name in values if name not in editable]
    if unknown:
        wrong = [errors.FieldError(name, "unknown", f"The form {form!r} has no field {name!r}.") for name in unknown]
        raise errors.ValidationError(" ".join(error.message for error in wrong[:10]), wrong)
    if len(json.dumps(values, ensure_ascii=False).encode()) > MAX_BYTES:
        raise errors.LimitExceeded(f"A draft has at most {MAX_BYTES // 1024} KB; this limit has no setting.")


def _place(principal: Principal, organization: str, form: str) -> dict[str, Any]:
    """What a draft is sealed for: moved to another person, organization or form it does not open."""
    return {"kind": _KIND, "scope": organization, "name": json.dumps([principal.subject, form]), "version": 1}


def _require_person(principal: Principal) -> None:
    if principal.kind == "key":
        raise errors.Forbidden("drafts are for people; a key has none")
