"""What a form shows and submits, decided from metadata and a form object alone."""

from __future__ import annotations

from typing import Any

import pytest

from bifrost_kernel import errors, models
from bifrost_kernel.form_definitions import FormDefinition
from bifrost_scheduler import form_fit, form_submission, forms

SOURCE = models.Source(file="workflows/hire.py")
CITIES = models.DataProviderMetadata(
    name="get_cities",
    description="Cities",
    params=(models.ParamMetadata(name="land", type=models.ParamType.STRING, label="Land", required=True),),
    source=SOURCE,
)
PROVIDERS = {"get_cities": CITIES}


def param(name: str, type: str = "string", **fields: Any) -> models.ParamMetadata:
    given = {"name": name, "type": type, "label": name.capitalize(), "required": False, **fields}
    return models.ParamMetadata(**given)


HIRE = models.WorkflowMetadata(
    name="hire",
    description="Hire somebody",
    params=(
        param("name", required=True),
        param("remote", "bool", has_default=True, default_value=False),
        param("country"),
        param("city", required=True, data_provider="get_cities", data_provider_inputs={"land": "country"}),
        param("days", "int", validation={"min": 1, "max": 5}),
        param("cost_center"),
    ),
    source=SOURCE,
)


def form(workflow: models.WorkflowMetadata = HIRE, **definition: Any) -> forms.Form:
    made = FormDefinition.model_validate({"workflow": workflow.name, **definition})
    assert form_fit.find_problem(made, workflow) is None
    return forms.Form(name="hire", source=forms.Source.STORE, definition=made, workflow=workflow)


def problem(**definition: Any) -> str | None:
    return form_fit.find_problem(FormDefinition.model_validate({"workflow": "hire", **definition}), HIRE)


def refused(one: forms.Form, **raw: Any) -> dict[str, str]:
    with pytest.raises(errors.ValidationError) as caught:
        form_submission.submission(one, raw)
    return {field.field: field.code for field in caught.value.fields}


RULE = {"city": {"visible_when": {"field": "remote", "equals": False}}}


def test_an_automatic_form_asks_for_every_input() -> None:
    """Without a form object the fields are those of `@param`, in their order, under a readable title."""
    shown = forms.fields(form(), PROVIDERS)
    assert [field.name for field in shown] == ["name", "remote", "country", "city", "days", "cost_center"]
    assert [field.widget for field in shown] == ["text", "switch", "text", "select", "number", "text"]
    assert (forms.readable("hello_world"), form().text) == ("Hello World", "Hire somebody")


def test_a_form_object_words_and_orders_the_fields() -> None:
    """Labels, help, placeholder, default, widget, group and order are the form's; the rest is the workflow's."""
    words = {"label": "Whom?", "placeholder": "Ada", "default": "Ada", "widget": "textarea", "group": "Person"}
    first, second, *_ = forms.fields(form(order=["days", "name"], fields={"name": words}), PROVIDERS)
    assert (first.name, first.validation) == ("days", {"min": 1, "max": 5})
    assert words.items() <= second.model_dump().items()


def test_a_fixed_value_is_shown_and_a_hidden_one_is_not() -> None:
    """Neither is asked for; what is hidden stands in no field, and in no schema."""
    one = form(fixed={"country": "DE"}, hidden={"cost_center": "4711"})
    shown = {field.name: field for field in forms.fields(one, PROVIDERS)}
    assert (shown["country"].widget, shown["country"].default) == ("fixed", "DE")
    assert "cost_center" not in shown
    assert not {"country", "cost_center"} & set(forms.schema(one)["properties"])
    assert "4711" not in str(forms.schema(one))


def test_bound_values_are_submitted() -> None:
    """The workflow gets what the form binds, as values of their types, and the names of what was hidden."""
    one = form(fixed={"days": "3"}, hidden={"cost_center": "4711"})
    sent = form_submission.submission(one, {"name": "Ada", "city": "Bonn"})
    assert sent.values == {"name": "Ada", "remote": False, "city": "Bonn", "days": 3, "cost_center": "4711"}
    assert sent.hidden == ("cost_center",)


@pytest.mark.parametrize(("name", "code"), [("country", "fixed"), ("cost_center", "unknown"), ("nobody", "unknown")])
def test_a_browser_binds_nothing(name: str, code: str) -> None:
    """A bound or unknown name from a browser is refused by name; a hidden one is as unknown as any."""
    one = form(fixed={"country": "DE"}, hidden={"cost_center": "4711"})
    assert refused(one, name="Ada", city="Bonn", **{name: "x"}) == {name: code}


def test_every_wrong_field_is_named_at_once() -> None:
    """Missing, wrong and unknown fields come together."""
    assert refused(form(), days=9, nobody=1) == {
        "name": "missing",
        "city": "missing",
        "days": "max",
        "nobody": "unknown",
    }


