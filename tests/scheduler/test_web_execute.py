"""`POST /api/workflows/{name}` (contract §4): results, headers, every failure, and what a caller may send."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

Run = Callable[..., httpx.Response]
Client = Callable[..., httpx.Client]


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The failure that a response is, after a look at its form."""
    assert response.status_code == status, response.text
    body: dict[str, Any] = response.json()
    assert set(body) == {"error", "message", "details", "execution_id"}
    assert body["error"] == code
    return body


def fields(body: dict[str, Any]) -> dict[str, str]:
    return {field["field"]: field["code"] for field in body["details"]["fields"]}


# what ends well


def test_bare_result(run: Run, organization: str) -> None:
    """A success is 200, its body is the bare result, and three headers tell which execution that was."""
    response = run("hello_world", organization, name="Alice", language="spanish")
    assert (response.status_code, response.json()["greeting"]) == (200, "¡Hola, Alice!")
    assert set(response.json()) == {"greeting", "language", "organization", "executed_by"}
    assert response.headers["X-Execution-Status"] == "success"
    assert response.headers["X-Execution-Id"][14] == "7"
    assert int(response.headers["X-Execution-Duration-Ms"]) > 0


def test_values_have_their_types(run: Run, organization: str) -> None:
    """Values come as their type or as its text, and come back as their type."""
    typed = {"text": "a", "count": 2, "ratio": 0.5, "flag": False, "email": "a@example.com", "data": {"a": [1]}}
    as_text = {name: json.dumps(value) if not isinstance(value, str) else value for name, value in typed.items()}
    assert run("echo", organization, **typed, items=[0]).json() == {**typed, "items": [0]}
    assert run("echo", organization, **as_text).json() == {**typed, "items": None}


def test_nothing_is_null(run: Run, organization: str) -> None:
    """A workflow without a result answers `null`."""
    assert run("nothing", organization).text == "null"


def test_representation(run: Run, organization: str) -> None:
    """`Prefer: return=representation` gives the envelope of the contract."""
    envelope = run("talkative", organization, headers={"Prefer": "return=representation"}).json()
    promised = {"execution_id", "workflow_name", "status", "result", "error", "error_type", "details", "duration_ms"}
    assert promised | {"started_at", "completed_at", "organization", "caller", "trigger"} <= set(envelope)
    assert (envelope["result"], envelope["status"], envelope["trigger"]) == ([1, 2, 3], "success", "api")


def test_completed_with_errors(run: Run, organization: str) -> None:
    """A result that says `"success": false` is a result; its status says what it says."""
    response = run("partly", organization)
    assert (response.status_code, response.json()) == (200, {"success": False, "failed": ["b"]})
    assert response.headers["X-Execution-Status"] == "completed_with_errors"


@pytest.mark.parametrize("prefer", ["respond-async", "wait=5, Respond-Async", None])
def test_accepted(run: Run, client: Client, until_over: Any, organization: str, prefer: str | None) -> None:
    """An asynchronous call (by `Prefer` or by the workflow's mode) is 202 with envelope and Location."""
    workflow = "talkative" if prefer else "waiting"
    response = run(workflow, organization, headers={"Prefer": prefer} if prefer else None)
    execution_id = response.json()["execution_id"]
    assert (response.status_code, response.headers["Location"]) == (202, f"/api/executions/{execution_id}")
    if prefer is None:
        client().post(f"/api/executions/{execution_id}/cancel").raise_for_status()
    assert until_over(execution_id)["status"] == ("success" if prefer else "cancelled")


def test_bearer_token(client: Client, organization: str) -> None:
    """The key counts as a bearer token as well."""
    one = client(None, organization, Authorization="Bearer test")
    assert one.post("/api/workflows/nothing", json={}).status_code == 200


def test_no_body_is_no_input(client: Client, organization: str) -> None:
    """A workflow without inputs needs no body and no content type."""
    assert client("test", organization).post("/api/workflows/nothing").status_code == 200


# organizations


def test_global(run: Run) -> None:
    """Without an organization a workflow that needs none runs for GLOBAL."""
    assert run("everywhere").json() == {"organization": "GLOBAL"}


def test_organization_is_needed(run: Run, new_key: Callable[..., str], organization: str) -> None:
    """Without an organization a workflow that needs one is 400, and no organization is guessed from the key."""
    problem(run("nothing"), 400, "ValidationError")
    problem(run("nothing", key=new_key(organization)), 400, "ValidationError")


def test_global_is_not_everybodys(run: Run, new_key: Callable[..., str], organization: str) -> None:
    """A key of an organization does not run workflows for GLOBAL."""
    problem(run("everywhere", key=new_key(organization)), 404, "NotFound")


