"""A customer with a valid cookie, and everything that he might try on the kernel behind his form."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import websocket

from bifrost_portal.messages import V1
from tests.portal.conftest import running_site
from tests.portal.form_kernel import FormKernel, as_v1, make_message, open_form
from tests.portal.site import Person, Site, no_failures

Json = dict[str, Any]
Submit = Callable[..., Json]

PROTOCOLS = (None, V1)
REPLIES = {"status", "comm_info_reply", "iopub_welcome"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A portal whose log has to be without a failure when all attacks are over."""
    with running_site(tmp_path_factory.mktemp("attacked")) as running:
        yield running
        no_failures(running)


@pytest.fixture(scope="module")
def customer(site: Site) -> Person:
    return site.person("WorkflowUser")


@pytest.fixture(scope="module")
def kernel(site: Site, customer: Person) -> Iterator[FormKernel]:
    """The kernel behind a form that the attacker has open."""
    with site.visitor(customer) as visitor:
        yield open_form(site, visitor)


def forbidden(canary: Path) -> dict[str, Any]:
    """Every type of message that a form has no use for, with what would execute if it were taken."""
    code = f"open({str(canary)!r}, 'w').write('executed')"
    request = {"code": code, "silent": False, "store_history": True, "user_expressions": {"x": code}}
    debugging = {"type": "request", "seq": 1, "command": "evaluate", "arguments": {"expression": code}}
    return {
        "execute_request": {**request, "allow_stdin": True, "stop_on_error": True},
        "complete_request": {"code": "open(", "cursor_pos": 5},
        "inspect_request": {"code": "open", "cursor_pos": 4, "detail_level": 1},
        "is_complete_request": {"code": "1"},
        "history_request": {"hist_access_type": "tail", "n": 10, "raw": True, "output": True},
        "input_reply": {"value": code},
        "debug_request": debugging,
        "create_subshell_request": {},
        "list_subshell_request": {},
        "delete_subshell_request": {"subshell_id": "x"},
        "usage_request": {},
        "interrupt_request": {},
        "shutdown_request": {"restart": True},
        "apply_request": {},
    }


