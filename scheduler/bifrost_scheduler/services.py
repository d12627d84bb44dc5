"""Where the control plane's objects meet: `build` makes them, `start` and `stop` bring them to life and to rest.

`web` and the tests call it. Nothing else constructs a store, a key or a runner.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

import structlog

from bifrost_kernel import errors, models
from bifrost_kernel.forkserver import control_groups, sandbox
from bifrost_scheduler import ledger, sessions
from bifrost_scheduler.administration import Administration
from bifrost_scheduler.authenticator import Authenticator
from bifrost_scheduler.authoring import Authoring
from bifrost_scheduler.broker import BrokerParts
from bifrost_scheduler.catalog import Catalog, Snapshot
from bifrost_scheduler.drafts import Drafts
from bifrost_scheduler.execution_inputs import ExecutionInputs
from bifrost_scheduler.executions import Executions
from bifrost_scheduler.form_administration import FormAdministration
from bifrost_scheduler.form_desk import FormDesk
from bifrost_scheduler.form_library import FormLibrary
from bifrost_scheduler.form_sessions import FormSessions
from bifrost_scheduler.identity import Principal
from bifrost_scheduler.metrics import Metrics
from bifrost_scheduler.openid import OpenId
from bifrost_scheduler.openid_provider import OpenIdProvider
from bifrost_scheduler.options import Options
from bifrost_scheduler.passwords import Passwords
from bifrost_scheduler.people import People
from bifrost_scheduler.records import Records
from bifrost_scheduler.runner.gate import EgressGate
from bifrost_scheduler.runner.kernels import PRELOADED, KernelSource
from bifrost_scheduler.runner.outputs import OutputLimits
from bifrost_scheduler.runner.pool import EnginePool
from bifrost_scheduler.runner.runner import Runner
from bifrost_scheduler.schedules.clock import Clock
from bifrost_scheduler.schedules.derivation import Derivation
from bifrost_scheduler.schedules.service import Schedules
from bifrost_scheduler.schedules.ticker import Ticker
from bifrost_scheduler.secret_store.contract import SecretStore
from bifrost_scheduler.secret_store.local import LocalSecretStore
from bifrost_scheduler.sessions import Sessions
from bifrost_scheduler.settings import Settings, prepare_home
from bifrost_scheduler.sign_in import Limits, Opening, SignIn
from bifrost_scheduler.signals import Signals
from bifrost_scheduler.store import contract
from bifrost_scheduler.store.people_contract import User
from bifrost_scheduler.store.sqlite import SqliteStore
from bifrost_scheduler.tokens import ExecutionTokens

log = structlog.get_logger(__name__)

DEV_KEY = "test"
DEV_EMAIL = "dev@example.com"
DEV_PASSWORD = "test"
"""The first start without --dev takes it away."""
DEV_ORGANIZATION = "test-org-active"

DEVELOPER = Principal(subject=f"user:{DEV_EMAIL}", kind="dev", email=DEV_EMAIL, name="Developer", platform_admin=True)
OPERATOR = Principal(subject="user:operator", kind="operator", name="Operator", platform_admin=True)


@dataclass
class Services:
    """Everything that the web needs, built once per control plane."""

    settings: Settings
    home_lock: IO[str]
    store: contract.Store
    secrets: SecretStore
    catalog: Catalog
    options: Options
    executions: Executions
    execution_inputs: ExecutionInputs
    forms: FormDesk
    form_definitions: FormAdministration
    form_sessions: FormSessions
    records: Records
    administration: Administration
    people: People
    passwords: Passwords
    sessions: Sessions
    sign_in: SignIn
    openid: OpenId
    authenticator: Authenticator
    authoring: Authoring
    signals: Signals
    metrics: Metrics
    kernels: KernelSource
    gate: EgressGate
    pool: EnginePool
    runner: Runner
    schedules: Schedules
    derivation: Derivation
    clock: Clock

    def start(self) -> None:
        """Begin to run executions and to answer kernels."""
        self.authoring.start()
        self.runner.start()
        self.clock.start()
        self._teller.start()

    def __post_init__(self) -> None:
        self._teller = threading.Thread(target=self._tell_sandbox, name="sandbox", daemon=True)
        self._stopping = False

    def stop(self) -> None:
        """End executions, kernels, workers and the store, in this order; the home is free afterwards."""
        self._stopping = True
        self.clock.stop()
        self.runner.stop()
        self.authoring.stop()
        self.kernels.close()
        self.gate.close()
        if self._teller.ident is not None:
            self._teller.join()
        self.pool.close()
        self.passwords.close()
        self.store.close()
        self.home_lock.close()

    def _tell_sandbox(self) -> None:
        """The audit says what executions are enclosed by from now on, or why there are none."""
        try:
            standing = self.kernels.wait_ready()
            details: dict[str, str | None] = {
                "sandbox": standing.level.value,
                "processes": standing.enclosure.value,
                "memory": "control group" if standing.has_groups else "watch",
            }
        except errors.Unavailable as error:
            details = {"sandbox": None, "reason": error.message}
        if not self._stopping:
            self.store.append_audit(ledger.audit(OPERATOR, "sandbox.enter", details=details))

    def accept_portal(self, key: str) -> None:
        """Believe the portal that was started with this key which address a browser has (`X-Forwarded-For`)."""
        self.authenticator.accept_portal(key)

    def opening(self) -> Opening | None:
        """What `bifrost up` prints so that somebody gets in; None when an administrator can sign in."""
        email = DEV_EMAIL if self.settings.dev else None
        return self.sign_in.opening(OPERATOR, email=email, now=datetime.now(UTC))

    def notice_schedules(self) -> None:
        """A schedule or a rule has changed: what is due next may be another one."""
        self.derivation.forget()
        self.clock.wake()

    def render_html(self, record: bytes) -> str:
        """The record as a page of its own, sanitised."""
        return self.pool.render_html(record)


class _LateRunner:
    """The runner for those that are built before it; `services.build` ties the knot."""

    runner: Runner

    def run_provider(
        self, snapshot: Snapshot, provider: models.DataProviderMetadata, organization: str, inputs: Mapping[str, Any]
    ) -> Sequence[models.Option]:
        return self.runner.run_provider(snapshot, provider, organization, inputs)

    def record_unrun(self, execution: contract.Execution, outcome: contract.Outcome) -> bytes:
        return self.runner.record_unrun(execution, outcome)


def build(settings: Settings) -> Services:
    """Make the control plane of this home.

    Raises:
        Conflict: another control plane has the home.
        Unavailable: the store or the keys cannot be opened.
    """
    prepare_home(settings)
    home_lock = lock_home(settings.home)
    signer = ledger.load_signer(settings.keys_dir)
    store = SqliteStore(settings.database, sign=signer.sign)
    secret_store = LocalSecretStore(store, settings.keys_dir)
    catalog = Catalog(
        workspace=settings.workspace,
        code_dir=settings.code_dir,
        level=settings.sandbox,
        limits=kernel_limits(settings),
        hidden=(settings.home, settings.workspace),
        host_network=settings.host_network_workflows,
    )
    notices, tokens, late = Signals(), ExecutionTokens(), _LateRunner()
    options = Options(store=store, run_provider=late.run_provider)
    records = Records(settings.records_dir)
    records.clear_unfinished()
    executions = Executions(
        settings=settings,
        store=store,
        catalog=catalog,
        options=options,
        notices=notices,
        records=records,
        record_unrun=late.record_unrun,
    )
    parts = BrokerParts(settings=settings, store=store, secrets=secret_store, tokens=tokens, signals=notices)
    metrics = Metrics(store.count_active)
    prefix = clear_leftovers(settings.home)
    kernels = KernelSource.start(
        spares=settings.spare_kernels,
        preload=(*PRELOADED, *settings.preload),
        limits=kernel_limits(settings),
        control_group=_settle_control_group(f"{prefix}kernels"),
        level=settings.sandbox,
        visible=(str(settings.code_dir),),
        hidden=(str(settings.home), str(settings.workspace)),
        home_bytes=settings.tmp_bytes,
        folder_prefix=prefix,
    )
    limits = OutputLimits(execution_bytes=settings.output_bytes, output_bytes=settings.one_output_bytes)
    pool = EnginePool.start(workers=settings.engine_workers, limits=limits)
    gate = EgressGate(settings.egress_allow)
    if settings.sandbox is sandbox.Level.FULL:
        gate.start()
    late.runner = Runner(
        settings=settings,
        parts=parts,
        catalog=catalog,
        executions=executions,
        kernels=kernels,
        gate=gate,
        pool=pool,
        metrics=metrics,
    )
    people_sessions = Sessions(
        store,
        lifetime=timedelta(seconds=settings.session_seconds),
        idle=timedelta(seconds=settings.session_idle_seconds),
    )
    passwords = Passwords()
    attempts = Limits(account=settings.sign_in_attempts, address=settings.sign_in_address_attempts)
    provider = openid_provider(settings)
    sign_in = SignIn(store, people_sessions, passwords, attempts, has_openid=provider is not None)
    authenticator = Authenticator(store, people_sessions)
    library = FormLibrary(store=store, catalog=catalog)
    ticker = Ticker(settings=settings, store=store, executions=executions)
    derivation = Derivation(store=store, catalog=catalog, ticker=ticker)
    form_desk = FormDesk(
        catalog=catalog,
        library=library,
        options=options,
        executions=executions,
        drafts=Drafts(store=store, secrets=secret_store),
    )
    services = Services(
        settings=settings,
        home_lock=home_lock,
        store=store,
        secrets=secret_store,
        catalog=catalog,
        options=options,
        executions=executions,
        execution_inputs=ExecutionInputs(executions=executions, catalog=catalog, store=store, secrets=secret_store),
        forms=form_desk,
        form_definitions=FormAdministration(store=store, catalog=catalog, library=library),
        form_sessions=FormSessions(secrets=secret_store, authenticator=authenticator),
        records=records,
        administration=Administration(store=store, secrets=secret_store),
        people=People(store),
        passwords=passwords,
        sessions=people_sessions,
        sign_in=sign_in,
        openid=OpenId(store, sign_in, provider, settings),
        authenticator=authenticator,
        authoring=Authoring(parts=parts, executions=executions, forms=form_desk, catalog=catalog, folder_prefix=prefix),
        signals=notices,
        metrics=metrics,
        kernels=kernels,
        gate=gate,
        pool=pool,
        runner=late.runner,
        schedules=Schedules(store=store, executions=executions, ticker=ticker),
        derivation=derivation,
        clock=Clock(ticker=ticker, derivation=derivation),
    )
    _tie_clock(services)
    _accept_operator(services)
    if settings.dev:
        _prepare_development(services)
    else:
        _end_development(services)
    return services


def openid_provider(settings: Settings) -> OpenIdProvider | None:
    """The provider that people may sign in at, if one is set."""
    if settings.oidc_issuer is None or settings.oidc_client_id is None:
        return None
    return OpenIdProvider(settings.oidc_issuer, settings.oidc_client_id, settings.oidc_client_secret)


def _tie_clock(services: Services) -> None:
    services.executions.on_finished = services.clock.execution_finished
    services.schedules.on_change = services.notice_schedules


def kernel_limits(settings: Settings) -> sandbox.Limits:
    """What one execution may take."""
    return sandbox.Limits(
        memory_bytes=settings.memory_bytes,
        processes=settings.processes,
        file_bytes=settings.tmp_bytes,
        open_files=settings.open_files,
    )


def _settle_control_group(name: str) -> str | None:
    """Where kernels get control groups; None where memory has to be watched."""
    try:
        return str(control_groups.settle(name))
    except control_groups.NotPermitted as error:
        log.info("memory of executions is watched, not held by the system", reason=str(error))
        return None


def lock_home(home: Path) -> IO[str]:
    """Take the home for this process; the lock ends with it, however it ends.

    Raises:
        Conflict: another process has it.
    """
    lock = open(os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+")  # noqa: SIM115
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise errors.Conflict(
            f"A control plane is already running on {home}: end it first, or choose another --home."
        ) from error
    return lock


def clear_leftovers(home: Path) -> str:
    """Remove the temporary folders that a killed control plane of this home left; returns the prefix of their names."""
    prefix = f"bifrost-{hashlib.sha256(str(home).encode()).hexdigest()[:12]}-"
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        shutil.rmtree(folder, ignore_errors=True)
    return prefix


def operator_key_file(settings: Settings) -> Path:
    """Where the commands of whoever owns the home find their credential."""
    return settings.keys_dir / "operator.key"


def _accept_operator(services: Services) -> None:
    """A fresh credential at every start, readable by the owner of the home alone."""
    key = secrets.token_urlsafe(32)
    path = operator_key_file(services.settings)
    partial = path.with_suffix(".partial")
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(key)
    partial.replace(path)
    services.authenticator.accept(key, OPERATOR)


def _prepare_development(services: Services) -> None:
    services.authenticator.accept(DEV_KEY, DEVELOPER)
    now = datetime.now(UTC)
    organization = contract.Organization(id=DEV_ORGANIZATION, name="Test Organization", created_at=now)
    with contextlib.suppress(errors.Conflict):
        services.store.create_organization(
            organization, audit=ledger.audit(OPERATOR, "organization.create", target=DEV_ORGANIZATION)
        )
    user = services.store.find_user(DEV_EMAIL)
    if user is None:
        user = User(email=DEV_EMAIL, name="Developer", roles={"*": ("PlatformAdmin",)}, created_at=now, version=1)
        services.store.create_user(user, audit=ledger.audit(OPERATOR, "user.create", target=DEV_EMAIL))
    if user.password_hash is None:
        changed = user.model_copy(update={"password_hash": services.passwords.hash(DEV_PASSWORD)})
        services.store.change_user(changed, audit=ledger.audit(OPERATOR, "user.password", target=DEV_EMAIL))


def _end_development(services: Services) -> None:
    """A home that was used with --dev has no well-known password any more, and nobody who came by it."""
    user = services.store.find_user(DEV_EMAIL)
    if user is None or user.password_hash is None or not services.passwords.verify(user.password_hash, DEV_PASSWORD):
        return
    changed = sessions.next_epoch(user.model_copy(update={"password_hash": None}))
    services.store.change_user(changed, audit=ledger.audit(OPERATOR, "user.password", target=DEV_EMAIL))
