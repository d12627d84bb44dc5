"""A form as it is handed to whoever draws it: over HTTP, and to a notebook.

`form_desk` makes it for one principal and one organization. Nothing that a form binds and hides is in it.
"""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from bifrost_kernel import models
from bifrost_scheduler import forms


class FormOrganization(models.Frozen):
    id: str
    name: str


class FormView(models.Frozen):
    """A form to be filled in, for one organization."""

    model_config = ConfigDict(frozen=True, serialize_by_alias=True)

    name: str
    title: str
    text: str
    category: str
    workflow: str
    source: forms.Source
    organization: FormOrganization
    submit_label: str | None
    success_text: str | None
    requires_approval: bool
    json_schema: dict[str, Any] = Field(alias="schema")
    """JSON Schema of what is submitted: the fields to fill in."""
    fields: list[forms.Field]
    prefill: list[str]
    code_hash: str
    version: int | None
    """Of a form object in the store."""
