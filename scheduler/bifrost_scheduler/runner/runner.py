"""The loop that runs executions: claim, kernel, engine, outcome, record.

`services` builds and starts it. One thread claims, one thread per running execution stays with it to the end; the
deadline is the parent's, and so is the outcome: what the kernel says of itself is only one of its inputs.
"""

from __future__ import annotations

import contextlib
import sched
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import structlog

from bifrost_kernel import errors, models
from bifrost_kernel.forkserver.sandbox import Level
from bifrost_scheduler.broker import BrokerParts, ExecutionDoor
from bifrost_scheduler.catalog import Catalog, Snapshot
from bifrost_scheduler.executions import Executions
from bifrost_scheduler.metrics import Metrics
from bifrost_scheduler.runner import jobs, outcomes
from bifrost_scheduler.runner.alarms import Alarms
from bifrost_scheduler.runner.destinations import Destination, HostList
from bifrost_scheduler.runner.gate import EgressGate
from bifrost_scheduler.runner.kernels import Kernel, KernelSource
from bifrost_scheduler.runner.memory_watch import MemoryWatch
from bifrost_scheduler.runner.outcome import Verdict
from bifrost_scheduler.runner.outcomes import Ending
from bifrost_scheduler.runner.pool import EnginePool, Prepared, WorkerDied
from bifrost_scheduler.runner.record import Closing, Job
from bifrost_scheduler.settings import Settings
from bifrost_scheduler.store import contract
from bifrost_scheduler.tokens import Grant

log = structlog.get_logger(__name__)

PROVIDER_TIMEOUT_SECONDS = 30.0
PROVIDER_CALLER = models.Caller(subject="system:data-provider", name="Data provider")
"""Options are cached for the whole organization, so a provider never learns which person asks."""

IDLE_SECONDS = 1.0
"""How long the claim loop sleeps when nobody wakes it."""


@dataclass
class Live:
    """One kernel at work and how it is made to end: the first reason counts."""

    kernel: Kernel
    door: ExecutionDoor
    alarms: Alarms
    grace_seconds: float
    ending: Ending | None = None
    over: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    set_alarms: list[sched.Event] = field(default_factory=list)

    def end(self, why: Ending) -> None:
        """Interrupt the kernel, and kill it after the grace time; nothing when it is over already."""
        with self.lock:
            if self.over or self.ending is not None:
                return
            self.ending = why
            self.kernel.interrupt()
            self._later(self.grace_seconds, self.kill)

    def end_after(self, seconds: float, why: Ending) -> None:
        with self.lock:
            self._later(seconds, partial(self.end, why))

    def exceed_memory(self) -> None:
        """Kill it for what it took; there is no grace, in which it would take more."""
        with self.lock:
            if not self.over:
                self.ending = self.ending or Ending.MEMORY
                self.kernel.kill()

    def kill(self) -> None:
        with self.lock:
            if not self.over:
                self.kernel.kill()

    def close(self) -> Ending | None:
        """No reason counts from here on; returns the one that did."""
        with self.lock:
            self.over = True
            for alarm in self.set_alarms:
                self.alarms.cancel(alarm)
        return self.ending

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        self.set_alarms.append(self.alarms.after(seconds, action))