@pytest.mark.parametrize("channel", ["shell", "control", "stdin", "iopub", "nowhere"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_executes(kernel: FormKernel, tmp_path: Path, protocol: str | None, channel: str) -> None:
    """No message that executes, completes, inspects, debugs, answers or ends reaches the kernel, on no channel."""
    canary = tmp_path / "canary"
    with kernel.channel(protocol) as attacker:
        for kind, content in forbidden(canary).items():
            attacker.say(kind, content, channel=channel)
        heard = {message["header"]["msg_type"] for message in attacker.fence()}
    assert heard <= REPLIES
    assert not canary.exists()


def twofold(code: str) -> str:
    """An allowed type for whoever takes the first of two names, or the last."""
    text = json.dumps({**make_message("comm_info_request", {"code": code}), "channel": "shell"})
    return text.replace('"msg_type": "comm_info_request"', '"msg_type": "comm_msg", "msg_type": "execute_request"')


def tricks(code: str) -> dict[str, str | bytes]:
    """Frames of the older protocol that are no plain message of an allowed type."""
    message = {**make_message("execute_request", {"code": code}), "channel": "shell"}
    allowed = {**make_message("comm_info_request", {"code": code}), "channel": "shell"}
    header = message["header"]
    return {
        "two types": twofold(code),
        "two types, turned": twofold(code).replace("comm_msg", "x").replace("execute_request", "comm_msg"),
        "two headers": json.dumps(message).replace('"header"', '"header": {"msg_type": "comm_msg"}, "header"', 1),
        "a list of types": json.dumps({**message, "header": {**header, "msg_type": ["comm_msg", "execute_request"]}}),
        "an object": json.dumps({**message, "header": {**header, "msg_type": {"comm_msg": 1}}}),
        "spaces": json.dumps({**message, "header": {**header, "msg_type": " comm_msg"}}),
        "type outside": json.dumps({**message, "msg_type": "comm_msg"}),
        "no type": json.dumps({**message, "header": {}}),
        "no header": json.dumps({name: part for name, part in message.items() if name != "header"}),
        "null": json.dumps({**message, "header": None}),
        "text": json.dumps({**message, "header": "comm_msg"}),
        "list": json.dumps([allowed]),
        "number": "7",
        "no JSON": "{",
        "nothing": "",
        "deep": '{"header":' * 50_000,
        "content": json.dumps({**allowed, "content": 1}),
        "no channel": json.dumps({**make_message("execute_request", {"code": code})}),
        "channels": json.dumps({**allowed, "channel": ["shell"]}),
        "half a character": json.dumps({**allowed, "content": {"target_name": "\ud800"}}),
        "subshell": json.dumps({**allowed, "header": {**allowed["header"], "subshell_id": "x"}}),
        "bytes": b"\x00\x00\x00\x01\x00\x00\x00\x08" + json.dumps(message).encode(),
        "short": b"\x00",
    }


def tricks_v1(code: str) -> dict[str, str | bytes]:
    """The same for the binary protocol."""
    message = {**make_message("execute_request", {"code": code}), "channel": "shell"}
    header, twice = message["header"], b'{"msg_type": "comm_msg", "msg_type": "execute_request", "msg_id": "1"}'
    return {
        "two types": as_v1({**message, "header": twice}),
        "a list": as_v1({**message, "header": {**header, "msg_type": ["comm_msg"]}}),
        "null": as_v1({**message, "header": None}),
        "broken": as_v1({**message, "header": b"{"}),
        "not UTF-8": as_v1({**message, "header": b"\xff\xfe"}),
        "deep": as_v1({**message, "header": b"[" * 100_000}),
        "text": json.dumps(message),
        "empty": b"",
        "short": b"\x03",
        "many offsets": (2**63).to_bytes(8, "little") + b"x" * 100,
        "wild offsets": b"".join(number.to_bytes(8, "little") for number in (6, 2**63, 5, 2**40, 0, 1, 2)),
        "no parts": as_v1(message)[:64],
    }


@pytest.mark.parametrize(("protocol", "made"), [(None, tricks), (V1, tricks_v1)])
def test_no_trick_of_a_frame_executes(kernel: FormKernel, tmp_path: Path, protocol: str | None, made: Any) -> None:
    """Names twice, lists, missing headers, garbage: dropped; the websocket stays, and the kernel answers."""
    canary = tmp_path / "canary"
    with kernel.channel(protocol) as attacker:
        for frame in made(f"open({str(canary)!r}, 'w')").values():
            binary = isinstance(frame, bytes)
            attacker.connection.send(frame, websocket.ABNF.OPCODE_BINARY if binary else websocket.ABNF.OPCODE_TEXT)
        heard = {message["header"]["msg_type"] for message in attacker.fence()}
    assert heard <= REPLIES
    assert not canary.exists()


NEW_WIDGETS = [
    ("jupyter.widget", {"_model_module": "@jupyter-widgets/controls", "_model_name": "FileUploadModel"}),
    ("jupyter.widget", {"_model_module": "@jupyter-widgets/base", "_model_name": "LayoutModel"}),
    ("jupyter.widget", {"_model_module": "anywidget", "_model_name": "AnyModel", "_esm": "/etc/passwd"}),
    ("jupyter.widget.version", {}),
    ("matplotlib", {}),
    ("hvplot", {"code": "1"}),
    ("builtins:exec", {"code": "1"}),
    ("", {}),
]


def test_no_other_widget_comes_to_be(kernel: FormKernel) -> None:
    """A browser opens no widget of another class, and no channel of another name."""
    with kernel.channel() as attacker:
        before = attacker.comms()
        for target, state in NEW_WIDGETS:
            opened = {"comm_id": uuid.uuid4().hex, "target_name": target, "data": {"state": state, "buffer_paths": []}}
            attacker.say("comm_open", {**opened, "target_module": "os"}, metadata={"version": "2.1.0"})
        assert attacker.comms() == before


UPDATES: list[Any] = [
    {"spec": {"name": "report", "fields": []}},
    {"_esm": "alert(1)", "_css": "/etc/passwd"},
    {"_backend": 1, "_model_name": "FileUploadModel"},
    {"layout": "IPY_MODEL_0", "comm": None, "keys": []},
    {"spec": 7},
    {"spec": {"a": "x" * 500_000}},
    [],
    None,
]


def test_a_changed_trait_changes_nothing(kernel: FormKernel, site: Site) -> None:
    """Whatever is written into the widget: what it submits is this form, for this organization."""
    with kernel.channel() as attacker:
        for state in UPDATES:
            attacker.tell_widget({"method": "update", "state": state, "buffer_paths": []})
        for data in ({"method": "custom"}, {"method": "nothing"}, {}, {"method": "update"}):
            attacker.tell_widget(data)
        given = {"form": "report", "organization": "other", "path": "/api/keys"}
        answer = attacker.ask(ask="submit", values={"name": "Traits"}, key=uuid.uuid4().hex, **given)
    execution = site.admin.get(f"/api/executions/{answer['answer']['execution_id']}").json()
    assert (execution["workflow_name"], execution["organization"]) == ("hello_world", "test-org-active")


BOUND = {
    "workflow": "everything",
    "hidden": {"code": "ABC"},
    "fixed": {"count": 5},
    "fields": {"city": {"visible_when": {"field": "urgent", "equals": True}}},
}


@pytest.fixture(scope="module")
def bound(site: Site, customer: Person) -> Iterator[FormKernel]:
    """A form that binds a hidden and a fixed value, open in the attacker's browser."""
    headers = {"X-Organization-Id": "test-org-active"}
    site.admin.put("/api/forms/bound", json=BOUND, headers=headers).raise_for_status()
    with site.visitor(customer) as visitor:
        yield open_form(site, visitor, "bound")


@pytest.fixture(params=["browser", "kernel"])
def submit(request: pytest.FixtureRequest, bound: FormKernel) -> Iterator[Submit]:
    """Submits the bound form by one of its two ways; the answer, or `message` and `fields` of the refusal."""
    if request.param == "browser":
        yield lambda values, key="": bound.visitor.submit("bound", values, key).json()
        return
    with bound.channel() as channel:

        def ask(values: Json, key: str = "") -> Json:
            said = channel.ask(ask="submit", values=values, key=key)
            return dict(said.get("answer") or said["error"])

        yield ask


WRONG: list[tuple[Json, str]] = [
    ({"text": "ok", "code": "XYZ"}, "code"),
    ({"text": "ok", "count": 9}, "count"),
    ({"text": "ok", "item": 4711}, "item"),
    ({"text": "ok", "organization": "other"}, "organization"),
    ({"text": "ok", "__class__": "x"}, "__class__"),
    ({"text": ["ok"]}, "text"),
    ({"text": {"$ne": ""}}, "text"),
    ({"text": "ok", "price": float("nan")}, "price"),
    ({"text": "ok", "price": "much"}, "price"),
    ({"text": "ok", "urgent": "perhaps"}, "urgent"),
    ({"text": "ok", "names": {"a": 1}}, "names"),
    ({"text": "x" * 500_000}, "text"),
]


@pytest.mark.parametrize(("values", "field"), WRONG, ids=[f"{field}-{n}" for n, (_, field) in enumerate(WRONG)])
def test_what_a_form_does_not_offer_is_refused(submit: Submit, values: Json, field: str) -> None:
    """Bound values, options that are not offered, wrong types and unknown names: refused by name, by either way."""
    refusal = submit(values)
    assert "execution_id" not in refusal
    # What is no JSON at all is refused as a whole.
    assert {field, "body"} & {wrong["field"] for wrong in refusal["fields"]}, refusal


def test_what_is_hidden_stays_as_it_is(submit: Submit, site: Site) -> None:
    """What is submitted carries the form's own hidden and fixed values, and the visitor's organization."""
    answer = submit({"text": "ok", "city": "split"})
    inputs = site.admin.get(f"/api/executions/{answer['execution_id']}/inputs").json()["items"]
    given = {item["name"]: item["value"] for item in inputs}
    assert (given["code"], given["count"], given.get("city")) == ("ABC", 5, None)
    execution = site.admin.get(f"/api/executions/{answer['execution_id']}").json()
    assert execution["organization"] == "test-org-active"


def test_one_key_is_one_execution(bound: FormKernel) -> None:
    """The same press sent again and again, at once and by both ways, is one execution."""
    key, values = uuid.uuid4().hex, {"text": "once"}
    with bound.channel() as channel, ThreadPoolExecutor(8) as pool:
        sent = [pool.submit(bound.visitor.submit, "bound", values, key) for _ in range(8)]
        by_kernel = [channel.ask(ask="submit", values=values, key=key)["answer"]["execution_id"] for _ in range(3)]
        by_browser = [answer.result().json()["execution_id"] for answer in sent]
    assert len({*by_kernel, *by_browser}) == 1


@pytest.mark.parametrize("key", ["two\r\nX-Organization-Id: other", "\u00e9", "k" * 5000, " "])
def test_a_key_carries_no_other_header(bound: FormKernel, key: str) -> None:
    """A key that is no plain word is refused before it becomes a header."""
    with bound.channel() as channel:
        assert "plain characters" in channel.ask(ask="submit", values={"text": "ok"}, key=key)["error"]["message"]


@pytest.mark.parametrize("field", ["../../executions", "text?x=1", "x" * 5000, "city/..", "", "nothing", "\u0635"])
def test_options_are_those_of_this_forms_fields(bound: FormKernel, field: str) -> None:
    """A field that is none of the form's has no options, and its name leads nowhere else."""
    with bound.channel() as channel:
        assert "error" in channel.ask(ask="options", field=field, values={})
    assert bound.visitor.ask("POST", f"/workflows/bound/options/{field}", {"values": {}}).status_code >= 400


def test_a_flood_ends_the_websocket_only(kernel: FormKernel, site: Site) -> None:
    """Ten megabytes in one message close the websocket; the kernel and the portal go on."""
    with kernel.channel() as attacker:
        try:
            attacker.tell_widget({"method": "custom", "content": "x" * 10_000_000})
            assert attacker.connection.recv() == ""
        except (websocket.WebSocketException, OSError):
            pass
    with kernel.channel() as again:
        assert again.comms()


BODIES = {
    "deep": (b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", {400}),
    "rather deep": (b'{"extra": ' + b"[" * 900 + b"]" * 900 + b"}", {400}),
    "a number with many digits": (b'{"count": ' + b"9" * 100_000 + b"}", {400}),
    "no number": (b'{"price": NaN}', {400}),
    "half a character": (b'{"text": "\\ud800"}', {400}),
    "NUL": (b'{"text": "a\\u0000b"}', {202, 400}),
    "a name twice": (b'{"text": "ok", "text": "nothing but this"}', {400}),
    "ten megabytes": (b'{"text": "' + b"x" * 10_000_000 + b'"}', {400, 413}),
    "not UTF-8": (b'{"text": "\xff"}', {400}),
    "a list": (b"[1]", {400}),
    "nothing": (b"", {400}),
}


@pytest.mark.parametrize("address", ["", "/draft", "/options/city"])
@pytest.mark.parametrize("body", BODIES)
def test_no_body_breaks_the_portal(bound: FormKernel, body: str, address: str) -> None:
    """Whatever is sent instead of a form's values is answered, and never with a failure of ours."""
    content, expected = BODIES[body]
    method = "PUT" if address == "/draft" else "POST"
    answer = bound.visitor.send_raw(method, f"/workflows/bound{address}", content)
    assert answer is None or answer.status_code in expected | ({200} if address else set()), answer.text
