"""A form's kernel as an attacker with a valid cookie sees it: a raw websocket that says whatever it likes.

The tests of attacks use it. It speaks both protocols of Jupyter's websocket, and waits for answers, never for time.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import websocket

from bifrost_portal.messages import V1
from tests.portal.site import Site, Visitor

Json = dict[str, Any]

KERNEL_ID = re.compile(r'"kernelId": ?"([0-9a-f-]{36})"')
MODEL_ID = re.compile(r'"model_id": ?"([0-9a-f]{32})"')
PARTS = ("header", "parent_header", "metadata", "content")


@dataclass(frozen=True)
class FormKernel:
    """The kernel behind a form's page that a visitor has open."""

    site: Site
    visitor: Visitor
    kernel_id: str
    model_id: str

    @property
    def process(self) -> psutil.Process:
        """It, on this machine."""
        found = [one for one in kernel_processes(self.site) if self.kernel_id in _command(one)]
        assert len(found) == 1
        return found[0]

    @contextlib.contextmanager
    def channel(self, protocol: str | None = None) -> Iterator[Channel]:
        """A websocket to it as its own page opens one."""
        connection = connect(self.site, self.kernel_id, cookie=self.visitor.cookies, protocol=protocol)
        try:
            yield Channel(connection, self.model_id, protocol)
        finally:
            connection.close()
            connection.shutdown()


def open_form(site: Site, visitor: Visitor, form: str = "hello_world") -> FormKernel:
    """The form's page, read to its end: its kernel is there then."""
    page = visitor.get(f"/workflows/{form}").raise_for_status().text
    kernel, model = KERNEL_ID.search(page), MODEL_ID.search(page)
    assert kernel is not None
    assert model is not None
    return FormKernel(site, visitor, kernel[1], model[1])


def kernel_processes(site: Site) -> list[psutil.Process]:
    """Those of all forms."""
    return [one for one in site.product.descendants() if "ipykernel" in _command(one)]


def _command(process: psutil.Process) -> str:
    """Empty when it has ended meanwhile."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


def connect(
    site: Site, kernel_id: str, *, cookie: str, protocol: str | None = None, **options: Any
) -> websocket.WebSocket:
    """Raises `websocket.WebSocketBadStatusException`: it was refused."""
    address = f"{site.url.replace('http', 'ws', 1)}/api/kernels/{kernel_id}/channels?session_id={uuid.uuid4().hex}"
    given = {"origin": site.url, "subprotocols": [protocol] if protocol else None, **options}
    return websocket.create_connection(address, cookie=cookie, timeout=60, **given)


class Channel:
    """What one may say, and what comes back."""

    def __init__(self, connection: websocket.WebSocket, model_id: str, protocol: str | None) -> None:
        self.connection = connection
        self._model_id = model_id
        self._protocol = protocol

    def say(self, kind: Any, content: Any = None, *, channel: str = "shell", **more: Any) -> str:
        """Send a message of this type; returns its id."""
        message_id = uuid.uuid4().hex
        message = make_message(kind, content, message_id, **more)
        self.send({**message, "channel": channel})
        return message_id

    def send(self, message: Json) -> None:
        if self._protocol == V1:
            self.connection.send(as_v1(message), websocket.ABNF.OPCODE_BINARY)
        else:
            self.connection.send(json.dumps(message))

    def hear(self) -> Json:
        """The next message."""
        said = self.connection.recv()
        message = from_v1(said) if isinstance(said, bytes) else json.loads(said)
        assert isinstance(message, dict)
        return message

    def fence(self) -> list[Json]:
        """All that came until the kernel answered a harmless question, which it does in its turn."""
        asked, heard = self.say("comm_info_request", {"target_name": "jupyter.widget"}), list[Json]()
        while True:
            heard.append(self.hear())
            if is_answer(heard[-1], asked, "comm_info_reply"):
                return heard

    def comms(self) -> set[str]:
        """The widgets that are there."""
        return set(self.fence()[-1]["content"]["comms"])

    def tell_widget(self, data: Json) -> None:
        self.say("comm_msg", {"comm_id": self._model_id, "data": data})

    def ask(self, **content: Any) -> Json:
        """A custom message to the form's widget, as its page sends it; its answer."""
        asked = uuid.uuid4().hex
        self.tell_widget({"method": "custom", "content": {"id": asked, **content}})
        while True:
            data = self.hear()["content"].get("data")
            said = data.get("content") if isinstance(data, dict) else None
            if isinstance(said, dict) and said.get("id") == asked:
                return said


def is_answer(message: Json, asked: str, kind: str) -> bool:
    return bool(message["parent_header"].get("msg_id") == asked and message["header"]["msg_type"] == kind)


def make_message(kind: Any, content: Any, message_id: str = "", **more: Any) -> Json:
    header = {"msg_id": message_id or uuid.uuid4().hex, "msg_type": kind, "username": "", "session": "attack"}
    header |= {"version": "5.3", "date": "2026-01-01T00:00:00Z"}
    return {"header": header, "parent_header": {}, "metadata": {}, "content": content or {}, "buffers": [], **more}


def as_v1(message: Json) -> bytes:
    """The message in the binary protocol: a count, offsets, the channel, then the parts."""
    parts = [str(message["channel"]).encode(), *(_text(message[name]) for name in PARTS)]
    offsets = [8 * (len(parts) + 2)]
    for part in parts:
        offsets.append(offsets[-1] + len(part))
    return b"".join([*(number.to_bytes(8, "little") for number in (len(offsets), *offsets)), *parts])


def from_v1(said: bytes) -> Json:
    count = int.from_bytes(said[:8], "little")
    offsets = [int.from_bytes(said[8 * place : 8 * place + 8], "little") for place in range(1, count + 1)]
    parts = [said[start:end] for start, end in itertools.pairwise(offsets[1:6])]
    return dict(zip(PARTS, (json.loads(part) for part in parts), strict=True))


def _text(part: Any) -> bytes:
    return part if isinstance(part, bytes) else json.dumps(part).encode()
