"""What people do with a form: see it, ask for its options, keep a draft, submit it, submit it again.

`web` calls it. Each act asks `identity` first; a form that is not there, is another organization's or is for other
roles is one and the same 404. It starts nothing itself: what is submitted goes through `executions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bifrost_kernel import errors, models
from bifrost_scheduler import form_submission, forms, identity
from bifrost_scheduler.catalog import Catalog, Snapshot
from bifrost_scheduler.drafts import Drafts, DraftValues
from bifrost_scheduler.executions import Executions
from bifrost_scheduler.form_library import FormLibrary
from bifrost_scheduler.form_view import FormOrganization, FormView
from bifrost_scheduler.forms import Form
from bifrost_scheduler.identity import Principal
from bifrost_scheduler.options import Options
from bifrost_scheduler.store import contract
from bifrost_scheduler.submissions import FormUse

Permission = models.Permission


class FormDesk:
    def __init__(
        self, *, catalog: Catalog, library: FormLibrary, options: Options, executions: Executions, drafts: Drafts
    ) -> None:
        self._catalog = catalog
        self._library = library
        self._options = options
        self._executions = executions
        self._drafts = drafts

    # see

    def list_forms(self, principal: Principal, organization: str) -> list[Form]:
        """The forms that the principal may use there, by name; broken ones for whoever may manage forms.

        Raises:
            NotFound, Forbidden: the organization, or executing in it, is not the principal's.
        """
        self._enter(principal, organization)
        return [form for form in self._library.list_forms(organization) if _is_listed(principal, organization, form)]

    def get(self, principal: Principal, organization: str, name: str) -> Form:
        """The form, to be used by this principal for this organization.

        Raises:
            NotFound: there is none, or none for this principal.
            Forbidden: the principal may not execute its workflow.
            Conflict: it is broken; whoever may manage forms is told why.
        """
        self._enter(principal, organization)
        form = self._library.find(organization, name)
        if form is None:
            raise form_not_found(name)
        if form.workflow is None or form.reason is not None:
            raise _broken(principal, organization, form)
        if not identity.may_use_form(principal, organization, form.workflow, form.access):
            raise form_not_found(name)
        if form.workflow.requires_org and organization == models.GLOBAL:
            raise errors.ValidationError(f"The form {name!r} needs an organization: name it in X-Organization-Id.")
        return form

    def show(self, principal: Principal, organization: str, name: str) -> FormView:
        """The form as it is drawn: its fields, their choices as far as they are known. Raises as `get`."""
        form = self.get(principal, organization, name)
        found = self._executions.get_organization(principal, organization)
        return FormView(
            name=form.name,
            title=form.title,
            text=form.text,
            category=form.category,
            workflow=form.definition.workflow,
            source=form.source,
            organization=FormOrganization(id=found.id, name=found.name),
            submit_label=form.definition.submit_label,
            success_text=form.definition.success_text,
            requires_approval=form.workflow is not None and form.workflow.requires_approval,
            schema=forms.schema(form),
            fields=self._fields(organization, form),
            prefill=list(form.definition.prefill),
            code_hash=self._catalog.current().tree_hash,
            version=form.version,
        )

    def _fields(self, organization: str, form: Form) -> list[forms.Field]:
        """The fields to draw, with the options that are known already."""
        snapshot = self._catalog.current()
        shown = forms.fields(form, snapshot.data_providers)
        return [self._with_known_options(snapshot, organization, form, field) for field in shown]

    def _with_known_options(self, snapshot: Snapshot, organization: str, form: Form, field: forms.Field) -> forms.Field:
        # What depends on other fields changes while the form is filled in; a draft may change it at once.
        if field.options is None or field.options.depends_on:
            return field
        try:
            inputs = _provider_inputs(snapshot, form, field.name, {})
            cached = self._options.find_cached(snapshot, field.options.provider, organization, inputs)
        except errors.BifrostError:
            return field  # Asked for, it says what is wrong.
        if cached is None:
            return field
        known = field.options.model_copy(update={"cached_at": cached.cached_at, "items": cached.options})
        return field.model_copy(update={"options": known})

    # fill in

    def options(
        self, principal: Principal, organization: str, name: str, field: str, raw: Mapping[str, Any], *, refresh: bool
    ) -> contract.CachedOptions:
        """What a field offers, given the current values of the others. Raises as `get` does, and:

        Raises:
            NotFound: the form has no such field, or the field no options.
            ValidationError: a field that they depend on is empty or wrong.
            WorkflowError: the data provider's code failed.
            TooManyRequests: it was refreshed a moment ago.
        """
        form = self.get(principal, organization, name)
        editable = {param.name: param for param in forms.asked(form).params}
        param = editable.get(field)
        if param is None or param.data_provider is None:
            raise errors.NotFound(f"The form {name!r} has no field {field!r} with options.")
        snapshot = self._catalog.current()
        inputs = _provider_inputs(snapshot, form, field, raw)
        look = self._options.refresh if refresh else self._options.get
        return look(snapshot, param.data_provider, organization, inputs)

    def get_draft(self, principal: Principal, organization: str, name: str) -> DraftValues:
        """What this person has filled in so far. Raises as `get` does, and `Forbidden` for keys."""
        form = self.get(principal, organization, name)
        return self._drafts.get(principal, organization, name, _editable(form))

    def put_draft(self, principal: Principal, organization: str, name: str, values: Mapping[str, Any]) -> DraftValues:
        """Keep what this person has filled in. Raises as `get` does, and:

        Raises:
            Forbidden: it is a key.
            ValidationError: a name that is no field to fill in.
            LimitExceeded: it is too long.
        """
        form = self.get(principal, organization, name)
        return self._drafts.put(principal, organization, name, _editable(form), values)

    def delete_draft(self, principal: Principal, organization: str, name: str) -> None:
        """Raises as `get` does, and `Forbidden` for keys."""
        self.get(principal, organization, name)
        self._drafts.delete(principal, organization, name)

    # submit

    def submit(
        self,
        principal: Principal,
        organization: str,
        name: str,
        raw: Mapping[str, Any],
        *,
        idempotency_key: str | None = None,
    ) -> contract.Submitted:
        """Run the form's workflow with what was filled in and what is bound. Raises as `get` and `executions` do."""
        form = self.get(principal, organization, name)
        submitted = self._submit(
            principal, organization, form, raw, trigger=models.Trigger.FORM, idempotency_key=idempotency_key
        )
        if principal.kind != "key":
            self._drafts.delete(principal, organization, name)
        return submitted

    def rerun(self, principal: Principal, execution_id: str) -> contract.Submitted:
        """An execution again: directly for whoever may, else through its form, with what that binds now.

        Raises:
            NotFound: the execution, or its form, is not there for this principal.
            Forbidden: it came from no form, or the principal may not use it any more.
            Conflict: the form is broken, or one of another workflow now.
        """
        if not identity.needs_form(principal):
            return self._executions.rerun(principal, execution_id)
        original = self._executions.get(principal, execution_id)
        if original.form is None:
            identity.require_direct_execution(principal)
        form = self.get(principal, original.organization, original.form or "")
        if form.definition.workflow != original.workflow:
            raise errors.Conflict(f"The form {form.name!r} is one of another workflow now; fill it in anew.")
        return self._submit(
            principal,
            original.organization,
            form,
            _filled_in(form, original),
            trigger=models.Trigger.RERUN,
            rerun_of=original.id,
        )

    def _submit(
        self,
        principal: Principal,
        organization: str,
        form: Form,
        raw: Mapping[str, Any],
        *,
        trigger: models.Trigger,
        idempotency_key: str | None = None,
        rerun_of: str | None = None,
    ) -> contract.Submitted:
        submission = form_submission.submission(form, raw)
        use = FormUse(name=form.name, sent=dict(raw), hidden=submission.hidden, lifted=submission.lifted)
        try:
            return self._executions.submit(
                principal,
                organization=organization,
                workflow=form.definition.workflow,
                parameters=submission.values,
                trigger=trigger,
                idempotency_key=idempotency_key,
                rerun_of=rerun_of,
                form=use,
            )
        except errors.ValidationError as error:
            raise _without_bound(form, error) from None

    def _enter(self, principal: Principal, organization: str) -> None:
        self._executions.get_organization(principal, organization)
        identity.authorize(principal, Permission.EXECUTE_WORKFLOWS, organization)