def test_foreign_is_unknown(run: Run, new_key: Callable[..., str], organization: str, neighbour: str) -> None:
    """A foreign organization, an unknown one and an inactive one give the same answer."""
    key = new_key(organization)
    foreign = problem(run("nothing", neighbour, key=key), 404, "NotFound")
    unknown = problem(run("nothing", "n" * len(neighbour), key=key), 404, "NotFound")
    assert foreign["message"].replace(neighbour, "") == unknown["message"].replace("n" * len(neighbour), "")


@pytest.mark.parametrize("name", ["organization", "organization_id", "org_id"])
def test_organization_is_not_in_the_body(client: Client, organization: str, neighbour: str, name: str) -> None:
    """An organization in the body is an unknown input."""
    answer = client("test", organization).post("/api/workflows/echo", json={"text": "a", name: neighbour})
    body = problem(answer, 400, "ValidationError")
    assert fields(body) == {name: "unknown"}


# refused


def test_all_fields_at_once(run: Run, organization: str) -> None:
    """400 names every wrong field with a code and a text, and makes no execution."""
    body = problem(run("echo", organization, count=10, flag="maybe", email="x", other=1), 400, "ValidationError")
    assert set(fields(body)) == {"text", "count", "flag", "email", "other"}
    assert all(field["message"] for field in body["details"]["fields"])
    assert body["execution_id"] is None


def test_refused_leaves_nothing(run: Run, client: Client, organization: str) -> None:
    """Refused input makes no execution."""
    run("echo", organization)
    assert client("test", organization).get("/api/executions").json()["items"] == []


def test_option_of_a_provider(run: Run, organization: str, neighbour: str) -> None:
    """A value that its data provider does not offer this organization is refused, also when it offers it another."""
    assert run("paint", organization, color=organization).status_code == 200
    assert fields(problem(run("paint", organization, color=neighbour), 400, "ValidationError")) == {"color": "option"}


@pytest.mark.parametrize("key", [None, "", "undefined", "tesT", "x" * 10_000, "bfk_" + "0" * 16 + "_" + "A" * 43])
def test_unauthorized(client: Client, organization: str, key: str | None) -> None:
    """No key, or none that is valid, is 401, whatever it looks like."""
    response = client(key, organization).post("/api/workflows/nothing", json={})
    problem(response, 401, "Unauthorized")
    assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("length", [9, 100_000])
def test_unauthorized_before_anything_else(client: Client, organization: str, length: int) -> None:
    """Whoever shows no valid key learns nothing of what is wrong with the body."""
    for headers in ({}, {"Content-Type": "text/plain"}):
        response = client("wrong", organization).post(
            "/api/workflows/nothing", content=b"{" * length, headers={"Content-Type": "application/json", **headers}
        )
        problem(response, 401, "Unauthorized")


def test_unauthorized_long_body_is_not_waited_for(client: Client, organization: str) -> None:
    """A long body of somebody without a valid key is answered before it is there."""
    address = client().base_url
    with socket.create_connection((address.host, address.port), timeout=30) as connection:
        head = f"POST /api/workflows/nothing HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Organization-Id: {organization}\r\n"
        connection.sendall(f"{head}x-functions-key: wrong\r\nContent-Length: 100000\r\n\r\n{{".encode())
        assert connection.recv(64).startswith(b"HTTP/1.1 401 ")


def test_key_in_the_address(client: Client, organization: str) -> None:
    """A key in the query string is none: addresses end up in logs."""
    for name in ("key", "code", "x-functions-key", "api_key"):
        problem(client(None, organization).post(f"/api/workflows/nothing?{name}=test"), 401, "Unauthorized")


def test_read_only(run: Run, new_key: Callable[..., str], organization: str) -> None:
    """A key that may only look is 403."""
    problem(run("nothing", organization, key=new_key(organization, permissions=["canViewHistory"])), 403, "Forbidden")


def test_other_workflow(run: Run, new_key: Callable[..., str], organization: str) -> None:
    """A key for certain workflows runs these and no others."""
    key = new_key(organization, workflows=["nothing"])
    assert run("nothing", organization, key=key).status_code == 200
    problem(run("talkative", organization, key=key), 403, "Forbidden")


def test_required_permission(run: Run, new_key: Callable[..., str], organization: str) -> None:
    """A workflow's own permission is asked for besides."""
    problem(run("for_admins", organization, key=new_key(organization)), 403, "Forbidden")
    able = new_key(organization, permissions=["canExecuteWorkflows", "canManageConfig"])
    assert run("for_admins", organization, key=able).status_code == 200


@pytest.mark.parametrize("name", ["nobody", "..", "a%2Fb", "a%00b", "ｅcho", "%F0%9F%98%80", "x" * 10_000, "echo%20"])
def test_unknown_workflow(client: Client, organization: str, name: str) -> None:
    """A workflow that is not there is 404, whatever its name looks like."""
    problem(client("test", organization).post(f"/api/workflows/{name}", json={}), 404, "NotFound")


