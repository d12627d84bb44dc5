"""The choices that data providers give: cached per organization, provider, inputs and code version.

`executions` re-checks submitted values against them and `web` serves them to forms. It never runs a provider itself:
that takes a kernel, which `services` hands in as `run_provider`.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from bifrost_kernel import errors, models, params
from bifrost_scheduler import forms
from bifrost_scheduler.catalog import Snapshot
from bifrost_scheduler.store import contract

REFRESH_SECONDS = 5.0
"""How often an organization may have a data provider asked anew, whatever its cache says."""

RunProvider = Callable[[Snapshot, models.DataProviderMetadata, str, Mapping[str, Any]], Sequence[models.Option]]
"""(snapshot, provider, organization, inputs) → options; raises `WorkflowError` when the provider's code fails."""


class Options:
    def __init__(
        self, *, store: contract.Store, run_provider: RunProvider, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._run_provider = run_provider
        self._refreshes = _Refreshes(clock)
        self._flights = _Flights()

    def get(
        self, snapshot: Snapshot, provider: str, organization: str, raw_inputs: Mapping[str, Any]
    ) -> contract.CachedOptions:
        """The options as of at most the provider's `cache_ttl_seconds` ago.

        Raises:
            NotFound, Conflict: no such provider, or a broken one.
            ValidationError: the inputs are wrong.
            WorkflowError: the provider's code failed.
        """
        metadata, inputs, key = _key(snapshot, provider, organization, raw_inputs)
        return self._find(key, metadata) or self._refresh(key, snapshot, metadata, inputs)

    def find_cached(
        self, snapshot: Snapshot, provider: str, organization: str, raw_inputs: Mapping[str, Any]
    ) -> contract.CachedOptions | None:
        """What `get` would give without running the provider; None when it would have to. Raises as `get` does."""
        metadata, _, key = _key(snapshot, provider, organization, raw_inputs)
        return self._find(key, metadata)

    def refresh(
        self, snapshot: Snapshot, provider: str, organization: str, raw_inputs: Mapping[str, Any]
    ) -> contract.CachedOptions:
        """The options as of now, whatever is cached. Raises as `get` does, and:

        Raises:
            TooManyRequests: this provider was refreshed for the organization a moment ago.
        """
        metadata, inputs, key = _key(snapshot, provider, organization, raw_inputs)
        self._refreshes.take((organization, provider))
        return self._refresh(key, snapshot, metadata, inputs, not_before=datetime.now(UTC))

    def check(
        self, snapshot: Snapshot, workflow: models.WorkflowMetadata, organization: str, values: Mapping[str, Any]
    ) -> None:
        """Refuse a value that its data provider does not offer now.

        Raises:
            ValidationError: with every such field.
        """
        wrong: list[errors.FieldError] = []
        offered: dict[str, list[Any]] = {}
        for param, value in params.options_needed(workflow, values):
            if param.name not in offered:
                offered[param.name] = self._offered(snapshot, param, organization, values)
            if not any(params.same_value(value, option) for option in offered[param.name]):
                wrong.append(params.not_an_option(param, value))
        if wrong:
            raise errors.ValidationError("Some values are not among the options offered.", wrong)

    def _offered(
        self, snapshot: Snapshot, param: models.ParamMetadata, organization: str, values: Mapping[str, Any]
    ) -> list[Any]:
        assert param.data_provider is not None
        provider = snapshot.get_data_provider(param.data_provider)
        inputs = forms.provider_inputs(param, provider, values)
        return [option.value for option in self.get(snapshot, provider.name, organization, inputs).options]

    def _find(
        self, key: contract.OptionsKey, metadata: models.DataProviderMetadata, *, not_before: datetime | None = None
    ) -> contract.CachedOptions | None:
        if metadata.cache_ttl_seconds <= 0:
            return None
        oldest = datetime.now(UTC) - timedelta(seconds=metadata.cache_ttl_seconds)
        return self._store.find_options(key, not_before=max(oldest, not_before or oldest))

    def _refresh(
        self,
        key: contract.OptionsKey,
        snapshot: Snapshot,
        metadata: models.DataProviderMetadata,
        inputs: Mapping[str, Any],
        *,
        not_before: datetime | None = None,
    ) -> contract.CachedOptions:
        """One run however many ask at once: those who waited find the answer in the cache."""
        with self._flights.only_one(key):
            if cached := self._find(key, metadata, not_before=not_before):
                return cached
            options = self._run_provider(snapshot, metadata, key.organization, inputs)
            cached = contract.CachedOptions(options=tuple(options), cached_at=datetime.now(UTC))
            if metadata.cache_ttl_seconds > 0:
                self._store.put_options(key, cached)
            return cached


def _key(
    snapshot: Snapshot, provider: str, organization: str, raw_inputs: Mapping[str, Any]
) -> tuple[models.DataProviderMetadata, dict[str, Any], contract.OptionsKey]:
    """The provider, its typed inputs, and what its answer depends on."""
    metadata = snapshot.get_data_provider(provider)
    inputs = params.validate(metadata, raw_inputs)
    key = contract.OptionsKey(
        organization=organization,
        provider=provider,
        inputs_sha256=hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest(),
        code_hash=snapshot.tree_hash,
    )
    return metadata, inputs, key


class _Refreshes:
    """When each provider was last asked for anew, by organization; what is past is forgotten."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._guard = threading.Lock()
        self._last: dict[tuple[str, str], float] = {}

    def take(self, key: tuple[str, str]) -> None:
        now = self._clock()
        with self._guard:
            self._last = {one: at for one, at in self._last.items() if now - at < REFRESH_SECONDS}
            if key in self._last:
                left = REFRESH_SECONDS - (now - self._last[key])
                raise errors.TooManyRequests(
                    f"The options of {key[1]!r} were fetched a moment ago; they can be fetched anew every "
                    f"{REFRESH_SECONDS:.0f} seconds.",
                    retry_after_seconds=left,
                )
            self._last[key] = now


class _Flights:
    """A lock per key that is forgotten when nobody holds it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[contract.OptionsKey, threading.Lock] = defaultdict(threading.Lock)
        self._waiting: dict[contract.OptionsKey, int] = defaultdict(int)

    @contextmanager
    def only_one(self, key: contract.OptionsKey) -> Iterator[None]:
        with self._guard:
            lock = self._locks[key]
            self._waiting[key] += 1
        try:
            with lock:
                yield
        finally:
            self._leave(key)

    def _leave(self, key: contract.OptionsKey) -> None:
        with self._guard:
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key], self._locks[key]
