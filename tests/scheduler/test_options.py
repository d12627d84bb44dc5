"""Options of data providers: cached per organization, code and inputs, and asked for once however many wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bifrost_kernel import errors, models
from bifrost_scheduler.catalog import Snapshot
from bifrost_scheduler.options import REFRESH_SECONDS, Options
from bifrost_scheduler.store import contract

SOURCE = models.Source(file="data_providers/it.py")


def param(name: str, **fields: Any) -> models.ParamMetadata:
    return models.ParamMetadata(**{"name": name, "type": "string", "label": name, "required": False, **fields})


def snapshot(tree_hash: str = "one", *, ttl: int = 300) -> Snapshot:
    """A workspace with the provider `colors` (input `shade`) and the workflow `paint` that uses it."""
    colors = models.DataProviderMetadata(
        name="colors", description="Colors", cache_ttl_seconds=ttl, params=(param("shade"),), source=SOURCE
    )
    paint = models.WorkflowMetadata(
        name="paint",
        description="Paint",
        params=(
            param("color", data_provider="colors"),
            param("more", type="list", data_provider="colors"),
            param("shade"),
        ),
        source=SOURCE,
    )
    description = models.WorkspaceDescription(workflows=(paint,), data_providers=(colors,))
    return Snapshot(tree_hash, Path("unused"), {}, description)


class Provider:
    """Runs a provider's code: here, gives what was asked for, and remembers who asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, snapshot: Any, provider: Any, organization: str, inputs: Any) -> list[models.Option]:
        self.asked.append((organization, dict(inputs)))
        self.go.wait(10)
        return [models.Option(label=label, value=label) for label in ("red", organization)]


def test_refreshing_is_limited_by_organization_and_provider(store: contract.Store, provider: Provider) -> None:
    """A provider is asked anew whatever is cached, and then not for a while; others are not held up."""
    clock = iter([0.0, 1.0, 1.0, 6.0])
    options = Options(store=store, run_provider=provider, clock=lambda: next(clock))
    options.get(snapshot(), "colors", "acme", {})
    options.refresh(snapshot(), "colors", "acme", {})
    with pytest.raises(errors.TooManyRequests) as caught:
        options.refresh(snapshot(), "colors", "acme", {"shade": "dark"})
    assert caught.value.retry_after_seconds == REFRESH_SECONDS - 1
    options.refresh(snapshot(), "colors", "globex", {})
    options.refresh(snapshot(), "colors", "acme", {})
    assert [organization for organization, _ in provider.asked] == ["acme", "acme", "globex", "acme"]


def test_a_value_is_checked_with_the_inputs_of_its_own_field(store: contract.Store, provider: Provider) -> None:
    """Two fields of one provider may name different fields for its inputs."""
    mapped = param("accent", data_provider="colors", data_provider_inputs={"shade": "tone"})
    paint = snapshot().get_workflow("paint")
    paint = paint.model_copy(update={"params": (*paint.params, mapped, param("tone"))})
    values = {"color": "red", "accent": "red", "shade": "dark", "tone": "light"}
    Options(store=store, run_provider=provider).check(snapshot(), paint, "acme", values)
    assert [inputs for _, inputs in provider.asked] == [{"shade": "dark"}, {"shade": "light"}]


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture
def options(store: contract.Store, provider: Provider) -> Options:
    return Options(store=store, run_provider=provider)


def values(cached: contract.CachedOptions) -> list[Any]:
    return [option.value for option in cached.options]


def test_cached(options: Options, provider: Provider) -> None:
    """The second who asks gets the answer of the first, with its time."""
    assert options.get(snapshot(), "colors", "acme", {}) == options.get(snapshot(), "colors", "acme", {})
    assert len(provider.asked) == 1


def test_cache_is_not_shared(options: Options, provider: Provider) -> None:
    """Another organization, another input and other code are another question."""
    assert values(options.get(snapshot(), "colors", "acme", {})) == ["red", "acme"]
    assert values(options.get(snapshot(), "colors", "beta", {})) == ["red", "beta"]
    options.get(snapshot(), "colors", "acme", {"shade": "dark"})
    options.get(snapshot("two"), "colors", "acme", {})
    assert [organization for organization, _ in provider.asked] == ["acme", "beta", "acme", "acme"]


def test_no_cache(options: Options, provider: Provider) -> None:
    """A provider with `cache_ttl_seconds=0` is asked every time."""
    for _ in range(2):
        options.get(snapshot(ttl=0), "colors", "acme", {})
    assert len(provider.asked) == 2


def test_asked_once(options: Options, provider: Provider) -> None:
    """However many ask at once, the provider runs once."""
    provider.go.clear()
    with ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(options.get, snapshot(), "colors", "acme", {}) for _ in range(8)]
        provider.go.set()
        assert {tuple(values(answer.result(10))) for answer in answers} == {("red", "acme")}
    assert len(provider.asked) == 1


def test_wrong_inputs(options: Options, provider: Provider) -> None:
    """Inputs are checked before anything runs."""
    with pytest.raises(errors.ValidationError):
        options.get(snapshot(), "colors", "acme", {"size": "1"})
    with pytest.raises(errors.NotFound):
        options.get(snapshot(), "nobody", "acme", {})
    assert provider.asked == []


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"color": "red"}, []),
        ({"color": "acme"}, []),
        ({"color": "beta"}, ["color"]),
        ({"color": "RED"}, ["color"]),
        ({"color": None}, []),
        ({"more": ["red", "acme"]}, []),
        ({"more": ["red", "blue"], "color": "x"}, ["color", "more"]),
    ],
)
def test_check(options: Options, given: dict[str, Any], wrong: list[str]) -> None:
    """A value is one of the options of now, each element of a list is one, and every wrong field is named."""
    taken = snapshot()
    found: list[str] = []
    try:
        options.check(taken, taken.get_workflow("paint"), "acme", given)
    except errors.ValidationError as error:
        found = [field.field for field in error.fields]
    assert found == wrong


def test_inputs_come_from_the_other_fields(options: Options, provider: Provider) -> None:
    """A provider's inputs are the workflow's other fields of the same names."""
    taken = snapshot()
    options.check(taken, taken.get_workflow("paint"), "acme", {"color": "red", "shade": "dark"})
    assert provider.asked == [("acme", {"shade": "dark"})]


def test_failure_is_not_cached(store: contract.Store) -> None:
    """A provider that failed is asked again the next time."""
    answers: list[Callable[[], list[models.Option]]] = [_fail, lambda: [models.Option(label="a", value="a")]]
    options = Options(store=store, run_provider=lambda *_: answers.pop(0)())
    with pytest.raises(errors.WorkflowError):
        options.get(snapshot(), "colors", "acme", {})
    assert values(options.get(snapshot(), "colors", "acme", {})) == ["a"]


def _fail() -> list[models.Option]:
    raise errors.WorkflowError("no options today")
