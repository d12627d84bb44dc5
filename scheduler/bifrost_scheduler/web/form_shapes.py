"""The shapes of requests and answers about forms, as OpenAPI shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from bifrost_kernel.form_definitions import FormName
from bifrost_scheduler import forms
from bifrost_scheduler.forms import Form
from bifrost_scheduler.web.schemas import Input, Shape


class FormItem(Shape):
    """A form in a list."""

    name: str
    title: str
    text: str
    category: str
    tags: list[str]
    workflow: str
    source: forms.Source
    replaces: forms.Source | None
    """What it stands in for."""
    requires_approval: bool
    broken: str | None = None
    """Why it cannot be used; shown to those who may manage forms."""


def form_item(form: Form) -> FormItem:
    return FormItem(
        name=form.name,
        title=form.title,
        text=form.text,
        category=form.category,
        tags=list(form.workflow.tags) if form.workflow else [],
        workflow=form.definition.workflow,
        source=form.source,
        replaces=form.replaces,
        requires_approval=form.workflow is not None and form.workflow.requires_approval,
        broken=form.reason,
    )


class OptionsQuestion(Input):
    values: dict[str, Any] = Field(default_factory=dict)
    """What stands in the form now."""
    refresh: bool = False


class DraftShape(Shape):
    values: dict[str, Any]
    updated_at: datetime | None


class NewFormSession(Input):
    form: FormName


class FormSessionShape(Shape):
    token: str
    expires_at: datetime
