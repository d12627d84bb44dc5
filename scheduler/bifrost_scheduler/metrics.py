"""The figures of the control plane for Prometheus; no label names an organization, a workflow or a person.

`runner` and `web` count, `web` renders. One registry per control plane, so that two in one process (tests) don't mix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from bifrost_kernel import models


class Metrics:
    def __init__(self, count_active: Callable[[], Mapping[str, int]]) -> None:
        self.registry = CollectorRegistry()
        self._count_active = count_active
        self._executions = Counter(
            "bifrost_executions", "Executions that ended.", ["status", "trigger"], registry=self.registry
        )
        self._duration = Histogram(
            "bifrost_execution_duration_seconds",
            "From claim to final status.",
            registry=self.registry,
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600),
        )
        self._active = Gauge(
            "bifrost_executions_active", "Executions that are not over.", ["status"], registry=self.registry
        )

    def execution_finished(
        self, status: models.ExecutionStatus, trigger: models.Trigger, duration_seconds: float
    ) -> None:
        self._executions.labels(status.value, trigger.value).inc()
        self._duration.observe(duration_seconds)

    def render(self) -> bytes:
        """The text format; what is active now is asked when somebody looks."""
        for status, count in self._count_active().items():
            self._active.labels(status).set(count)
        rendered: bytes = generate_latest(self.registry)
        return rendered
