"""Declarations are checked when applied; the error says where, what was given, and the choices."""

from __future__ import annotations

from typing import Any

import pytest

from bifrost_kernel import data_provider, decorators, errors, models, param, workflow


def metadata_of(function: Any) -> Any:
    declaration = decorators.find_declaration(function)
    assert declaration is not None
    return declaration.metadata


def test_the_function_stays_what_it_was() -> None:
    """Decorators return the same function; it is still called directly in tests."""

    def greet(context: Any, name: str) -> str:
        return name

    assert workflow(name="greet", description="Greets")(greet) is greet
    assert greet(None, "a") == "a"


def test_every_argument_arrives_in_the_metadata() -> None:
    """What the document's `@workflow` takes is what the platform enforces later."""

    @workflow(
        name="user_onboarding",
        description="Onboard",
        category="user_management",
        tags=["m365"],
        execution_mode="async",
        timeout_seconds=60,
        schedule="0 9 * * 1",
        timezone="Europe/Berlin",
        retries=2,
        idempotent=True,
        overlap="queue",
        egress=["graph.microsoft.com", "*.halopsa.com:443"],
        requires_org=False,
        expose_in_forms=False,
        requires_approval=True,
        required_permission="canManageUsers",
    )
    def onboard(context: Any) -> None: ...

    found = metadata_of(onboard)
    assert found.model_dump(exclude={"source", "params"}) == {
        "name": "user_onboarding",
        "description": "Onboard",
        "category": "user_management",
        "tags": ("m365",),
        "execution_mode": "async",
        "timeout_seconds": 60,
        "schedule": "0 9 * * 1",
        "timezone": "Europe/Berlin",
        "retries": 2,
        "idempotent": True,
        "overlap": "queue",
        "egress": ("graph.microsoft.com", "*.halopsa.com:443"),
        "network": "proxy",
        "requires_org": False,
        "expose_in_forms": False,
        "requires_approval": True,
        "required_permission": "canManageUsers",
        "kind": "function",
    }
    assert found.source.file == __file__


@pytest.mark.parametrize("param_first", [True, False])
def test_either_order_of_decorators_works(param_first: bool) -> None:
    """`@param` above or below `@workflow` means the same."""

    def greet(context: Any, name: Any) -> None: ...

    steps = [param("name", type="email"), workflow(name="greet", description="d")]
    for step in steps if param_first else reversed(steps):
        step(greet)
    assert metadata_of(greet).params[0].type == "email"


def test_arguments_without_param_come_from_the_signature() -> None:
    """Annotation, else the default's type, else text; the signature's default counts."""

    @workflow(name="w", description="d")
    def w(
        context: Any,
        a,
        b: int,
        c: float = 1,
        d=True,
        e: list[str] | None = None,
        f: dict[str, Any] = {},  # noqa: B006 - as authors write it
        *,
        g: bool,
    ) -> None: ...

    found = [(given.name, given.type.value, given.required, given.default_value) for given in metadata_of(w).params]
    assert found == [
        ("a", "string", True, None),
        ("b", "int", True, None),
        ("c", "float", False, 1.0),
        ("d", "bool", False, True),
        ("e", "list", False, None),
        ("f", "json", False, {}),
        ("g", "bool", True, None),
    ]


