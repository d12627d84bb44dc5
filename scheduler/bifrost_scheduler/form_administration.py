"""What managers of forms do: set, list, delete form objects of a scope. Each act is authorized and audited here.

`web` calls it. An organization's form objects are its own, whoever made them; those of `GLOBAL` and of the workspace
are the platform's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import PlainSerializer

from bifrost_kernel import errors, models
from bifrost_kernel.form_definitions import MAX_DEFINITION_BYTES, FormDefinition
from bifrost_scheduler import identity, ledger
from bifrost_scheduler.catalog import Catalog
from bifrost_scheduler.form_library import FormLibrary
from bifrost_scheduler.forms import Source
from bifrost_scheduler.identity import Principal
from bifrost_scheduler.store import contract
from bifrost_scheduler.store.form_contract import StoredForm


def _as_given(definition: FormDefinition) -> dict[str, Any]:
    return definition.model_dump(mode="json", exclude_unset=True)


class Definition(models.Frozen):
    """A form object as its managers see it, hidden values included; one of the workspace is read-only."""

    name: str
    scope: str
    source: Source
    definition: Annotated[FormDefinition, PlainSerializer(_as_given)] | None = None
    version: int | None = None
    updated_at: datetime | None = None
    updated_by: str | None = None
    broken: str | None = None


class FormAdministration:
    def __init__(self, *, store: contract.Store, catalog: Catalog, library: FormLibrary) -> None:
        self._store = store
        self._catalog = catalog
        self._library = library

    def put(self, principal: Principal, scope: str, name: str, definition: FormDefinition) -> Definition:
        """Create or replace a form object.

        Raises:
            NotFound, Forbidden: the scope is not the principal's to manage.
            ValidationError: it does not fit its workflow, or names organizations that it must not.
        """
        self._authorize(principal, scope)
        self._check_organizations(scope, definition)
        self._library.check(definition)
        content = _as_given(definition)
        _check_size(content)
        stored = self._store.put_form(
            StoredForm(
                scope=scope,
                name=name,
                definition=content,
                updated_at=datetime.now(UTC),
                updated_by=principal.subject,
            ),
            audit=ledger.audit(principal, "form.set", organization=scope, target=name, details=_told(definition)),
        )
        (made,) = self._of_store([stored])
        return made

    def delete(self, principal: Principal, scope: str, name: str) -> None:
        """What it replaced is there again. Raises as `put` does, and `NotFound` when there is none."""
        self._authorize(principal, scope)
        self._store.delete_form(
            scope, name, audit=ledger.audit(principal, "form.delete", organization=scope, target=name)
        )

    def get(self, principal: Principal, scope: str, name: str) -> Definition:
        """Raises `NotFound`, `Forbidden`."""
        found = next((one for one in self.list_definitions(principal, scope) if one.name == name), None)
        if found is None:
            raise errors.NotFound(f"There is no form object {name!r} in {scope}.")
        return found

    def list_definitions(self, principal: Principal, scope: str) -> Sequence[Definition]:
        """The form objects of exactly this scope by name; with `GLOBAL` those of the workspace that none replaces."""
        self._authorize(principal, scope)
        stored = {one.name: one for one in self._of_store(list(self._library.list_stored(scope)))}
        below = self._of_workspace() if scope == models.GLOBAL else {}
        return [one for _, one in sorted({**below, **stored}.items())]

    def _of_store(self, rows: Sequence[StoredForm]) -> list[Definition]:
        return [
            Definition(
                name=row.name,
                scope=row.scope,
                source=Source.STORE,
                # As it was set: what the platform binds besides is not the organization's to read.
                definition=FormDefinition.model_validate(row.definition),
                version=row.version,
                updated_at=row.updated_at,
                updated_by=row.updated_by,
                broken=form.reason,
            )
            for row, form in zip(rows, self._library.resolve(rows), strict=True)
        ]

    def _of_workspace(self) -> dict[str, Definition]:
        described = self._catalog.current().description
        good = {form.name: FormDefinition.model_validate(form.definition) for form in described.forms}
        shown = {
            name: Definition(
                name=name,
                scope=models.GLOBAL,
                source=Source.WORKSPACE,
                definition=definition,
                broken=self._library.find_problem(definition),
            )
            for name, definition in good.items()
        }
        for one in described.broken:
            if one.kind == "form" and one.name:
                reason = f"{one.source.file}:{one.source.line}: {one.reason}"
                shown[one.name] = Definition(name=one.name, scope=models.GLOBAL, source=Source.WORKSPACE, broken=reason)
        return shown

    def _check_organizations(self, scope: str, definition: FormDefinition) -> None:
        named = definition.organizations or ()
        if scope != models.GLOBAL and definition.organizations is not None:
            raise _wrong_organizations(f"A form of {scope} is for {scope} alone; leave organizations out.")
        unknown = [one for one in named if self._store.find_organization(one) is None]
        if unknown:
            raise _wrong_organizations(f"There is no organization {unknown[0]!r}.")

    def _authorize(self, principal: Principal, scope: str) -> None:
        if scope != models.GLOBAL and identity.may_see(principal, scope):
            organization = self._store.find_organization(scope)
            if organization is None or not organization.active:
                raise identity.organization_not_found(scope)
        identity.authorize(principal, models.Permission.MANAGE_FORMS, scope)


def _check_size(content: dict[str, Any]) -> None:
    if len(json.dumps(content, ensure_ascii=False).encode()) > MAX_DEFINITION_BYTES:
        raise errors.LimitExceeded(f"A form has at most {MAX_DEFINITION_BYTES // 1024} KB; this limit has no setting.")


def _told(definition: FormDefinition) -> dict[str, Any]:
    """What the audit keeps of a definition: what it binds by name, and by a hash that it was this one."""
    text = definition.model_dump_json(exclude_unset=True)
    return {
        "workflow": definition.workflow,
        "fixed": sorted(definition.fixed),
        "hidden": sorted(definition.hidden),
        "enabled": definition.enabled,
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }


def _wrong_organizations(message: str) -> errors.ValidationError:
    return errors.ValidationError(message, [errors.FieldError("organizations", "choice", message)])