def test_method(client: Client) -> None:
    """A method that an address does not know is 405 and names those that it knows."""
    response = client().delete("/api/workflows/echo")
    problem(response, 405, "MethodNotAllowed")
    assert response.headers["Allow"]


def test_broken(run: Run, organization: str) -> None:
    """A broken workflow is 409 and says where and why."""
    message = problem(run("broken_one", organization), 409, "Conflict")["message"]
    assert "workflows/broken.py:" in message
    assert "nobody" in message


@pytest.mark.parametrize("declared", [True, False])
def test_too_large(client: Client, organization: str, declared: bool) -> None:
    """A body over the limit is 413, whether its length was declared or not, and the text names the setting."""
    raw = b'{"text": "' + b"a" * (1024 * 1024) + b'"}'
    content = raw if declared else iter([raw])
    response = client("test", organization).post(
        "/api/workflows/echo", content=content, headers={"Content-Type": "application/json"}
    )
    assert "BIFROST_REQUEST_BODY_BYTES" in problem(response, 413, "PayloadTooLarge")["message"]


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "image/x+json", ""])
def test_media_type(client: Client, organization: str, media_type: str) -> None:
    """A body that is not declared as JSON is 415."""
    response = client("test", organization).post(
        "/api/workflows/nothing", content=b"{}", headers={"Content-Type": media_type}
    )
    problem(response, 415, "UnsupportedMediaType")


