"""The history over HTTP: lists, pages, events, live streams and records (contract §4 and §6)."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import nbformat
import pytest

Run = Callable[..., httpx.Response]
Client = Callable[..., httpx.Client]


def items(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    rows: list[dict[str, Any]] = response.json()["items"]
    return rows


def walk(client: httpx.Client, path: str, **query: Any) -> Iterator[dict[str, Any]]:
    """The rows of a list, page by page."""
    cursor = None
    while True:
        page = client.get(path, params={**query, **({"cursor": cursor} if cursor else {})}).json()
        yield from page["items"]
        if (cursor := page["next_cursor"]) is None:
            return


def stream_of(client: httpx.Client, execution_id: str, **headers: str) -> list[dict[str, Any]]:
    """The events of a live stream until it ends, each with the `id` that its line had."""
    path = f"/api/executions/{execution_id}/events"
    with client.stream("GET", path, headers={"Accept": "text/event-stream", **headers}) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        lines = [line.partition(": ") for line in response.iter_lines()]
    ids = [value for name, _, value in lines if name == "id"]
    data = [json.loads(value) for name, _, value in lines if name == "data"]
    return [{**event, "id": id_} for event, id_ in zip(data, ids, strict=True)]


# lists


def test_newest_first(run: Run, client: Client, organization: str) -> None:
    """The history has the newest execution first, each as the envelope."""
    made = [run("nothing", organization).headers["X-Execution-Id"] for _ in range(3)]
    rows = items(client("test", organization).get("/api/executions"))
    assert [row["execution_id"] for row in rows] == made[::-1]
    assert rows[0]["organization"] == organization
    assert rows[0]["caller"]["email"] == "dev@example.com"


def test_pages(run: Run, client: Client, organization: str) -> None:
    """Pages hold every execution once, also when new ones come in between."""
    made = [run("nothing", organization).headers["X-Execution-Id"] for _ in range(5)]
    one = client("test", organization)
    walked = walk(one, "/api/executions", limit=2)
    seen = [next(walked)["execution_id"]]
    run("nothing", organization)
    assert seen + [row["execution_id"] for row in walked] == made[::-1]


def test_last_page_has_no_cursor(run: Run, client: Client, organization: str) -> None:
    """A page that ends the list has no `next_cursor`."""
    run("nothing", organization)
    assert client("test", organization).get("/api/executions?limit=1").json()["next_cursor"] is None


@pytest.mark.parametrize("limit", ["0", "201", "-1", "x", "1e2"])
def test_limit(client: Client, limit: str) -> None:
    """`limit` lies between 1 and 200."""
    assert client().get(f"/api/executions?limit={limit}").json()["error"] == "ValidationError"


def test_filters(run: Run, client: Client, organization: str) -> None:
    """Status, workflow, caller, organization and text each narrow the list, and together."""
    good = run("echo", organization, text="needle 50%").headers["X-Execution-Id"]
    bad = run("explode", organization).headers["X-Execution-Id"]
    one = client()

    def found(**query: str) -> list[str]:
        return [row["execution_id"] for row in items(one.get("/api/executions", params={"org": organization, **query}))]

    assert found() == [bad, good]
    assert found(status="failed") == [bad]
    assert found(workflow="echo") == [good]
    assert found(caller="dev@example.com") == [bad, good]
    assert found(caller="somebody") == []
    assert found(text="NEEDLE 50%") == [good]
    assert found(text="boom") == [bad]
    assert found(text="needle _0%") == []
    assert found(workflow="echo", status="failed") == []


def test_filter_by_time(run: Run, client: Client, organization: str) -> None:
    """`since` is inclusive, `until` is not, and both need a zone."""
    run("nothing", organization)
    one = client("test", organization)
    created_at = items(one.get("/api/executions"))[0]["created_at"]
    later = (datetime.fromisoformat(created_at) + timedelta(hours=1)).astimezone(UTC).isoformat()
    assert len(items(one.get("/api/executions", params={"since": created_at, "until": later}))) == 1
    assert items(one.get("/api/executions", params={"until": created_at})) == []
    assert items(one.get("/api/executions", params={"since": later})) == []
    assert one.get("/api/executions?since=2026-03-01T09:00:00").status_code == 400


@pytest.mark.parametrize("instant", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59-12:00", "1e300", "-1e12"])
def test_ends_of_time(client: Client, instant: str) -> None:
    """Instants at which a calendar ends are refused, never a failure of ours."""
    for name in ("since", "until"):
        assert client().get("/api/executions", params={name: instant}).json()["error"] == "ValidationError"


def test_history_of_a_neighbour(
    run: Run, client: Client, new_key: Callable[..., str], organization: str, neighbour: str
) -> None:
    """A key sees the executions of its organizations and no others, with and without a filter."""
    run("nothing", neighbour)
    own = run("nothing", organization).headers["X-Execution-Id"]
    key = new_key(organization)
    assert [row["execution_id"] for row in items(client(key).get("/api/executions"))] == [own]
    foreign = client(key).get("/api/executions", params={"org": neighbour})
    unknown = client(key).get("/api/executions", params={"org": "organization-x"})
    assert (foreign.status_code, foreign.text.replace(neighbour, "")) == (
        404,
        unknown.text.replace("organization-x", ""),
    )


def test_inputs_are_not_listed(run: Run, client: Client, organization: str) -> None:
    """A list shows no inputs; they stand, masked, in the record."""
    run("hello_world", organization, name="Kunigunde", language="german").raise_for_status()
    rows = items(client("test", organization).get("/api/executions"))
    assert "parameters" not in rows[0]


# cursors


def test_cursor_of_another_key(run: Run, client: Client, new_key: Callable[..., str], organization: str) -> None:
    """A cursor is good for the key and the list that it was made for."""
    run("nothing", organization)
    run("nothing", organization)
    mine, other = new_key(organization), new_key(organization)
    cursor = client(mine).get("/api/executions?limit=1").json()["next_cursor"]
    assert client(mine).get("/api/executions", params={"cursor": cursor}).status_code == 200
    assert client(other).get("/api/executions", params={"cursor": cursor}).json()["error"] == "ValidationError"
    assert client(mine).get("/api/organizations", params={"cursor": cursor}).json()["error"] == "ValidationError"


@pytest.mark.parametrize("cursor", ["", "x", "Ww", "a" * 1000, "a" * 1001, "%00", "é", "W10", "bnVsbA"])
def test_invented_cursor(client: Client, cursor: str) -> None:
    """A cursor that nobody gave is refused, whatever it looks like."""
    for path in ("/api/executions", "/api/keys", "/api/audit", "/api/workflows"):
        assert client().get(path, params={"cursor": cursor}).json()["error"] == "ValidationError"


@pytest.mark.parametrize("last", ["x", "-1", "9" * 30, "\ud800", "٣", ""])
def test_changed_cursor(client: Client, last: str) -> None:
    """A cursor that was changed is refused, never a failure of ours."""
    cursor = client().get("/api/audit?limit=1").json()["next_cursor"]
    _, mark = json.loads(base64.urlsafe_b64decode(cursor + "=="))
    forged = base64.urlsafe_b64encode(json.dumps([last, mark]).encode()).decode().rstrip("=")
    assert client().get("/api/audit", params={"cursor": forged}).json()["error"] == "ValidationError"


# events


def test_events(run: Run, client: Client, organization: str) -> None:
    """Events are flat, numbered from 1, in their order, and end with the final status."""
    id_ = run("talkative", organization).headers["X-Execution-Id"]
    events = items(client().get(f"/api/executions/{id_}/events"))
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    kinds = [event["type"] for event in events if event["type"] != "status"]
    assert kinds == ["log", "checkpoint", "variable"]
    log = next(event for event in events if event["type"] == "log")
    assert (log["level"], log["message"], log["data"]) == ("info", "first", {"number": 1})
    assert (events[0]["status"], events[-1]["status"]) == ("pending", "success")


def test_pages_of_events(run: Run, client: Client, organization: str) -> None:
    """Pages of events hold every event once."""
    id_ = run("talkative", organization).headers["X-Execution-Id"]
    walked = list(walk(client(), f"/api/executions/{id_}/events", limit=2))
    assert [event["seq"] for event in walked] == list(range(1, len(walked) + 1))


def test_stream_of_what_is_over(run: Run, client: Client, organization: str) -> None:
    """The stream of an execution that is over holds its events and ends."""
    id_ = run("talkative", organization).headers["X-Execution-Id"]
    streamed = stream_of(client(), id_)
    assert [event["id"] for event in streamed] == [str(event["seq"]) for event in streamed]
    assert streamed[-1]["status"] == "success"


def test_stream_resumes(run: Run, client: Client, organization: str) -> None:
    """With `Last-Event-ID` a stream goes on after that event; an id that is none begins anew."""
    id_ = run("talkative", organization).headers["X-Execution-Id"]
    whole = stream_of(client(), id_)
    assert stream_of(client(), id_, **{"Last-Event-ID": "2"}) == whole[2:]
    for strange in ("x", "-1", "9" * 40):
        assert stream_of(client(), id_, **{"Last-Event-ID": strange}) == whole


def test_stream_is_live(client: Client, occupy: Callable[..., list[str]], organization: str) -> None:
    """A stream that was opened before tells what happens afterwards, and ends with the execution."""
    (id_,) = occupy(organization, 1)
    path = f"/api/executions/{id_}/events"
    with client().stream("GET", path, headers={"Accept": "text/event-stream"}) as response:
        lines = response.iter_lines()
        next(line for line in lines if '"waiting"' in line)
        client().post(f"/api/executions/{id_}/cancel").raise_for_status()
        assert any('"cancelled"' in line for line in lines)


def test_events_of_a_neighbour(
    run: Run, client: Client, new_key: Callable[..., str], organization: str, neighbour: str
) -> None:
    """Events, stream and record of a neighbour's execution are as unknown as one that never was."""
    foreign = run("nothing", neighbour).headers["X-Execution-Id"]
    unknown = foreign[:-4] + ("0000" if foreign[-4:] != "0000" else "1111")
    one = client(new_key(organization))
    for path in ("", "/events", "/notebook"):
        for accept in ("application/json", "text/event-stream", "text/html"):
            answers = [
                one.get(f"/api/executions/{id_}{path}", headers={"Accept": accept}) for id_ in (foreign, unknown)
            ]
            assert answers[0].status_code == answers[1].status_code == 404
            assert answers[0].text.replace(foreign, "") == answers[1].text.replace(unknown, "")


