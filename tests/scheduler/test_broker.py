"""The broker's door as a kernel meets it, also one that was taken over by somebody (threats 33 to 38)."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bifrost_kernel import frames, models
from bifrost_scheduler import broker, tokens
from bifrost_scheduler.secret_store.local import LocalSecretStore
from bifrost_scheduler.settings import Settings
from bifrost_scheduler.signals import Signals
from bifrost_scheduler.store import contract

AT = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
SECRET = "s3cr3t-of-acme"


class Kernel:
    """The other end of a door: what a kernel, or who took it over, can send."""

    def __init__(self, parts: broker.BrokerParts, grant: tokens.Grant) -> None:
        self.token = parts.tokens.issue(grant)
        self.door = broker.ExecutionDoor(parts, grant, self.token)
        self.socket, self._end = socket.socketpair()
        self._thread = threading.Thread(target=self.door.serve, args=(self._end,))
        self._thread.start()

    def send(self, **request: Any) -> dict[str, Any] | None:
        """The reply; None when the door hung up."""
        try:
            frames.send(self.socket, {"id": 1, **request})
            return frames.receive(self.socket)
        except (OSError, frames.FrameError):
            return None

    def ask(self, op: str, **arguments: Any) -> Any:
        """The reply of an operation after a right greeting: its value, or the code of its error."""
        reply = self.send(op=op, **arguments)
        assert reply is not None
        return reply["ok"] if "ok" in reply else reply["error"]["code"]

    def greeted(self) -> Kernel:
        assert self.send(op="hello", token=self.token) == {"id": 1, "ok": None}
        return self

    def close(self) -> None:
        self.socket.close()
        self._thread.join()
        self._end.close()


@pytest.fixture
def parts(store: contract.Store, tmp_path: Path) -> broker.BrokerParts:
    (tmp_path / "keys").mkdir(mode=0o700)
    return broker.BrokerParts(
        settings=Settings(home=tmp_path, log_lines=3, event_bytes=1024),
        store=store,
        secrets=LocalSecretStore(store, tmp_path / "keys"),
        tokens=tokens.ExecutionTokens(),
        signals=Signals(),
    )


@pytest.fixture
def kernel(
    parts: broker.BrokerParts, submit: Callable[..., contract.Execution], claim: Callable[..., contract.Execution]
) -> Iterator[Callable[..., Kernel]]:
    """The kernel of a running execution of the organization `acme` (or of another one)."""
    made: list[Kernel] = []

    def make(organization: str = "acme") -> Kernel:
        submit(organization=organization)
        execution = claim()
        grant = tokens.Grant(
            execution_id=execution.id,
            organization=execution.organization,
            caller=execution.caller,
            name=execution.workflow,
            fence=execution.fence,
        )
        made.append(Kernel(parts, grant))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def put(parts: broker.BrokerParts, audit: contract.AuditEntry) -> Callable[..., None]:
    """Set a config value (`type` and `value`) or a secret (`secret`) in a scope."""

    def make(scope: str, name: str, *, type: str = "string", value: Any = None, secret: str | None = None) -> None:
        if secret is not None:
            parts.secrets.put(scope, name, secret, audit=audit)
            return
        entry = contract.ConfigEntry(
            scope=scope, key=name, type=type, value=json.dumps(value), updated_at=AT, updated_by="user:a"
        )
        parts.store.put_config(entry, audit=audit)

    return make


def events(parts: broker.BrokerParts, kernel: Kernel, type_: models.EventType) -> list[dict[str, Any]]:
    listed = parts.store.list_events(kernel.door.subject.execution_id)
    return [event.body for event in listed if event.type is type_]


def audited(parts: broker.BrokerParts, action: str) -> list[dict[str, Any]]:
    bodies = [json.loads(entry.body) for entry in parts.store.list_ledger()]
    return [body for body in bodies if body.get("action") == action]


# the token


@pytest.mark.parametrize("token", ["", "x" * 1_000_000, None, 1, ["a"], {}])
def test_wrong_token(parts: broker.BrokerParts, kernel: Callable[..., Kernel], token: Any) -> None:
    """A wrong greeting ends the connection with nothing said, and is an audit entry."""
    made = kernel()
    assert made.send(op="hello", token=token) is None
    assert len(audited(parts, "broker.denied")) == 1


def test_token_off_by_one(kernel: Callable[..., Kernel]) -> None:
    """A token that differs in one character is none."""
    made = kernel()
    last = "A" if made.token[-1] != "A" else "B"
    assert made.send(op="hello", token=made.token[:-1] + last) is None


def test_token_of_another_execution(kernel: Callable[..., Kernel]) -> None:
    """The token of one execution does not open the door of another."""
    one, other = kernel(), kernel("beta")
    assert one.send(op="hello", token=other.token) is None


def test_greeting_comes_first(kernel: Callable[..., Kernel], put: Callable[..., None]) -> None:
    """Nothing is answered before the greeting."""
    put("acme", "vault", secret=SECRET)
    assert kernel().send(op="get_secret", name="vault") is None


def test_token_ends_with_the_execution(parts: broker.BrokerParts, kernel: Callable[..., Kernel]) -> None:
    """A door that was open answers nothing more when its token is revoked."""
    made = kernel().greeted()
    assert made.ask("has_config", key="a") is False
    parts.tokens.revoke(made.token)
    assert made.ask("has_config", key="a") == "Conflict"
    assert made.ask("log", level="info", message="late", data=None) == "Conflict"


# the protocol


@pytest.mark.parametrize(
    "op", ["hello", "", "__init__", "converse", "operations", None, 1, ["log"], {"a": 1}, "x" * 999]
)
def test_unknown_operation(kernel: Callable[..., Kernel], op: Any) -> None:
    """An operation that is none is refused, and the connection goes on."""
    made = kernel().greeted()
    assert made.ask(op) == "ValidationError"
    assert made.ask("has_config", key="a") is False


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"key": 1},
        {"key": None},
        {"key": "a", "organization": "beta"},
        {"key": "a", "execution": "other"},
        {"key": "a", "scope": "GLOBAL"},
    ],
)
def test_wrong_arguments(kernel: Callable[..., Kernel], arguments: dict[str, Any]) -> None:
    """A missing, ill-typed or unknown argument is refused: nobody says for whom they ask."""
    assert kernel().greeted().ask("get_config", **arguments) == "ValidationError"


def test_no_frame(kernel: Callable[..., Kernel]) -> None:
    """Bytes that are no frame end the connection."""
    made = kernel().greeted()
    made.socket.sendall(b"\xff\xff\xff\xff{}")
    assert made.socket.recv(1) == b""


# reading


def test_own_before_global(kernel: Callable[..., Kernel], put: Callable[..., None]) -> None:
    """Config is looked up in the organization, then in GLOBAL; false and empty values are found."""
    put("GLOBAL", "a", value="global")
    put("GLOBAL", "b", value="global")
    put("acme", "b", type="bool", value=False)
    made = kernel().greeted()
    assert made.ask("get_config", key="a") == {"found": True, "value": "global", "scope": "GLOBAL", "secret": False}
    assert made.ask("get_config", key="b")["value"] is False
    assert made.ask("get_config", key="c") == {"found": False, "searched": ["acme", "GLOBAL"]}


def test_nothing_of_a_neighbour(kernel: Callable[..., Kernel], put: Callable[..., None]) -> None:
    """What another organization has is not there."""
    put("beta", "a", value="theirs")
    put("beta", "vault", secret="s3cr3t-of-beta")
    made = kernel().greeted()
    assert made.ask("get_config", key="a")["found"] is False
    assert made.ask("has_config", key="a") is False
    assert made.ask("get_secret", name="vault")["found"] is False
    assert made.ask("get_connection", name="vault") == "NotFound"


def test_reference_stays_in_its_scope(kernel: Callable[..., Kernel], put: Callable[..., None]) -> None:
    """A global reference gives the global secret: an organization cannot turn it to a secret of its own."""
    put("GLOBAL", "reference", type="secret_ref", value="vault")
    put("GLOBAL", "vault", secret="s3cr3t-of-global")
    put("acme", "vault", secret=SECRET)
    assert kernel().greeted().ask("get_config", key="reference")["value"] == "s3cr3t-of-global"


def test_reference_to_nothing(kernel: Callable[..., Kernel], put: Callable[..., None]) -> None:
    """A reference to a secret that its scope does not hold is NotFound, also when another scope holds one."""
    put("acme", "reference", type="secret_ref", value="vault")
    put("GLOBAL", "vault", secret="s3cr3t-of-global")
    assert kernel().greeted().ask("get_config", key="reference") == "NotFound"


def test_secret_is_accounted_for(
    parts: broker.BrokerParts, kernel: Callable[..., Kernel], put: Callable[..., None]
) -> None:
    """A secret that was read is an audit entry and an event, with its HMAC and without its value."""
    put("acme", "vault", secret=SECRET)
    made = kernel().greeted()
    assert made.ask("get_secret", name="vault")["value"] == SECRET
    (entry,) = audited(parts, "secret.read")
    (event,) = events(parts, made, models.EventType.SECRET_READ)
    assert (entry["target"], event["scope"], bool(event["hmac"])) == ("vault", "acme", True)
    assert SECRET not in json.dumps([entry, event])


def test_what_was_handed_out_is_masked(
    parts: broker.BrokerParts, kernel: Callable[..., Kernel], put: Callable[..., None]
) -> None:
    """From then on the secret is masked in all that the kernel writes."""
    put("acme", "vault", secret=SECRET)
    made = kernel().greeted()
    made.ask("get_secret", name="vault")
    made.ask("log", level="info", message=f"it is {SECRET}", data={"a": [SECRET]})
    made.ask("variable", name="secret", value=SECRET)
    (line,) = events(parts, made, models.EventType.LOG)
    assert (line["message"], line["data"]) == ("it is ***", {"a": ["***"]})
    assert events(parts, made, models.EventType.VARIABLE) == [{"name": "secret", "value": "***"}]


def test_no_account_no_secret(
    parts: broker.BrokerParts, kernel: Callable[..., Kernel], put: Callable[..., None]
) -> None:
    """When the read cannot be written down, the secret is not handed out."""
    put("acme", "vault", secret=SECRET)
    made = kernel().greeted()
    parts.store.close()
    assert SECRET not in json.dumps(made.send(op="get_secret", name="vault"))


def test_connection_gives_the_access_token_only(
    parts: broker.BrokerParts, kernel: Callable[..., Kernel], audit: contract.AuditEntry
) -> None:
    """Kernels get access tokens, never a refresh token or a client secret."""
    held = {name: f"{name}-of-acme" for name in ("client_secret", "access_token", "refresh_token")}
    connection = parts.secrets.seal_connection(
        "acme", "Halo", held, updated_by="user:a", now=AT, oauth_flow_type="refresh_token", client_id="client"
    )
    parts.store.put_connection(connection, audit=audit)
    credentials = kernel().greeted().ask("get_connection", name="Halo")
    assert credentials["access_token"] == "access_token-of-acme"
    assert "refresh_token-of-acme" not in json.dumps(credentials)
    assert "client_secret-of-acme" not in json.dumps(credentials)


# writing


@pytest.mark.parametrize("level", ["trace", "INFO", "", "warn"])
def test_log_level(kernel: Callable[..., Kernel], level: str) -> None:
    """A level that is none is refused."""
    assert kernel().greeted().ask("log", level=level, message="a", data=None) == "ValidationError"


def test_log_flood(parts: broker.BrokerParts, kernel: Callable[..., Kernel]) -> None:
    """Beyond the limit one note is written that names the setting, and the execution goes on."""
    made = kernel().greeted()
    for number in range(10):
        assert made.ask("log", level="info", message=str(number), data=None) is None
    lines = [line["message"] for line in events(parts, made, models.EventType.LOG)]
    assert lines[:3] == ["0", "1", "2"]
    assert len(lines) == 4
    assert "BIFROST_LOG_LINES" in lines[3]


def test_large_checkpoint(parts: broker.BrokerParts, kernel: Callable[..., Kernel]) -> None:
    """A checkpoint over the limit is refused with the setting's name, and leaves nothing."""
    made = kernel().greeted()
    reply = made.send(op="checkpoint", name="large", data="x" * 2000)
    assert reply is not None
    assert (reply["error"]["code"], "BIFROST_EVENT_BYTES" in reply["error"]["message"]) == ("LimitExceeded", True)
    assert events(parts, made, models.EventType.CHECKPOINT) == []


def test_written_is_durable(parts: broker.BrokerParts, kernel: Callable[..., Kernel]) -> None:
    """What was answered is in the store, in its order."""
    made = kernel().greeted()
    made.ask("checkpoint", name="a", data=1)
    made.ask("checkpoint", name="b", data=2)
    assert [event["name"] for event in events(parts, made, models.EventType.CHECKPOINT)] == ["a", "b"]


def test_steps_are_remembered(kernel: Callable[..., Kernel]) -> None:
    """A step's result is found again within the execution, whatever it is."""
    made = kernel().greeted()
    assert made.ask("step_find", name="a") == {"found": False, "value": None}
    made.ask("step_save", name="a", value=None)
    assert made.ask("step_find", name="a") == {"found": True, "value": None}