AMBIGUOUS = {
    "duplicate": b'{"text": "a", "text": "b"}',
    "duplicate below": b'{"text": "a", "data": {"b": 1, "b": 2}}',
    "NaN": b'{"text": "a", "ratio": NaN}',
    "Infinity": b'{"text": "a", "ratio": -Infinity}',
    "1e400": b'{"text": "a", "data": {"b": 1e400}}',
    "huge integer": b'{"text": "a", "count": ' + b"9" * 5000 + b"}",
    "lone surrogate": rb'{"text": "\ud800"}',
    "lone surrogate as name": rb'{"text": "a", "\udfff": 1}',
    "surrogate in UTF-8": b'{"text": "\xed\xa0\x80"}',
    "not UTF-8": b'{"text": "\xff"}',
    "UTF-16": '{"text": "a"}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"text": "a"}',
    "deep": b'{"text": "a", "data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "just too deep": b'{"text": "a", "data": ' + b"[" * 101 + b"]" * 101 + b"}",
    "array": b"[1]",
    "null": b"null",
    "text": b'"a"',
    "rest": b'{"text": "a"} 1',
    "trailing comma": b'{"text": "a",}',
}


@pytest.mark.parametrize("raw", AMBIGUOUS.values(), ids=AMBIGUOUS)
@pytest.mark.parametrize("path", ["POST /api/workflows/echo", "PUT /api/config/some_key", "POST /api/organizations"])
def test_ambiguous_json(client: Client, organization: str, path: str, raw: bytes) -> None:
    """Text that is no JSON, or not the same JSON for everybody, is 400 at every address that takes a body."""
    method, address = path.split()
    response = client("test", organization).request(
        method, address, content=raw, headers={"Content-Type": "application/json"}
    )
    problem(response, 400, "ValidationError")


@pytest.mark.parametrize(
    "data", [{"a": "\U0001f600"}, [[[]]], {"a": 2**80}, {"": None}, {"a": -0.0}, {"__proto__": {}}]
)
def test_unusual_json(run: Run, organization: str, data: Any) -> None:
    """What JSON can say exactly arrives exactly."""
    assert run("echo", organization, text="a", data=data).json() == {
        **dict.fromkeys(("count", "ratio", "flag", "email", "items")),
        "text": "a",
        "data": data,
    }


@pytest.mark.parametrize("inputs", [{"text": "a\0b"}, {"text": "a", "data": {"b": "\0"}}, {"text": "a", "b\0": 1}])
def test_nul(run: Run, organization: str, inputs: Any) -> None:
    """A NUL character is refused: what comes after it would be lost on the way through other programs."""
    problem(run("echo", organization, **inputs), 400, "ValidationError")


def test_nesting_at_the_limit(run: Run, organization: str) -> None:
    """Inputs may be nested as deeply as the limit says, and come back."""
    data: Any = []
    for _ in range(95):
        data = [data]
    assert run("echo", organization, text="a", data=data).json()["data"] == data


def test_injected_name(run: Run, organization: str) -> None:
    """The name of an input is never code."""
    name = "text=open('/tmp/bifrost-injected','w');y"
    assert fields(problem(run("echo", organization, text="a", **{name: 1}), 400, "ValidationError")) == {
        name: "unknown"
    }


# what fails


def test_user_error(run: Run, organization: str) -> None:
    """A UserError is shown as it is, with 400 and its execution."""
    body = problem(run("refuse", organization), 400, "UserError")
    assert (body["message"], bool(body["execution_id"])) == ("Choose another name.", True)


def test_workflow_error(run: Run, organization: str, control_plane: Any) -> None:
    """What a workflow raised is 500 with type and text: no traceback, no path."""
    response = run("explode", organization)
    body = problem(response, 500, "WorkflowError")
    assert body["message"] == "ValueError: boom"
    assert response.headers["X-Execution-Id"] == body["execution_id"]
    for told in ("Traceback", "tested.py", ".bifrost", str(control_plane.services.settings.home)):
        assert told not in response.text


def test_dead_kernel(run: Run, organization: str) -> None:
    """A workflow that ends its process is 500."""
    problem(run("leaving", organization), 500, "WorkflowError")


def test_failed_representation(run: Run, organization: str) -> None:
    """Failures have one form, whatever was preferred."""
    problem(run("explode", organization, headers={"Prefer": "return=representation"}), 500, "WorkflowError")


def test_deadline(run: Run, organization: str) -> None:
    """An execution that runs into its deadline is 504."""
    body = problem(run("overdue", organization), 504, "Timeout")
    assert body["execution_id"]


def test_full_queue(occupy: Any, run: Run, new_organization: Callable[[], str]) -> None:
    """A full queue is 429 with Retry-After and names its setting; another organization's queue is not full."""
    full, other = new_organization(), new_organization()
    occupy(full, 5)
    refused = run("waiting", full)
    assert "organization_queue_limit" in problem(refused, 429, "TooManyRequests")["message"].lower()
    assert int(refused.headers["Retry-After"]) >= 1
    assert run("nothing", other).status_code == 200


# once only


def test_idempotent(run: Run, organization: str) -> None:
    """The same Idempotency-Key and body give the same execution, with the same answer."""
    first = run("talkative", organization, headers={"Idempotency-Key": "one"})
    again = run("talkative", organization, headers={"Idempotency-Key": "one"})
    assert first.headers["X-Execution-Id"] == again.headers["X-Execution-Id"]
    assert (again.status_code, again.json()) == (200, [1, 2, 3])


def test_idempotency_at_once(client: Client, organization: str) -> None:
    """A hundred calls with one key at once make one execution."""
    one = client("test", organization, **{"Idempotency-Key": "at-once"})

    def post(_: int) -> str:
        return one.post("/api/workflows/talkative", json={}).headers["X-Execution-Id"]

    with ThreadPoolExecutor(20) as threads:
        assert len(set(threads.map(post, range(100)))) == 1
    assert len(one.get("/api/executions").json()["items"]) == 1


def test_idempotency_with_another_body(run: Run, organization: str) -> None:
    """The same key with another body is 409."""
    run("echo", organization, headers={"Idempotency-Key": "two"}, text="a")
    problem(run("echo", organization, headers={"Idempotency-Key": "two"}, text="b"), 409, "Conflict")


def test_idempotency_is_ones_own(run: Run, new_key: Callable[..., str], organization: str, neighbour: str) -> None:
    """Another credential, organization or workflow with the same Idempotency-Key is another call."""
    headers = {"Idempotency-Key": "three"}
    both = new_key(organization, neighbour)
    answers = [
        run("talkative", organization, headers=headers),
        run("talkative", organization, headers=headers, key=both),
        run("talkative", neighbour, headers=headers, key=both),
        run("nothing", organization, headers=headers, key=both),
    ]
    assert len({answer.headers["X-Execution-Id"] for answer in answers}) == 4


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_idempotency_key_of_a_wrong_length(run: Run, organization: str, key: str) -> None:
    """An Idempotency-Key has 1 to 255 characters."""
    problem(run("nothing", organization, headers={"Idempotency-Key": key}), 400, "ValidationError")


# secrets and references


def test_secret_is_masked(run: Run, client: Client, organization: str) -> None:
    """A secret that a workflow gives away reaches neither the result nor the events."""
    client("test", organization).put("/api/secrets/vault", json={"value": "s3cr3t-of-the-test"}).raise_for_status()
    response = run("tell_secret", organization, name="vault")
    assert response.json() == {"secret": "***"}
    events = client().get(f"/api/executions/{response.headers['X-Execution-Id']}/events").text
    assert "it is ***" in events
    assert "s3cr3t-of-the-test" not in events


def test_secret_of_another_organization(run: Run, client: Client, organization: str, neighbour: str) -> None:
    """A workflow does not find the secret of another organization."""
    client("test", neighbour).put("/api/secrets/vault", json={"value": "s3cr3t-of-b"}).raise_for_status()
    response = run("tell_secret", organization, name="vault")
    assert response.status_code == 500
    assert "s3cr3t-of-b" not in response.text