# records


def test_notebook(run: Run, client: Client, organization: str) -> None:
    """The record comes as a notebook file named after its execution, byte for byte what was sealed."""
    id_ = run("talkative", organization).headers["X-Execution-Id"]
    response = client().get(f"/api/executions/{id_}/notebook")
    assert response.headers["Content-Type"] == "application/x-ipynb+json"
    assert response.headers["Content-Disposition"] == f'attachment; filename="talkative-{id_}.ipynb"'
    notebook = nbformat.reads(response.text, as_version=4)
    nbformat.validate(notebook)
    assert response.content == client().get(f"/api/executions/{id_}/notebook").content


def test_notebook_as_a_page(run: Run, client: Client, organization: str) -> None:
    """As HTML the record is a page that runs nothing and loads nothing."""
    id_ = run("echo", organization, text="<script>alert(1)</script>").headers["X-Execution-Id"]
    response = client().get(f"/api/executions/{id_}/notebook", headers={"Accept": "text/html"})
    assert response.headers["Content-Type"].startswith("text/html")
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "sandbox" in policy
    assert "<script" not in response.text.lower()


def test_record_of_what_failed(run: Run, client: Client, organization: str) -> None:
    """An execution whose kernel died has a record like every other."""
    id_ = run("leaving", organization).headers["X-Execution-Id"]
    assert client().get(f"/api/executions/{id_}/notebook").status_code == 200