class Runner:
    """Runs what the store holds as pending; `owner` names this process in its claims."""

    def __init__(
        self,
        *,
        settings: Settings,
        parts: BrokerParts,
        catalog: Catalog,
        executions: Executions,
        kernels: KernelSource,
        gate: EgressGate,
        pool: EnginePool,
        metrics: Metrics,
    ) -> None:
        self.owner = secrets.token_hex(8)
        self._settings = settings
        self._parts = parts
        self._store = parts.store
        self._catalog = catalog
        self._executions = executions
        self._kernels = kernels
        self._gate = gate
        self._pool = pool
        self._metrics = metrics
        self._memory = MemoryWatch(settings.memory_bytes)
        self._alarms = Alarms()
        self._last_news: object = None
        """Another object with every execution that comes: whoever finds nothing to claim can tell whether it is old."""
        self._stopping = threading.Event()
        self._free = threading.BoundedSemaphore(settings.max_concurrent_executions)
        self._threads = ThreadPoolExecutor(settings.max_concurrent_executions, thread_name_prefix="execution")
        self._live: dict[str, Live] = {}
        self._live_lock = threading.Lock()
        self._unfinished: dict[str, Callable[[], None]] = {}
        self._claims = threading.Thread(target=self._claim_loop, name="claims", daemon=True)
        self._leases = threading.Thread(target=self._lease_loop, name="leases", daemon=True)

    # start and stop

    def start(self) -> None:
        """Account for what an earlier control plane left running, then begin to claim."""
        self._executions.on_pending = self._heed_pending
        self._executions.on_cancel = self.cancel
        self._executions.find_refusal = self._kernels.find_refusal
        threading.Thread(target=self._recover, name="recovery", daemon=True).start()
        self._memory.start()
        self._alarms.start()
        self._claims.start()
        self._leases.start()

    def stop(self) -> None:
        """Claim nothing more, let running executions end within the grace, then end them as `crashed`."""
        self._stopping.set()
        for live in self._snapshot_live():
            self._end_soon(live)
        if self._claims.is_alive():
            self._claims.join()
        self._threads.shutdown(wait=True)
        self._memory.stop()
        self._alarms.stop()

    def _end_soon(self, live: Live) -> None:
        live.end_after(max(0.0, self._settings.shutdown_seconds - self._settings.grace_seconds - 3), Ending.STOPPED)
        live.grace_seconds = min(live.grace_seconds, 2.0)

    def cancel(self, execution_id: str) -> None:
        """End a running execution as `cancelled`."""
        with self._live_lock:
            live = self._live.get(execution_id)
        if live is not None:
            live.end(Ending.CANCELLED)

    def _snapshot_live(self) -> list[Live]:
        with self._live_lock:
            return list(self._live.values())

    # loops

    def _claim_loop(self) -> None:
        """Claim what nobody told of: what is from before the start, and what another process submitted."""
        while not self._stopping.is_set():
            self._begin_work(is_recruiting=True)
            self._stopping.wait(IDLE_SECONDS)

    def _heed_pending(self) -> None:
        self._last_news = object()
        self._begin_work()

    def _begin_work(self, *, is_recruiting: bool = False) -> None:
        """Have one more thread claim, if there may be one; if not, one that frees itself will."""
        if self._free.acquire(blocking=False):
            try:
                self._threads.submit(self._work, is_recruiting)
            except RuntimeError:  # Stopped meanwhile.
                self._free.release()

    def _work(self, is_recruiting: bool) -> None:
        """Claim and run until there is nothing to claim.

        One that ends makes room for one, whether it was the whole that was full or its organization.

        Args:
            is_recruiting: nobody knows how many wait, so that whoever finds one has another thread look, too.
        """
        is_more = True
        while is_more:
            news = self._last_news
            if (execution := self._claim()) is not None:
                if is_recruiting:
                    self._begin_work(is_recruiting=True)
                self._run_guarded(execution)
                continue
            self._free.release()
            is_more = self._last_news is not news and self._free.acquire(blocking=False)

    def _claim(self) -> contract.Execution | None:
        if self._stopping.is_set():
            return None
        try:
            return self._store.claim_execution(
                owner=self.owner,
                now=datetime.now(UTC),
                lease_seconds=self._settings.lease_seconds,
                organization_limit=self._settings.organization_concurrency,
            )
        except errors.Unavailable as error:
            log.warning("nothing can be claimed", reason=error.message)
            return None

    def _lease_loop(self) -> None:
        while not self._stopping.wait(self._settings.lease_seconds / 3):
            for finish_again in list(self._unfinished.values()):
                finish_again()
            try:
                until = datetime.now(UTC) + timedelta(seconds=self._settings.lease_seconds)
                self._store.renew_leases(owner=self.owner, until=until)
            except errors.Unavailable as error:
                log.warning("leases cannot be renewed", reason=error.message)

    def _recover(self) -> None:
        """Nothing that ran runs again by itself: it is `crashed`, with the record that its events allow."""
        for execution in self._store.list_running():
            if execution.owner != self.owner:
                self._finish_guarded(execution, outcomes.crashed("The control plane ended while it ran."))

    # one execution

    def _run_guarded(self, execution: contract.Execution) -> None:
        try:
            self._run(execution)
        except Exception as error:  # the edge of the worker: whatever happens, the execution gets an outcome
            log.error("an execution could not be run", execution=execution.id, exc_info=error)
            self._finish_guarded(execution, outcomes.crashed(_reason(error)))

    def _run(self, execution: contract.Execution) -> None:
        snapshot = self._catalog.at(execution.code_hash)
        metadata = snapshot.get_workflow(execution.workflow)
        tenant = self._store.find_organization(execution.organization)
        organization = jobs.organization_info(tenant)
        job = jobs.execution_job(execution, metadata, organization, snapshot)
        lists = jobs.host_lists(tenant, metadata)
        if metadata.network is models.Network.HOST:
            self._store.append_audit(_host_network_entry(execution))
        with (
            self._preparing(job) as prepared,
            contextlib.closing(self._kernels.acquire(network=metadata.network)) as kernel,
        ):
            live, token = self._open(kernel, _grant(execution))
            with self._live_lock:
                self._live[execution.id] = live
            if self._stopping.is_set():
                self._end_soon(live)
            try:
                kernel.configure(jobs.execution_setup(token, execution, metadata, organization, snapshot))
                self._pool.run(prepared, kernel)
                self._let_out(kernel, execution.id, lists)
                live.end_after(metadata.timeout_seconds, Ending.TIMEOUT)
                self._heed_early_cancel(execution, live)
                with self._holding_to_memory(live):
                    executed = self._pool.wait(prepared)
                ending = live.close()
                exit_status = kernel.wait(1) if executed.verdict is Verdict.DIED else None
                if kernel.ran_out_of_memory():
                    ending = ending or Ending.MEMORY
            finally:
                live.close()
                self._parts.tokens.revoke(token)
                with self._live_lock:
                    self._live.pop(execution.id, None)
                network = self._detach(kernel, execution.id)
        bounds = outcomes.Bounds(metadata.timeout_seconds, self._settings.memory_bytes)
        outcome = outcomes.decide(live.door.report, executed, ending, bounds, exit_status)
        surroundings = jobs.Surroundings(kernel.standing, network)
        closing_ = jobs.closing(execution, outcome, self._events(execution), live.door.report, surroundings)
        self._finish_guarded(execution, outcome, self._seal(job, closing_))

    def _seal(self, job: Job, closing_: Closing) -> bytes:
        try:
            return self._pool.seal(job.execution_id, closing_)
        except WorkerDied:
            # The notebook is lost with its worker; the events and the outcome are not.
            return self._pool.complete(job, closing_)

    @contextlib.contextmanager
    def _preparing(self, job: Job) -> Iterator[Prepared]:
        """Its notebook is made ready while a kernel is fetched; without one it is forgotten."""
        prepared = self._pool.prepare(job)
        try:
            yield prepared
        except BaseException:
            self._pool.discard(job.execution_id)
            raise

    def _open(self, kernel: Kernel, subject: Grant) -> tuple[Live, str]:
        """Put a door before the kernel's socket, in a thread that lives as long as the kernel."""
        token = self._parts.tokens.issue(subject)
        door = ExecutionDoor(self._parts, subject, token)
        threading.Thread(target=door.serve, args=(kernel.broker_socket,), name="broker", daemon=True).start()
        return Live(kernel, door, self._alarms, self._settings.grace_seconds), token

    def _let_out(self, kernel: Kernel, execution_id: str, lists: Sequence[HostList]) -> None:
        """Serve its way to the network, on which whoever is earlier waits."""
        if kernel.standing.level is Level.FULL:
            self._gate.attach(execution_id, kernel.doorstep, lists)

    def _detach(self, kernel: Kernel, execution_id: str) -> tuple[Destination, ...]:
        return self._gate.detach(execution_id) if kernel.standing.level is Level.FULL else ()

    def _holding_to_memory(self, live: Live) -> contextlib.AbstractContextManager[None]:
        """While its code runs: by watching, where no control group does it."""
        if live.kernel.standing.has_groups:
            return contextlib.nullcontext()
        return self._memory.watching(live.kernel.pidfds, live.exceed_memory)

    def _heed_early_cancel(self, execution: contract.Execution, live: Live) -> None:
        """A cancel may have come between the claim and this thread."""
        current = self._executions.reload(execution.id)
        if current.cancel_requested_by is not None:
            live.end(Ending.CANCELLED)

    def _events(self, execution: contract.Execution) -> list[models.Event]:
        events: list[models.Event] = []
        while page := self._store.list_events(execution.id, after=events[-1].seq if events else 0):
            events += page
        return events

    def _organization(self, organization: str) -> models.OrganizationInfo:
        return jobs.organization_info(self._store.find_organization(organization))

    def _finish(self, execution: contract.Execution, outcome: contract.Outcome, record: bytes) -> None:
        finished = self._executions.finish(execution, outcome, record)
        self._metrics.execution_finished(finished.status, finished.trigger, (finished.duration_ms or 0) / 1000)

    def _finish_guarded(
        self, execution: contract.Execution, outcome: contract.Outcome, record: bytes | None = None
    ) -> None:
        """End it; what cannot be written now (a full disk) is tried again while this control plane lives.

        Args:
            record: None makes it of the events.
        """
        try:
            record = record or self.record_unrun(execution, outcome)
            self._finish(execution, outcome, record)
        except errors.Conflict as error:
            log.warning("the execution was ended by another", execution=execution.id, reason=error.message)
        except Exception as error:  # the edge of the worker: an execution must not say `running` for ever
            log.error("an execution could not be finished yet", execution=execution.id, exc_info=error)
            self._unfinished[execution.id] = partial(self._finish_guarded, execution, outcome, record)
            return
        self._unfinished.pop(execution.id, None)

    def record_unrun(self, execution: contract.Execution, outcome: contract.Outcome) -> bytes:
        """The record of an execution without a kernel: made of its events alone."""
        snapshot = self._find_snapshot(execution)
        job = jobs.unrun_job(execution, self._organization(execution.organization), snapshot)
        return self._pool.complete(job, jobs.closing(execution, outcome, self._events(execution), None))

    def _find_snapshot(self, execution: contract.Execution) -> Snapshot | None:
        try:
            return self._catalog.at(execution.code_hash)
        except errors.BifrostError:
            return None

    # data providers

    def run_provider(
        self,
        snapshot: Snapshot,
        provider: models.DataProviderMetadata,
        organization: str,
        inputs: Mapping[str, Any],
    ) -> Sequence[models.Option]:
        """The options of a provider, from a kernel of its own; what it reads is audited, nothing else is kept.

        Raises:
            WorkflowError: the provider's code failed, or took too long.
        """
        execution_id = f"data-provider-{secrets.token_hex(8)}"
        tenant = self._store.find_organization(organization)
        info = jobs.organization_info(tenant)
        job = jobs.provider_job(execution_id, provider, info, PROVIDER_CALLER, dict(inputs), snapshot)
        with self._preparing(job) as prepared, contextlib.closing(self._kernels.acquire()) as kernel:
            grant = Grant(
                execution_id=execution_id, organization=organization, caller=PROVIDER_CALLER, name=provider.name
            )
            live, token = self._open(kernel, grant)
            try:
                kernel.configure(
                    jobs.setup(token, execution_id, info, PROVIDER_CALLER, provider, snapshot, dict(inputs))
                )
                self._pool.run(prepared, kernel)
                self._let_out(kernel, execution_id, jobs.host_lists(tenant))
                live.end_after(PROVIDER_TIMEOUT_SECONDS, Ending.TIMEOUT)
                with self._holding_to_memory(live):
                    self._pool.wait(prepared)
                ending = live.close()
            finally:
                live.close()
                self._parts.tokens.revoke(token)
                self._detach(kernel, execution_id)
                self._pool.discard(execution_id)
        return outcomes.options_of(live.door.report, provider.name, ending)


def _grant(execution: contract.Execution) -> Grant:
    return Grant(
        execution_id=execution.id,
        organization=execution.organization,
        caller=execution.caller,
        name=execution.workflow,
        fence=execution.fence,
    )


def _host_network_entry(execution: contract.Execution) -> contract.AuditEntry:
    return contract.AuditEntry(
        at=datetime.now(UTC),
        actor=execution.caller.subject,
        action="network.host",
        organization=execution.organization,
        target=execution.id,
        details={"workflow": execution.workflow},
    )


def _reason(error: Exception) -> str:
    if isinstance(error, WorkerDied):
        return "The engine worker died while it ran."
    if isinstance(error, errors.BifrostError):
        return error.message
    return "It could not be run; the server's log has the reason."
