"""Which forms an organization has: its own, the platform's, the workspace's, and the automatic ones, in this order.

`form_desk` and `form_administration` ask it. It is the one place that resolves a name; it decides no permission.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bifrost_kernel import errors, models
from bifrost_kernel.form_definitions import FormDefinition
from bifrost_scheduler import form_fit, forms, identity, scope
from bifrost_scheduler.catalog import Catalog, Snapshot
from bifrost_scheduler.forms import Form, Source
from bifrost_scheduler.store import contract
from bifrost_scheduler.store.form_contract import StoredForm


class FormLibrary:
    def __init__(self, *, store: contract.Store, catalog: Catalog) -> None:
        self._store = store
        self._catalog = catalog

    def find(self, organization: str, name: str) -> Form | None:
        """The form of this name; None when there is none, or it is switched off, or for other organizations."""
        snapshot = self._catalog.current()
        stored = scope.resolve(organization, lambda one: self._store.find_form(one, name))
        form = self._of_store(snapshot, stored[1]) if stored else _of_snapshot(snapshot, name)
        return form if form and _is_there(form, organization) else None

    def list_forms(self, organization: str) -> list[Form]:
        """Every form of the organization by name, broken ones included."""
        snapshot = self._catalog.current()
        scopes = reversed(scope.search_order(organization))
        stored = {row.name: row for one in scopes for row in self.list_stored(one)}
        found = [
            self._of_store(snapshot, stored[name]) if name in stored else _of_snapshot(snapshot, name)
            for name in sorted({*stored, *_names(snapshot)})
        ]
        return [form for form in found if form is not None and _is_there(form, organization)]

    def list_stored(self, one_scope: str) -> Iterator[StoredForm]:
        """The form objects of exactly this scope, by name."""
        after: str | None = None
        while page := self._store.list_forms(one_scope, after=after):
            yield from page
            after = page[-1].name

    def resolve(self, rows: Iterable[StoredForm]) -> list[Form]:
        """These form objects with their workflows and what is wrong with them."""
        snapshot = self._catalog.current()
        return [self._of_store(snapshot, row) for row in rows]

    def check(self, definition: FormDefinition) -> None:
        """Refuse a definition that does not fit the workspace as it is now.

        Raises:
            ValidationError: it says why.
        """
        if reason := self.find_problem(definition):
            raise errors.ValidationError(f"The form is refused: {reason}.", [errors.FieldError("form", "form", reason)])

    def find_problem(self, definition: FormDefinition) -> str | None:
        """Why a definition does not fit the workspace as it is now, if so."""
        return _problem(self._catalog.current(), definition)

    def _of_store(self, snapshot: Snapshot, row: StoredForm) -> Form:
        below = _of_snapshot(snapshot, row.name)
        form = Form(
            name=row.name,
            source=Source.STORE,
            definition=FormDefinition.model_validate(row.definition),
            version=row.version,
            replaces=below.source if below else None,
        )
        return _fitted(snapshot, form if row.scope == models.GLOBAL else self._within_platform(snapshot, form))

    def _within_platform(self, snapshot: Snapshot, own: Form) -> Form:
        """What the platform's form of the same workflow binds and limits holds for an organization's form too."""
        workflow = own.definition.workflow
        row = self._store.find_form(models.GLOBAL, workflow)
        if row is None and snapshot.find_broken("form", workflow):
            return own.model_copy(update={"reason": f"the platform's form {workflow!r} is broken"})
        platform = FormDefinition.model_validate(row.definition) if row else _of_workspace(snapshot, workflow)
        if platform is None or platform.workflow != workflow:
            return own
        return own.model_copy(
            update={"definition": forms.within(platform, own.definition), "access": (_access(platform),)}
        )


def _of_snapshot(snapshot: Snapshot, name: str) -> Form | None:
    """The workspace's form of this name, else the automatic one."""
    below = _automatic(snapshot, name)
    if broken := snapshot.find_broken("form", name):
        # Not the automatic one instead: it would ask for what the broken one binds.
        return _broken(name, Source.WORKSPACE, broken)
    if definition := _of_workspace(snapshot, name):
        replaces = below.source if below else None
        form = Form(name=name, source=Source.WORKSPACE, definition=definition, replaces=replaces)
        return _fitted(snapshot, form)
    return below


def _automatic(snapshot: Snapshot, name: str) -> Form | None:
    if broken := snapshot.find_broken("workflow", name):
        return _broken(name, Source.AUTOMATIC, broken)
    workflow = snapshot.find_workflow(name)
    if workflow is None or not workflow.expose_in_forms:
        return None
    return _fitted(snapshot, Form(name=name, source=Source.AUTOMATIC, definition=forms.automatic(workflow)))


def _of_workspace(snapshot: Snapshot, name: str) -> FormDefinition | None:
    found = snapshot.find_form(name)
    return FormDefinition.model_validate(found.definition) if found else None


def _broken(name: str, source: Source, broken: models.BrokenDeclaration) -> Form:
    reason = f"{broken.source.file}:{broken.source.line}: {broken.reason}"
    # The name may be one of a file, which no form could have: it is shown as it is.
    return Form(name=name, source=source, definition=FormDefinition.model_construct(workflow=name), reason=reason)


def _fitted(snapshot: Snapshot, form: Form) -> Form:
    """The form with its workflow, or with the reason why it cannot be used."""
    return form.model_copy(
        update={
            "workflow": snapshot.find_workflow(form.definition.workflow),
            "reason": form.reason or _problem(snapshot, form.definition),
            "access": (_access(form.definition), *form.access),
        }
    )


def _problem(snapshot: Snapshot, definition: FormDefinition) -> str | None:
    try:
        workflow = snapshot.get_workflow(definition.workflow)
    except (errors.NotFound, errors.Conflict) as error:
        return error.message.removesuffix(".")
    return form_fit.find_problem(definition, workflow)


def _is_there(form: Form, organization: str) -> bool:
    """Also a broken form of others is none of this organization's business."""
    return all(identity.is_for_organization(one, organization) for one in form.access)


def _access(definition: FormDefinition) -> identity.FormAccess:
    return identity.FormAccess(
        organizations=definition.organizations, roles=definition.roles, enabled=definition.enabled
    )


def _names(snapshot: Snapshot) -> Iterator[str]:
    described = snapshot.description
    yield from (workflow.name for workflow in described.workflows if workflow.expose_in_forms)
    yield from (form.name for form in described.forms)
    yield from (one.name for one in described.broken if one.name and one.kind in ("form", "workflow"))
