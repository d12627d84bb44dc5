"""Every knob of the control plane, read once into one frozen object; `services.build` receives it and hands parts on.

The command line makes it (`Settings(dev=True, …)`); what is not given comes from `BIFROST_*` in the environment.
Importing this module reads nothing and creates nothing: `prepare_home` is the only function that touches the disk.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from bifrost_kernel import errors
from bifrost_kernel.forkserver.sandbox import Level

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")

CommaSeparated = Annotated[tuple[str, ...], NoDecode]


class Settings(BaseSettings):
    """One field, one environment variable: `port` is `BIFROST_PORT`."""

    model_config = SettingsConfigDict(env_prefix="BIFROST_", frozen=True, extra="forbid", use_attribute_docstrings=True)

    home: Path = Path("~/.bifrost")
    """The folder that holds the database, the keys and the records; one control plane per home."""

    workspace: Path = Path("workspace")
    """The folder with the authors' workflows; saving a file there is enough to publish it."""

    host: str = "127.0.0.1"
    """The address that the servers listen on."""

    port: int = Field(default=7071, ge=0, le=65535)
    """The port of the API and the console; 0 takes a free one."""

    lab_port: int = Field(default=8888, ge=0, le=65535)
    """The port of JupyterLab."""

    portal_port: int = Field(default=8866, ge=0, le=65535)
    """The port of the customers' portal."""

    dev: bool = False
    """Make a test organization, a platform administrator and the key `test`; on loopback only."""

    lab: bool = True
    """Start JupyterLab for authors."""

    portal: bool = True
    """Start the portal for customers."""

    allowed_hosts: CommaSeparated = ()
    """Names that a request's Host header may carry besides loopback ones and `host`; comma-separated."""

    max_concurrent_executions: int = Field(default=8, ge=1)
    """Executions that run at once on this machine."""

    organization_concurrency: int = Field(default=8, ge=1)
    """Executions of one organization that run at once; further ones wait in the queue."""

    organization_queue_limit: int = Field(default=100, ge=1)
    """Executions of one organization that may wait; a further one is answered with 429."""

    engine_workers: int = Field(default=2, ge=1)
    """Processes that compose and mask records; about one per core."""

    spare_kernels: int = Field(default=2, ge=0)
    """Kernels that are forked ahead of the next execution."""

    preload: CommaSeparated = ()
    """Installed packages that are imported once for all executions, e.g. `pandas,msal`; comma-separated."""

    sync_wait_seconds: float = Field(default=30.0, gt=0)
    """How long a synchronous call waits in the queue before it is answered with 202."""

    schedule_horizon_seconds: float = Field(default=86_400.0, ge=0)
    """How far back due times at which no scheduler ran are caught up; older ones are missed."""

    schedule_wait_seconds: float = Field(default=300.0, ge=0)
    """How long a due time waits for room in its organization's queue, or for kernels, before it is skipped."""

    schedule_retry_seconds: float = Field(default=30.0, gt=0)
    """Time before the first retry of a scheduled execution; each further one takes twice as long, an hour at most."""

    grace_seconds: float = Field(default=5.0, ge=0)
    """Time between the interrupt at an execution's deadline and the kill."""

    lease_seconds: float = Field(default=10.0, gt=0)
    """How long a running execution counts as alive after its runner was last heard of."""

    shutdown_seconds: float = Field(default=15.0, gt=0)
    """Time that everything has to end in after SIGTERM, running executions included."""

    request_body_bytes: int = Field(default=1024 * 1024, ge=1024)
    """The largest request body; a larger one is answered with 413."""

    sandbox: Level = Level.FULL
    """What executions are enclosed by: `full`, or on a machine that cannot, knowingly `reduced` or `none`."""

    memory_bytes: int = Field(default=1024 * 1024 * 1024, ge=64 * 1024 * 1024)
    """Memory of an execution: address space of each process, and what all of them take together."""

    processes: int = Field(default=128, ge=1)
    """Processes and threads of one execution."""

    open_files: int = Field(default=1024, ge=64)
    """Files and connections that one process of an execution has open at once."""

    tmp_bytes: int = Field(default=256 * 1024 * 1024, ge=4096)
    """Size of one execution's `/tmp`, which is in memory, and of one file that it writes."""

    output_bytes: int = Field(default=10 * 1024 * 1024, ge=1024)
    """Notebook output of one execution; what is beyond is cut with a note."""

    one_output_bytes: int = Field(default=1024 * 1024, ge=1024)
    """One output of one execution; what is beyond is cut with a note."""

    log_lines: int = Field(default=10_000, ge=1)
    """Log lines of one execution; the next one is dropped with a note."""

    event_bytes: int = Field(default=1024 * 1024, ge=1024)
    """One checkpoint, variable or log line's data, as JSON."""

    egress_allow: CommaSeparated = ()
    """`host:port` pairs on loopback, private or link-local addresses that kernels may reach; comma-separated."""

    host_network_workflows: CommaSeparated = ()
    """Workflows that may run with this machine's own network (`network="host"`); by name, comma-separated."""

    session_seconds: int = Field(default=12 * 3600, ge=60)
    """How long a person stays signed in at most."""

    session_idle_seconds: int = Field(default=3600, ge=60)
    """How long a session may lie unused before it is over."""

    sign_in_attempts: int = Field(default=10, ge=1)
    """Failed sign-ins of one account within 15 minutes; a further one is answered with 429."""

    sign_in_address_attempts: int = Field(default=100, ge=1)
    """Failed sign-ins from one address within 15 minutes; a further one is answered with 429."""

    portal_url: str | None = None
    """The portal's address as browsers see it; None is `http://localhost:` and the portal's port."""

    portal_kernels: int = Field(default=24, ge=0)
    """Forms of the portal that have a kernel behind them at once; further ones work without."""

    portal_kernels_per_person: int = Field(default=4, ge=0)
    """The same for the forms that one person has open."""

    portal_kernel_idle_seconds: int = Field(default=900, ge=10)
    """After this long without a word from its form a kernel ends."""

    portal_kernel_abandoned_seconds: float = Field(default=30, gt=0)
    """A kernel of the portal whose page is gone is kept this long: a phone that lost its net comes back."""

    portal_session_check_seconds: float = Field(default=10, gt=0)
    """How often what is open in the portal (a form's websocket, live events) asks whether its session still counts."""

    portal_streams_per_person: int = Field(default=20, ge=1)
    """Runs that one person may watch live at once; the pages of further ones ask again and again instead."""

    oidc_issuer: str | None = None
    """The OpenID provider that people may sign in at, as its discovery document names it."""

    oidc_client_id: str | None = None
    """Who Bifrost is to the OpenID provider."""

    oidc_client_secret: SecretStr | None = None
    """What Bifrost shows the OpenID provider; None is a public client, which PKCE alone protects."""

    oidc_name: str = "OpenID"
    """What stands on the button, e.g. the name of the company's directory."""

    oidc_allowed_domains: CommaSeparated = ()
    """Domains of the emails that may sign in by OpenID; none given are all; comma-separated."""

    oidc_create_users: bool = False
    """Make unknown people who come from the OpenID provider users without a role; else they have to be invited."""

    @field_validator("home", "workspace")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("preload")
    @classmethod
    def _module_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not all(part.isidentifier() for part in name.split(".")):
                raise ValueError(f"{name!r} is no name of a module as `import` takes it, e.g. pandas")
        return names

    @field_validator(
        "allowed_hosts", "egress_allow", "host_network_workflows", "preload", "oidc_allowed_domains", mode="before"
    )
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(part.strip() for part in value.split(",") if part.strip())

    @field_validator("egress_allow")
    @classmethod
    def _host_and_port(cls, pairs: tuple[str, ...]) -> tuple[str, ...]:
        for pair in pairs:
            host, _, port = pair.rpartition(":")
            if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
                raise ValueError(f"{pair!r} is not host:port, e.g. 127.0.0.1:8080")
        return pairs

    @model_validator(mode="after")
    def _dev_on_loopback_only(self) -> Settings:
        if self.dev and not is_loopback(self.host):
            raise ValueError(
                f"--dev opens the server with a well-known key and is refused on {self.host!r}; "
                "use --host 127.0.0.1, or start without --dev"
            )
        return self

    @model_validator(mode="after")
    def _openid_is_whole(self) -> Settings:
        if (self.oidc_issuer is None) != (self.oidc_client_id is None):
            raise ValueError("BIFROST_OIDC_ISSUER and BIFROST_OIDC_CLIENT_ID are set together, or neither")
        if self.oidc_issuer is not None and not is_protected(self.oidc_issuer):
            raise ValueError(f"BIFROST_OIDC_ISSUER needs https (plain http on loopback only): {self.oidc_issuer!r}")
        return self

    @property
    def portal_origin(self) -> str:
        """Where browsers find the portal, without a slash at the end."""
        return (self.portal_url or f"http://localhost:{self.portal_port}").rstrip("/")

    @property
    def database(self) -> Path:
        return self.home / "bifrost.db"

    @property
    def keys_dir(self) -> Path:
        return self.home / "keys"

    @property
    def records_dir(self) -> Path:
        return self.home / "records"

    @property
    def code_dir(self) -> Path:
        return self.home / "code"

    @property
    def logs_dir(self) -> Path:
        return self.home / "logs"

    @property
    def runtime_file(self) -> Path:
        """Where the running control plane writes its address and process id for the commands of its operator."""
        return self.home / "runtime.json"


def is_protected(url: str) -> bool:
    """True for https, and for plain http that does not leave this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))


def is_loopback(host: str) -> bool:
    """True for `localhost` and loopback addresses; any other name may resolve to something else tomorrow."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def prepare_home(settings: Settings) -> None:
    """Create the home and its folders, readable by their owner alone.

    The code alone may be read by whoever gets there, which are the kernels: they are other users, and see nothing else.

    Raises:
        Forbidden: a folder of the home belongs to somebody else.
    """
    home = settings.home
    for folder in (home, settings.keys_dir, settings.records_dir, settings.code_dir, settings.logs_dir):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.geteuid():
            raise errors.Forbidden(f"{folder} belongs to another user; choose another home or change its owner")
        folder.chmod(0o755 if folder == settings.code_dir else 0o700)