def form_not_found(name: str) -> errors.NotFound:
    """The one text for a form that is unknown, switched off or for others."""
    return errors.NotFound(f"There is no form {name!r}.")


def _is_listed(principal: Principal, organization: str, form: Form) -> bool:
    if form.workflow is None or form.reason is not None:
        return identity.manages_forms(principal, organization)
    if form.workflow.requires_org and organization == models.GLOBAL:
        return False
    try:
        return identity.may_use_form(principal, organization, form.workflow, form.access)
    except errors.Forbidden:
        return False


def _broken(principal: Principal, organization: str, form: Form) -> errors.Conflict:
    if identity.manages_forms(principal, organization):
        return errors.Conflict(f"The form {form.name!r} is broken: {form.reason}.")
    return errors.Conflict(f"The form {form.name!r} cannot be used at the moment; tell who manages forms.")


def _filled_in(form: Form, original: contract.Execution) -> dict[str, Any]:
    """What was given when the form was filled in, and is not bound now; what was hidden then is nobody's to give."""
    left_out = {*form.bound, *original.hidden_inputs}
    return {name: value for name, value in original.parameters.items() if value is not None and name not in left_out}


def _editable(form: Form) -> frozenset[str]:
    return frozenset(param.name for param in forms.asked(form).params)


def _needed_first(name: str, params: Mapping[str, models.ParamMetadata]) -> errors.FieldError:
    label = params[name].label if name in params else name
    return errors.FieldError(name, "missing", f"{label} is needed first.")


def _without_bound(form: Form, error: errors.ValidationError) -> errors.BifrostError:
    """The refusal of a bound value is nothing that who fills in the form could mend, nor may read."""
    if any(field.field in form.bound for field in error.fields):
        return errors.Conflict(f"The form {form.name!r} binds a value that is refused now; tell who manages forms.")
    return error


def _provider_inputs(snapshot: Snapshot, form: Form, field: str, raw: Mapping[str, Any]) -> dict[str, Any]:
    """What the field's data provider is asked with, out of the other fields and what is bound."""
    params = {param.name: param for param in forms.asked(form).params}
    provider = snapshot.get_data_provider(params[field].data_provider or "")
    inputs = forms.provider_inputs(params[field], provider, form_submission.current_values(form, raw))
    sources = forms.provider_sources(params[field], provider)
    missing = [
        _needed_first(sources[one.name], params)
        for one in provider.params
        if one.required and one.name in sources and one.name not in inputs
    ]
    if missing:
        raise errors.ValidationError(" ".join(error.message for error in missing), missing)
    return inputs
