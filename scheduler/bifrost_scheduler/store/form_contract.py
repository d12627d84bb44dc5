"""What the control plane asks of its database about forms: the part of `contract.Store` for form objects and drafts.

`form_library` and `form_administration` ask for form objects, `drafts` for drafts. It decides no permission and never
opens a draft. The rules of `contract` hold here too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic import AwareDatetime

from bifrost_kernel import models

if TYPE_CHECKING:  # `contract.Store` is made of this part.
    from bifrost_scheduler.store.contract import AuditEntry


class StoredForm(models.Frozen):
    """A form object of a scope; `version` counts from 1 and never repeats, not even after a deletion."""

    scope: str
    name: str
    version: int = 0
    """0 until it is stored."""
    definition: dict[str, Any]
    """One of `form_definitions`, as JSON."""
    updated_at: AwareDatetime
    updated_by: str


class Draft(models.Frozen):
    """What a person has filled in so far; `sealed` is nonce and ciphertext of the values."""

    subject: str
    organization: str
    form: str
    sealed: bytes
    updated_at: AwareDatetime


class FormStore(ABC):
    @abstractmethod
    def put_form(self, form: StoredForm, *, audit: AuditEntry) -> StoredForm:
        """Create or replace it under the next version, and give it back with that."""

    @abstractmethod
    def find_form(self, scope: str, name: str) -> StoredForm | None: ...

    @abstractmethod
    def list_forms(self, scope: str, *, after: str | None = None, limit: int = 50) -> list[StoredForm]:
        """By name, ascending."""

    @abstractmethod
    def delete_form(self, scope: str, name: str, *, audit: AuditEntry) -> None:
        """Raises `NotFound`."""

    @abstractmethod
    def put_draft(self, draft: Draft, *, oldest: datetime) -> None:
        """Create or replace it, and forget everybody's drafts from before `oldest`."""

    @abstractmethod
    def find_draft(self, subject: str, organization: str, form: str, *, not_before: datetime) -> Draft | None: ...

    @abstractmethod
    def delete_draft(self, subject: str, organization: str, form: str) -> None:
        """Forget it; one that is not there is fine."""
