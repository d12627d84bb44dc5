"""The inputs of an execution as people may read them: what an approver decides about and a re-run starts from.

`web` calls it. Values are masked by every secret that the organization has now; what a form hid is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bifrost_kernel import errors, models
from bifrost_scheduler import identity, scope
from bifrost_scheduler.catalog import Catalog
from bifrost_scheduler.executions import Executions
from bifrost_scheduler.identity import Principal
from bifrost_scheduler.redaction import MIN_CHARS, Redactor
from bifrost_scheduler.secret_store.contract import SecretStore
from bifrost_scheduler.store import contract


class InputValue(models.Frozen):
    name: str
    label: str
    value: Any = None


class ExecutionInputs:
    def __init__(
        self, *, executions: Executions, catalog: Catalog, store: contract.Store, secrets: SecretStore
    ) -> None:
        self._executions = executions
        self._catalog = catalog
        self._store = store
        self._secrets = secrets

    def list_inputs(self, principal: Principal, execution_id: str) -> list[InputValue]:
        """In the order of the workflow's inputs.

        Raises:
            NotFound: unknown, or another organization's.
            Forbidden: neither its caller nor one who views the history or approves there.
            Unavailable: there are secrets that cannot be opened, so that nothing could be masked.
        """
        execution = self._executions.get_for_inputs(principal, execution_id)
        left_out = () if identity.manages_forms(principal, execution.organization) else execution.hidden_inputs
        labels = self._labels(execution)
        redactor = Redactor(self._secret_texts(execution.organization))
        return [
            InputValue(name=name, label=labels.get(name, name), value=redactor.walk(value))
            for name, value in execution.parameters.items()
            if name not in left_out
        ]

    def _labels(self, execution: contract.Execution) -> dict[str, str]:
        try:
            workflow = self._catalog.at(execution.code_hash).get_workflow(execution.workflow)
        except errors.BifrostError:
            return {}  # Its code is gone; the names still say what is what.
        return {param.name: param.label for param in workflow.params}

    def _secret_texts(self, organization: str) -> Iterator[str]:
        for one in scope.search_order(organization):
            texts = (*self._secrets_of(one), *self._tokens_of(one))
            yield from (text for text in texts if len(text.strip()) >= MIN_CHARS)

    def _secrets_of(self, one_scope: str) -> Iterator[str]:
        after: str | None = None
        while page := self._store.list_secrets(one_scope, after=after):
            yield from (self._secrets.open(row).reveal() for row in page)
            after = page[-1].name

    def _tokens_of(self, one_scope: str) -> Iterator[str]:
        after: str | None = None
        while page := self._store.list_connections(one_scope, after=after):
            for row in page:
                yield from self._secrets.open_connection(row).values()
            after = page[-1].name