@pytest.mark.parametrize(
    ("given", "signature_default", "required", "default"),
    [
        ({}, False, True, None),
        ({"required": True}, False, True, None),
        ({"required": False}, False, False, None),
        ({"default_value": "x"}, False, False, "x"),
        ({"required": True, "default_value": "x"}, False, True, "x"),
        ({}, True, False, "s"),
        ({"default_value": "x"}, True, False, "x"),
    ],
)
def test_the_required_rule(given: dict[str, Any], signature_default: bool, required: bool, default: Any) -> None:
    """Required if said so, or if nothing gives a default and `required=False` is not written."""

    def plain(context: Any, a: str) -> None: ...
    def defaulted(context: Any, a: str = "s") -> None: ...

    function = defaulted if signature_default else plain
    workflow(name="w", description="d")(param("a", **given)(function))
    found = metadata_of(function).params[0]
    assert (found.required, found.default_value) == (required, default)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"type": "strng"}, "string, int, float, bool, email, json, list"),
        ({"name": "b"}, "names no argument of the function; its arguments: a"),
        ({"name": "context"}, "names no argument"),
        ({"validation": {"pattern": "("}}, "is no RE2 expression"),
        ({"validation": {"pattern": "(?=a)"}}, "lookaround"),
        ({"validation": {"min": 1}}, "'min' is not for type string; allowed: max_length, min_length, pattern"),
        ({"validation": {"minimum": 1}}, "'minimum' is not for type string"),
        ({"type": "int", "validation": {"min": 3, "max": 1}}, "min=3 is above max=1"),
        ({"validation": {"min_length": 3, "max_length": 1}}, "min_length=3 is above"),
        ({"validation": {"min_length": -1}}, "must be a number"),
        ({"type": "int", "validation": {"min": "1"}}, "must be a number"),
        ({"type": "int", "default_value": "many"}, "A must be a whole number"),
        ({"type": "int", "default_value": 9, "validation": {"max": 5}}, "A must be 5 or less"),
        ({"data_provider": "Get Things"}, "snake_case name of a data provider"),
        ({"required": "yes"}, "allowed are True and False"),
        ({"label": "a\ud800"}, "must be text"),
    ],
)
def test_a_wrong_param_is_refused(given: dict[str, Any], reason: str) -> None:
    """The error names the function, file and line, what was given, and what is allowed."""
    with pytest.raises(errors.DeclarationError) as caught:

        @param(**{"name": "a"} | given)
        def here(context: Any, a: Any) -> None: ...

    assert reason in caught.value.message
    assert caught.value.message.startswith(f"here ({__file__}:{caught.value.line}): ")
    assert caught.value.file == __file__


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"name": "Hello World"}, "not snake_case"),
        ({"name": "a" * 65}, "not snake_case"),
        ({"name": "a\n"}, "not snake_case"),
        ({"description": ""}, "description"),
        ({"description": "a\ud800"}, "description"),
        ({"timeout_seconds": 0}, "1 or more"),
        ({"timeout_seconds": True}, "1 or more"),
        ({"retries": -1}, "0 to 10"),
        ({"execution_mode": "later"}, "sync, async, scheduled"),
        ({"execution_mode": "scheduled"}, "needs a schedule"),
        ({"overlap": "wait"}, "skip, queue, parallel"),
        ({"required_permission": "canFly"}, "canExecuteWorkflows, canApproveExecutions"),
        ({"timezone": "Mars/Olympus"}, "IANA"),
        ({"timezone": "../../etc/passwd"}, "IANA"),
        ({"idempotent": "yes"}, "True and False"),
        ({"timezone": "Mars"}, "timezone='Mars' is unknown"),
        ({"schedule": "every day"}, "five cron fields"),
        ({"schedule": "* * * * * *"}, "five cron fields"),
        ({"schedule": "*/0 * * * *"}, "no cron expression"),
        ({"schedule": "0 0 31 2 *"}, "schedule="),
        ({"schedule": "9" * 1_000_000}, "five cron fields"),
        ({"tags": "m365"}, "a list of text"),
        ({"requires_org": 1}, "True and False"),
        ({"egress": "graph.microsoft.com"}, "a list of hosts"),
        ({"egress": ["https://graph.microsoft.com/"]}, "egress: 'https://graph.microsoft.com/' is no host"),
        ({"egress": [443]}, "443 is no text"),
        ({"network": "bridge"}, "proxy, host"),
        ({"network": "host", "egress": []}, "leave one of them out"),
    ],
)
def test_a_wrong_workflow_is_refused(given: dict[str, Any], reason: str) -> None:
    """Each argument of `@workflow` is checked where it is written."""
    with pytest.raises(errors.DeclarationError) as caught:

        @workflow(**{"name": "w", "description": "d"} | given)
        def w(context: Any) -> None: ...

    assert reason in caught.value.message
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize(
    "cron", ["0 9 * * 1", "0 9 * * 0", "0 9 * * 7", "0 9 * * MON-FRI", "0 0 29 2 *", "*/5 * * * *"]
)
def test_standard_cron_is_accepted(cron: str) -> None:
    """POSIX weekdays with 0 and 7 for Sunday, names, steps, and the 29th of February."""

    @workflow(name="w", description="d", schedule=cron)
    def w(context: Any) -> None: ...

    assert metadata_of(w).schedule == cron


def test_one_function_has_one_purpose() -> None:
    """A workflow is no data provider, nothing is declared twice, and no input is either."""

    def both(context: Any, a: Any) -> None: ...

    workflow(name="w", description="d")(both)
    with pytest.raises(errors.DeclarationError, match="both @workflow and @data_provider"):
        data_provider(name="p", description="d")(both)
    with pytest.raises(errors.DeclarationError, match="@workflow twice"):
        workflow(name="w", description="d")(both)
    with pytest.raises(errors.DeclarationError, match="'a' is declared twice"):
        param("a")(param("a")(both))


def test_only_functions_that_return_are_accepted() -> None:
    """Classes, generators and functions without a context are refused with the reason."""

    def generator(context: Any) -> Any:
        yield 1

    for wrong, reason in ((dict, "only functions"), (generator, "it yields"), (lambda: 1, "first argument")):
        with pytest.raises(errors.DeclarationError, match=reason):
            workflow(name="w", description="d")(wrong)


def test_forgotten_parentheses_are_named() -> None:
    """`@workflow` without a call says how it is written."""
    with pytest.raises(errors.DeclarationError, match=r"write @workflow\(name="):
        workflow(lambda context: None)  # type: ignore[arg-type]


def test_a_data_provider_has_its_own_metadata() -> None:
    """Further arguments of the function are its inputs."""

    @data_provider(name="get_things", description="Things", cache_ttl_seconds=60)
    def get_things(context: Any, kind: str = "a") -> list[Any]:
        return []

    found = metadata_of(get_things)
    assert isinstance(found, models.DataProviderMetadata)
    assert (found.cache_ttl_seconds, found.category, found.params[0].name) == (60, "General", "kind")


def test_while_collecting_a_wrong_one_breaks_only_itself() -> None:
    """The good declaration of the same module stays usable; the wrong one keeps its error."""
    with decorators.collecting() as functions:

        @workflow(name="Bad", description="d")
        def bad(context: Any) -> None: ...

        @workflow(name="good", description="d")
        def good(context: Any) -> None: ...

    assert functions == [bad, good]
    broken = decorators.find_declaration(bad)
    assert broken is not None
    assert broken.error is not None
    assert metadata_of(good).name == "good"