def test_a_field_that_is_not_shown_is_not_asked_for() -> None:
    """Its value is ignored, however wrong, and it is not required."""
    sent = form_submission.submission(form(fields=RULE), {"name": "Ada", "remote": True, "city": {"not": "text"}})
    assert "city" not in sent.values
    assert sent.lifted == {"city"}
    assert forms.schema(form(fields=RULE))["required"] == ["name"]


def test_a_field_that_is_shown_is_required_again() -> None:
    """The rule is met by the default of the other field, and by its text."""
    assert refused(form(fields=RULE), name="Ada") == {"city": "missing"}
    assert refused(form(fields=RULE), name="Ada", remote="false") == {"city": "missing"}


@pytest.mark.parametrize(
    ("rule", "country", "shown"),
    [
        ({"equals": "DE"}, "DE", True),
        ({"equals": "DE"}, "FR", False),
        ({"one_of": ["DE", "FR"]}, "FR", True),
        ({"one_of": ["DE", "FR"]}, None, False),
        ({"filled": True}, "IT", True),
        ({"filled": True}, "", False),
        ({"filled": False}, None, True),
    ],
)
def test_rules(rule: dict[str, Any], country: str | None, shown: bool) -> None:
    """A field is shown while another equals a value, is one of several, is filled, or is not."""
    one = form(fields={"days": {"visible_when": {"field": "country", **rule}}})
    assert ("days" not in form_submission.invisible(one, {"country": country})) is shown


def test_rules_follow_each_other() -> None:
    """What depends on a field that is not shown is decided as if that were empty."""
    chain = {**RULE, "days": {"visible_when": {"field": "city", "filled": True}}}
    given = {"name": "Ada", "remote": True, "city": "Bonn", "days": 2}
    assert form_submission.invisible(form(fields=chain), given) == {"city", "days"}


def test_options_depend_on_the_fields_that_param_names() -> None:
    """The mapping of `@param` decides which field gives an input, and a bound one needs not be asked for."""
    (city,) = [field for field in forms.fields(form(), PROVIDERS) if field.name == "city"]
    assert city.options is not None
    assert city.options.depends_on == ("country",)
    (city,) = [field for field in forms.fields(form(fixed={"country": "DE"}), PROVIDERS) if field.name == "city"]
    assert city.options is not None
    assert city.options.depends_on == ()


@pytest.mark.parametrize(
    ("definition", "part"),
    [
        ({"hidden": {"nobody": 1}}, "hidden names 'nobody'"),
        ({"fixed": {"days": 9}}, "Days must be 5 or less"),
        ({"order": ["nobody"]}, "order names 'nobody'"),
        ({"prefill": ["days"], "hidden": {"days": 1}}, "prefill names 'days'"),
        ({"fields": {"nobody": {}}}, "fields names 'nobody'"),
        ({"fields": {"days": {"widget": "switch"}}}, "the widget 'switch' of 'days'"),
        ({"fields": {"days": {"default": "many"}}}, "the value of 'days' does not fit"),
        ({"fields": {"days": {"default": 2}}, "fixed": {"days": 1}}, "'days' is bound"),
        ({"fields": {"days": {"visible_when": {"field": "nobody", "filled": True}}}}, "no other field"),
        ({"fields": {"days": {"visible_when": {"field": "days", "filled": True}}}}, "no other field"),
        (
            {"hidden": {"country": "x"}, "fields": {"days": {"visible_when": {"field": "country", "equals": "x"}}}},
            "no other field",
        ),
        ({"fields": {"days": {"visible_when": {"field": "remote", "equals": "perhaps"}}}}, "can never be met"),
        (
            {
                "fields": {
                    "days": {"visible_when": {"field": "name", "filled": True}},
                    "name": {"visible_when": {"field": "days", "filled": True}},
                }
            },
            "depends on itself",
        ),
    ],
)
def test_what_does_not_fit_is_named(definition: dict[str, Any], part: str) -> None:
    """A form object that does not fit its workflow has a reason that says what, and which one."""
    assert part in (problem(**definition) or "")


def test_an_unexposed_workflow_has_no_form() -> None:
    """The author's word counts: a form object cannot expose a workflow."""
    hidden = HIRE.model_copy(update={"expose_in_forms": False})
    assert "not exposed" in (form_fit.find_problem(FormDefinition(workflow="hire"), hidden) or "")


def test_the_platform_binds_and_the_organization_words() -> None:
    """What the platform's form binds holds whatever an organization's own form says of it."""
    platform = FormDefinition(workflow="hire", hidden={"cost_center": "4711"}, fixed={"days": 1})
    own = FormDefinition(workflow="hire", title="Ours", fixed={"cost_center": "0"}, hidden={"days": 5, "country": "DE"})
    both = forms.within(platform, own)
    assert (both.title, both.fixed, both.hidden) == ("Ours", {"days": 1}, {"country": "DE", "cost_center": "4711"})
