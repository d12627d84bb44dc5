"""The choices that data providers give: cached per organization, provider, inputs and code version.

`executions` re-checks submitted values against them and `web` serves them to forms. It never runs a provider itself:
that takes a kernel, which `services` hands in as `run_provider`.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from bifrost_kernel import errors, models, params
from bifrost_scheduler.catalog import Snapshot
from bifrost_scheduler.store import contract

RunProvider = Callable[[Snapshot, models.DataProviderMetadata, str, Mapping[str, Any]], Sequence[models.Option]]
"""(snapshot, provider, organization, inputs) → options; raises `WorkflowError` when the provider's code fails."""


class Options:
    def __init__(self, *, store: contract.Store, run_provider: RunProvider) -> None:
        self._store = store
        self._run_provider = run_provider
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
        metadata = snapshot.get_data_provider(provider)
        inputs = params.validate(metadata, raw_inputs)
        key = contract.OptionsKey(
            organization=organization,
            provider=provider,
            inputs_sha256=hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest(),
            code_hash=snapshot.tree_hash,
        )
        return self._find(key, metadata) or self._refresh(key, snapshot, metadata, inputs)

    def check(
        self, snapshot: Snapshot, workflow: models.WorkflowMetadata, organization: str, values: Mapping[str, Any]
    ) -> None:
        """Refuse a value that its data provider does not offer now.

        Raises:
            ValidationError: with every such field.
        """
        wrong: list[errors.FieldError] = []
        offered: dict[str, contract.CachedOptions] = {}
        for param, value in params.options_needed(workflow, values):
            assert param.data_provider is not None
            if param.data_provider not in offered:
                inputs = self._inputs_from_fields(snapshot, param.data_provider, values)
                offered[param.data_provider] = self.get(snapshot, param.data_provider, organization, inputs)
            allowed = [option.value for option in offered[param.data_provider].options]
            if not any(params.same_value(value, option) for option in allowed):
                wrong.append(params.not_an_option(param, value))
        if wrong:
            raise errors.ValidationError("Some values are not among the options offered.", wrong)

    @staticmethod
    def _inputs_from_fields(snapshot: Snapshot, provider: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """A provider's inputs are the workflow's other fields of the same names."""
        names = {param.name for param in snapshot.get_data_provider(provider).params}
        return {name: value for name, value in values.items() if name in names and value is not None}

    def _find(self, key: contract.OptionsKey, metadata: models.DataProviderMetadata) -> contract.CachedOptions | None:
        if metadata.cache_ttl_seconds <= 0:
            return None
        oldest = datetime.now(UTC) - timedelta(seconds=metadata.cache_ttl_seconds)
        return self._store.find_options(key, not_before=oldest)

    def _refresh(
        self,
        key: contract.OptionsKey,
        snapshot: Snapshot,
        metadata: models.DataProviderMetadata,
        inputs: Mapping[str, Any],
    ) -> contract.CachedOptions:
        """One run however many ask at once: those who waited find the answer in the cache."""
        with self._flights.only_one(key):
            if cached := self._find(key, metadata):
                return cached
            options = self._run_provider(snapshot, metadata, key.organization, inputs)
            cached = contract.CachedOptions(options=tuple(options), cached_at=datetime.now(UTC))
            if metadata.cache_ttl_seconds > 0:
                self._store.put_options(key, cached)
            return cached


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
