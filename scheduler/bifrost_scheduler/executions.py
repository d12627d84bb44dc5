"""The life of an execution: submit, cancel, approve, reject, re-run, finish.

Every path (API, form, schedule, CLI, notebook) comes in by `submit` and every execution ends in `finish`. `web`,
`runner` and `authoring` call it. It never runs anything: the runner claims what it submits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from bifrost_kernel import errors, models, params
from bifrost_scheduler import identity, ledger, signals, submissions
from bifrost_scheduler.catalog import Catalog
from bifrost_scheduler.identity import Principal
from bifrost_scheduler.options import Options
from bifrost_scheduler.records import Records
from bifrost_scheduler.settings import Settings
from bifrost_scheduler.store import contract
from bifrost_scheduler.store.schedule_contract import Scheduled

MAX_ID_CHARS = 64


class UnrunRecorder(Protocol):
    """Makes the record of an execution whose code never ran."""

    def __call__(self, execution: contract.Execution, outcome: contract.Outcome) -> bytes: ...


class Executions:
    def __init__(
        self,
        *,
        settings: Settings,
        store: contract.Store,
        catalog: Catalog,
        options: Options,
        notices: signals.Signals,
        records: Records,
        record_unrun: UnrunRecorder,
    ) -> None:
        self._settings = settings
        self._store = store
        self._catalog = catalog
        self._options = options
        self._signals = notices
        self._records = records
        self._record_unrun = record_unrun
        # One at a time: the record of whoever comes second must not replace the one that was sealed.
        self._ending = threading.RLock()
        self.on_pending: Callable[[], None] = lambda: None
        """Called when there is something to claim; the runner puts its wake-up here."""
        self.find_refusal: Callable[[], str | None] = lambda: None
        """Why nothing can run on this machine, if so; the runner tells."""
        self.on_finished: Callable[[contract.Execution], None] = lambda execution: None
        """Called with every execution that has ended; the schedules' clock listens."""
        self.on_cancel: Callable[[str], None] = lambda execution_id: None
        """Called with the id of a running execution that somebody wants ended."""

    # in

    def submit(
        self,
        principal: Principal,
        *,
        organization: str,
        workflow: str,
        parameters: Mapping[str, Any],
        trigger: models.Trigger,
        idempotency_key: str | None = None,
        rerun_of: str | None = None,
        form: submissions.FormUse | None = None,
        scheduled: Scheduled | None = None,
    ) -> contract.Submitted:
        """Check everything, then write the execution; what is refused leaves no row.

        Args:
            form: the form that the inputs come from; it stands in for the right to execute directly.
            scheduled: its due times are written in the same transaction, and the principal is whose rights it has.

        Raises:
            NotFound: unknown or inactive or foreign organization; unknown workflow.
            Forbidden: the principal may not run it this way.
            Conflict: the workflow is broken; the idempotency key was used with another body.
            ValidationError: all wrong fields.
            TooManyRequests: the organization's queue is full.
            AccountedElsewhere: the due time has its row already.
            Unavailable: kernels cannot be enclosed on this machine.
        """
        if organization != models.GLOBAL:
            self.get_organization(principal, organization)
        snapshot = self._catalog.current()
        metadata = snapshot.get_workflow(workflow)
        # Whoever forgot to name an organization is told so, also when GLOBAL is not theirs.
        submissions.require_organization(metadata, organization)
        identity.authorize_execution(principal, organization, metadata, trigger, through_form=form is not None)
        idempotency = submissions.idempotency_of(
            principal, idempotency_key, parameters if form is None else submissions.sent(form)
        )
        if replay := self._find_replay(organization, workflow, idempotency):
            return contract.Submitted(execution=replay, replayed=True)
        values = params.validate(submissions.lifted(metadata, form), parameters)
        if reason := self.find_refusal():
            raise errors.Unavailable(reason)
        self._options.check(snapshot, metadata, organization, values)
        new = submissions.new_execution(principal, organization, snapshot, metadata, values, trigger, rerun_of, form)
        submitted = self._store.submit_execution(
            new if scheduled is None else submissions.as_scheduled(new, metadata, scheduled),
            idempotency=idempotency,
            queue_limit=self._settings.organization_queue_limit,
            firing=scheduled.firing if scheduled else None,
            retried=scheduled.retried if scheduled else None,
        )
        self._signals.notify(submitted.execution.id)
        self.on_pending()
        return submitted

    def check_schedulable(
        self,
        principal: Principal,
        organization: str,
        workflow: str,
        parameters: Mapping[str, Any],
        *,
        for_all: bool = False,
    ) -> models.WorkflowMetadata:
        """The workflow, if this principal may have it run by schedule with these parameters now.

        Args:
            for_all: in every organization; what their data providers offer is known at each due time only.

        Raises:
            ValidationError: the workflow is unknown or needs an organization; all wrong parameters.
            Forbidden, Conflict: as `submit`.
        """
        snapshot = self._catalog.current()
        try:
            metadata = snapshot.get_workflow(workflow)
        except errors.NotFound as error:
            raise errors.ValidationError(
                error.message, [errors.FieldError("workflow", "unknown", error.message)]
            ) from None
        if not for_all:
            submissions.require_organization(metadata, organization)
        identity.authorize_execution(principal, organization, metadata, models.Trigger.SCHEDULE)
        values = params.validate(metadata, parameters)
        if not for_all:
            self._options.check(snapshot, metadata, organization, values)
        return metadata

    def find_flaw(self, workflow: str) -> str | None:
        """Why this workflow cannot be run at all now: broken or unknown; None when it can."""
        snapshot = self._catalog.current()
        try:
            snapshot.get_workflow(workflow)
        except errors.Conflict as error:
            return f"broken workflow: {error.message}"
        except errors.NotFound:
            # A module that cannot be loaded takes its workflows' names with it.
            broken = [one for one in snapshot.description.broken if one.kind == "module"]
            places = ", ".join(f"{one.source.file}:{one.source.line}" for one in broken)
            return (
                f"broken workflow: {workflow!r} is gone and {places} cannot be loaded" if broken else "unknown workflow"
            )
        return None

    def rerun(self, principal: Principal, execution_id: str) -> contract.Submitted:
        """The same workflow and parameters again, with the code of now. Raises as `get` and `submit` do."""
        original = self.get(principal, execution_id)
        # Who may execute directly needs no form; what it hid stays hidden.
        identity.require_direct_execution(principal)
        return self.submit(
            principal,
            organization=original.organization,
            workflow=original.workflow,
            parameters={name: value for name, value in original.parameters.items() if value is not None},
            trigger=models.Trigger.RERUN,
            rerun_of=original.id,
            form=submissions.form_of(original),
        )

    def get_organization(self, principal: Principal, organization: str) -> models.OrganizationInfo:
        """The organization for this principal.

        Raises:
            NotFound: unknown, inactive, or not this principal's: the same answer for all three.
        """
        if not identity.may_see(principal, organization):
            raise identity.organization_not_found(organization)
        if organization == models.GLOBAL:
            return models.OrganizationInfo(id=models.GLOBAL, name="Global")
        found = self._store.find_organization(organization)
        if found is None or not found.active:
            raise identity.organization_not_found(organization)
        return models.OrganizationInfo(id=found.id, name=found.name, tenant_id=found.tenant_id)

    def get(self, principal: Principal, execution_id: str) -> contract.Execution:
        """One execution that this principal may see.

        Raises:
            NotFound: unknown, or another organization's.
            Forbidden: the principal may not view the history, and it is not his own.
        """
        execution = self._find_visible(principal, execution_id)
        if execution.caller.subject != principal.subject:
            identity.authorize(principal, models.Permission.VIEW_HISTORY, execution.organization)
        return execution

    def reload(self, execution_id: str) -> contract.Execution:
        """The row as it is now, for those who submitted it. Raises `NotFound`."""
        execution = self._store.find_execution(execution_id)
        if execution is None:
            raise errors.NotFound(f"There is no execution {execution_id!r}.")
        return execution

    def visible_organizations(self, principal: Principal, organization: str | None) -> tuple[str, ...] | None:
        """Which organizations' history a list shows; None is all.

        Raises:
            NotFound: the organization asked for is unknown or foreign.
            Forbidden: the principal may not view the history.
        """
        if organization is not None:
            self.get_organization(principal, organization)
            identity.authorize(principal, models.Permission.VIEW_HISTORY, organization)
            return (organization,)
        if principal.organizations is None:
            return None
        return tuple(
            one
            for one in principal.organizations
            if models.Permission.VIEW_HISTORY in principal.permissions_in(one) and self._is_visible(principal, one)
        )

    def get_recorded(self, principal: Principal, execution_id: str) -> contract.Execution:
        """An execution whose record this principal may read: it shows every input. Raises as `get` does, and:

        Raises:
            Forbidden: its form hid inputs, and the principal does not manage forms there.
        """
        execution = self.get(principal, execution_id)
        if execution.hidden_inputs and not identity.manages_forms(principal, execution.organization):
            raise errors.Forbidden(
                "the form of this execution has hidden values, and its record shows them: "
                f"this needs the permission {models.Permission.MANAGE_FORMS} in {execution.organization}"
            )
        return execution

    def own_organizations(self, principal: Principal, organization: str | None) -> tuple[str, ...] | None:
        """Where the principal's own executions lie; None is everywhere. No permission is needed to see them.

        Raises:
            NotFound: the organization asked for is unknown or foreign.
        """
        if organization is not None:
            self.get_organization(principal, organization)
            return (organization,)
        if principal.organizations is None:
            return None
        return tuple(one for one in principal.organizations if self._is_visible(principal, one))

    def get_for_inputs(self, principal: Principal, execution_id: str) -> contract.Execution:
        """As `get`, and for whoever may decide about it."""
        execution = self._find_visible(principal, execution_id)
        if models.Permission.APPROVE_EXECUTIONS in principal.permissions_in(execution.organization):
            return execution
        return self.get(principal, execution_id)

    # decisions about it

    def approve(self, principal: Principal, execution_id: str) -> contract.Execution:
        """Let a waiting execution run, with exactly the code and parameters that it was submitted with.

        Raises:
            NotFound, Forbidden: not this principal's to decide.
            Conflict: it does not wait for an approval.
        """
        # Not while somebody rejects it: who looked first would end what was approved meanwhile.
        with self._ending:
            execution = self._get_to_decide(principal, execution_id)
            approved = self._store.approve_execution(
                execution.id,
                by=principal.subject,
                approval_hash=execution.approval_hash or "",
                audit=ledger.audit(
                    principal, "execution.approve", organization=execution.organization, target=execution.id
                ),
            )
        self._signals.notify(execution.id)
        self.on_pending()
        return approved

    def reject(self, principal: Principal, execution_id: str) -> contract.Execution:
        """End a waiting execution as `cancelled`. Raises as `approve` does."""
        with self._ending:
            execution = self._get_to_decide(principal, execution_id)
            if execution.status is not models.ExecutionStatus.AWAITING_APPROVAL:
                raise errors.Conflict(f"The execution {execution.id} waits for no approval: it is {execution.status}.")
            self._store.append_audit(
                ledger.audit(principal, "execution.reject", organization=execution.organization, target=execution.id)
            )
            return self._finish_unrun(execution, f"Rejected by {principal.label}.")

    def cancel(self, principal: Principal, execution_id: str) -> contract.Execution:
        """End it: at once when it waits, else by stopping its kernel (the answer then still says `running`).

        Raises:
            NotFound, Forbidden: not this principal's.
            Conflict: it is over already.
        """
        execution = self.get(principal, execution_id)
        identity.authorize(principal, models.Permission.EXECUTE_WORKFLOWS, execution.organization)
        if execution.status.is_final:
            raise errors.Conflict(f"The execution {execution.id} is over already: {execution.status}.")
        requested = self._store.request_cancel(
            execution.id,
            by=principal.subject,
            audit=ledger.audit(principal, "execution.cancel", organization=execution.organization, target=execution.id),
        )
        if requested.status is models.ExecutionStatus.RUNNING:
            self.on_cancel(execution.id)
            return requested
        try:
            return self._finish_unrun(requested, f"Cancelled by {principal.label}.")
        except errors.Conflict:
            # The runner claimed it in this very moment; it looks for the request when it starts.
            self.on_cancel(execution.id)
            return self.get(principal, execution_id)

    def _get_to_decide(self, principal: Principal, execution_id: str) -> contract.Execution:
        execution = self._find_visible(principal, execution_id)
        self.get_organization(principal, execution.organization)
        made_by = self._maker_of(execution.caller)
        identity.authorize_approval(principal, execution.organization, execution.caller, made_by=made_by)
        if execution.acts_for is not None:
            # Who made the schedule asked for it, whoever's name it runs under.
            asking = submissions.requester(execution.acts_for)
            identity.authorize_approval(principal, execution.organization, asking, made_by=self._maker_of(asking))
        return execution

    def _maker_of(self, caller: models.Caller) -> str | None:
        """Who made the key that asked; one who is not known any more could be the very person who decides.

        Raises:
            Forbidden: the key is gone.
        """
        kind, _, key_id = caller.subject.partition(":")
        if kind != "key":
            return None
        key = self._store.find_key(key_id)
        if key is None:
            raise errors.Forbidden("the key that asked for it is gone, and so is who stands behind it: cancel it")
        return key.made_by or key.created_by

    def _find_visible(self, principal: Principal, execution_id: str) -> contract.Execution:
        """Raises `NotFound`: unknown, another organization's, or of an inactive one; the same answer for all."""
        execution = self._store.find_execution(execution_id) if len(execution_id) <= MAX_ID_CHARS else None
        if execution is None or not self._is_visible(principal, execution.organization):
            raise errors.NotFound(f"There is no execution {execution_id!r}.")
        return execution

    def _is_visible(self, principal: Principal, organization: str) -> bool:
        if principal.platform_admin:
            return True
        try:
            self.get_organization(principal, organization)
        except errors.NotFound:
            return False
        return True

    # out

    def finish(self, execution: contract.Execution, outcome: contract.Outcome, record: bytes) -> contract.Execution:
        """The one place that ends an execution: its record reaches the disk, then status and ledger in one transaction.

        Raises:
            Conflict: it has ended already, or is another claim's.
        """
        digest = self._records.write(execution, record)
        finished = self._store.finish_execution(
            execution.id, fence=execution.fence, outcome=outcome, record_sha256=digest
        )
        self._signals.notify(signals.over(execution.id), finished)
        self._signals.notify(execution.id)
        self.on_finished(finished)
        return finished

    def _finish_unrun(self, execution: contract.Execution, reason: str) -> contract.Execution:
        outcome = contract.Outcome(
            status=models.ExecutionStatus.CANCELLED,
            error=reason,
            error_type="Cancelled",
            completed_at=datetime.now(UTC),
        )
        with self._ending:
            if not self.reload(execution.id).is_waiting:
                raise errors.Conflict(f"The execution {execution.id} waits no more.")
            return self.finish(execution, outcome, self._record_unrun(execution, outcome))

    def _find_replay(
        self, organization: str, workflow: str, idempotency: contract.Idempotency | None
    ) -> contract.Execution | None:
        if idempotency is None:
            return None
        return self._store.find_replay(organization, workflow, idempotency, now=datetime.now(UTC))
