"""Blocking calls over the broker's socket."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bifrost_kernel import broker_client, errors


def test_it_greets_first_and_answers_come_back(peer: Callable[..., Any]) -> None:
    """The first request is `hello` with the token; then each call gives its own answer."""
    made = peer(get_config={"found": True})
    client = broker_client.BrokerClient(made.kernel_end, "secret-token")
    assert client.call("get_config", key="a") == {"found": True}
    assert made.requests == [
        {"id": 1, "op": "hello", "token": "secret-token"},
        {"id": 2, "op": "get_config", "key": "a"},
    ]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("NotFound", errors.NotFound),
        ("ConnectionRefused", errors.ConnectionRefused),
        ("LimitExceeded", errors.LimitExceeded),
        ("Forbidden", errors.Forbidden),
        ("Unavailable", errors.Unavailable),
        ("TooManyRequests", errors.TooManyRequests),
        ("Nonsense", errors.BifrostError),
    ],
)
def test_error_codes_come_back_as_errors(peer: Callable[..., Any], code: str, kind: type[Exception]) -> None:
    """Author code catches the classes of `errors`, with message and details."""
    made = peer(act={"error": {"code": code, "message": "why", "details": {"retry_after_seconds": 7}}})
    client = broker_client.BrokerClient(made.kernel_end, "t")
    with pytest.raises(errors.BifrostError, match="why") as caught:
        client.call("act")
    assert type(caught.value) is kind
    assert getattr(caught.value, "retry_after_seconds", 7) == 7


def test_field_errors_come_back_as_fields(peer: Callable[..., Any]) -> None:
    """A refused run from a notebook names its fields."""
    fields = [{"field": "a", "code": "missing", "message": "A is required."}]
    made = peer(run={"error": {"code": "ValidationError", "message": "no", "details": {"fields": fields}}})
    with pytest.raises(errors.ValidationError) as caught:
        broker_client.BrokerClient(made.kernel_end, "t").call("run")
    assert caught.value.fields[0].as_dict() == fields[0]


def test_a_broker_that_is_gone_is_named() -> None:
    """A closed connection, also as the answer to a wrong token, is `BrokerUnavailable`."""
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(errors.BrokerUnavailable):
        broker_client.BrokerClient(ours, "wrong")


def test_nobody_at_the_path_is_named(tmp_path: Path) -> None:
    """A Lab session without a control plane says so."""
    with pytest.raises(errors.BrokerUnavailable):
        broker_client.connect_unix(str(tmp_path / "none.sock"), "t")


def test_a_message_over_the_limit_leaves_the_connection_usable(peer: Callable[..., Any]) -> None:
    """An oversize call is refused before a byte is sent."""
    client = broker_client.BrokerClient(peer(act=1).kernel_end, "t")
    with pytest.raises(errors.LimitExceeded, match="limit of 16777216"):
        client.call("act", value="a" * (17 * 1024 * 1024))
    assert client.call("act") == 1


def test_threads_share_a_connection(peer: Callable[..., Any]) -> None:
    """Concurrent calls never mix their answers."""
    client = broker_client.BrokerClient(peer(echo=lambda request: request["value"]).kernel_end, "t")
    answers: dict[int, Any] = {}

    def work(number: int) -> None:
        for turn in range(50):
            answers[number * 100 + turn] = client.call("echo", value=number * 100 + turn)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 200
    assert all(key == value for key, value in answers.items())


def test_a_forked_child_cannot_use_it(peer: Callable[..., Any]) -> None:
    """The child gets an error that says what to do, and the parent's connection stays in order."""
    client = broker_client.BrokerClient(peer(act=1).kernel_end, "t")
    child = os.fork()
    if child == 0:
        try:
            client.call("act")
        except errors.WorkflowError as error:
            os._exit(7 if "forked child" in str(error) else 8)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert client.call("act") == 1


def test_an_interrupt_strikes_between_two_calls(peer: Callable[..., Any]) -> None:
    """Ctrl-C in the middle of an exchange waits for its end, so that the failure can still be reported."""

    def interrupt(request: dict[str, Any]) -> str:
        os.kill(os.getpid(), signal.SIGINT)
        return "done"

    made = peer(slow=interrupt, failure=None)
    client = broker_client.BrokerClient(made.kernel_end, "t")
    with pytest.raises(KeyboardInterrupt):
        client.call("slow")
    client.call("failure")
    assert [request["op"] for request in made.requests] == ["hello", "slow", "failure"]