def test_no_record_yet(client: Client, occupy: Callable[..., list[str]], organization: str) -> None:
    """A running execution has no record yet: 409."""
    (id_,) = occupy(organization, 1)
    assert client().get(f"/api/executions/{id_}/notebook").status_code == 409


def test_changed_record(run: Run, client: Client, control_plane: Any, organization: str) -> None:
    """A record that was changed on the disk is not handed out."""
    id_ = run("nothing", organization).headers["X-Execution-Id"]
    (path,) = control_plane.services.settings.records_dir.rglob(f"{id_}.ipynb")
    path.write_bytes(path.read_bytes() + b" ")
    response = client().get(f"/api/executions/{id_}/notebook")
    assert (response.status_code, "changed after it was sealed" in response.text) == (409, True)


# who may look


def test_history_needs_a_permission(run: Run, client: Client, new_key: Callable[..., str], organization: str) -> None:
    """Without `canViewHistory` a key sees its own executions and no others."""
    blind = new_key(organization, permissions=["canExecuteWorkflows"])
    other = run("nothing", organization).headers["X-Execution-Id"]
    own = run("nothing", organization, key=blind).headers["X-Execution-Id"]
    assert client(blind).get(f"/api/executions/{own}").status_code == 200
    assert client(blind).get(f"/api/executions/{other}").status_code == 403
    assert client(blind, organization).get("/api/executions").status_code == 403
    assert items(client(blind).get("/api/executions")) == []
