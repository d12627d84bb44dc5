"""`OrganizationContext` in memory: what it asks, what it keeps, what it refuses."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bifrost_kernel import broker_client, context, errors, models, testing


def test_it_knows_organization_and_caller(peer: Callable[..., Any]) -> None:
    """The properties of the document, without a question to the broker."""
    made = context.OrganizationContext(
        broker_client.BrokerClient(peer().kernel_end, "t"),
        organization=models.OrganizationInfo(id="acme", name="Acme", tenant_id="t-1"),
        caller=models.Caller(subject="user:a@example.com", email="a@example.com", name="A"),
        execution_id="e1",
    )
    assert (made.org_id, made.org_name, made.tenant_id, made.execution_id) == ("acme", "Acme", "t-1", "e1")
    assert (made.executed_by, made.executed_by_email, made.executed_by_name) == (
        "user:a@example.com",
        "a@example.com",
        "A",
    )
    with pytest.raises(AttributeError):
        made.org_id = "other"  # type: ignore[misc]


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", "critical"])
def test_log_takes_its_five_levels(level: str) -> None:
    """Positional or by keyword."""
    made = testing.make_context()
    made.log(level, "one", {"n": 1})
    made.log(level=level, message="two", data=None)
    assert [event["message"] for event in made.events] == ["one", "two"]
    assert made.events[0] == {"type": "log", "level": level, "message": "one", "data": {"n": 1}}


def test_any_other_level_is_a_value_error() -> None:
    """The error lists the levels, and nothing is written."""
    made = testing.make_context()
    with pytest.raises(ValueError, match="debug, info, warning, error, critical"):
        made.log("warn", "x")
    assert made.events == []


def test_a_log_line_never_ends_a_workflow_for_its_data() -> None:
    """Data without a JSON form is shown as text; a long message is cut with a note."""
    made = testing.make_context()
    made.log("error", "a" * 100_000, {"error": ValueError("boom")})
    assert "boom" in made.events[0]["data"]["text"]
    assert made.events[0]["message"].endswith("[cut: 100000 characters, the limit is 65536]")


def test_variables_give_back_the_live_value() -> None:
    """The very object, never a copy or a shortened text; what is shown is the state at the time of setting."""
    made = testing.make_context()
    emails: list[str] = []
    made.set_variable("failed", emails)
    made.get_variable("failed", default=[]).append("a" * 1000)
    made.set_variable("failed", made.get_variable("failed"))
    assert made.get_variable("failed") is emails
    assert [len(event["value"]) for event in made.events] == [0, 1]
    assert made.get_variable("none") is None
    assert made.get_variable("none", default=0) == 0


@pytest.mark.parametrize("write", ["set_variable", "save_checkpoint"])
def test_payloads_are_checked(write: str) -> None:
    """What has no JSON form names its place, what is over 1 MB names the limit, and neither is kept."""
    made = testing.make_context()
    with pytest.raises(errors.WorkflowError, match=r"'users'\.list\[0\] is a object"):
        getattr(made, write)("users", {"list": [object()]})
    with pytest.raises(errors.LimitExceeded, match=r"'users' has 1,000,002 bytes as JSON; .* 1,000,000"):
        getattr(made, write)("users", "a" * 1_000_000)
    with pytest.raises(ValueError, match="1 to 200 characters"):
        getattr(made, write)("", 1)
    assert made.events == []
    assert made.get_variable("users") is None


def test_config_is_found_defaulted_or_a_key_error() -> None:
    """A missing key names itself and the scopes; None and False are values, and defaults."""
    made = testing.make_context(org_id="acme", config={"off": False})
    assert made.get_config("off", default=True) is False
    assert made.get_config("url", default=None) is None
    assert made.has_config("off")
    assert not made.has_config("url")
    with pytest.raises(KeyError, match="'url' is not set; searched: acme, GLOBAL"):
        made.get_config("url")


def test_secrets_are_text_or_a_key_error() -> None:
    """As config, and each read is an event without the value."""
    made = testing.make_context(secrets={"api": "s3cret-value"})
    assert made.get_secret("api") == "s3cret-value"
    assert made.events == [{"type": "secret_read", "name": "api"}]
    with pytest.raises(KeyError, match="secret 'other' is not set"):
        made.get_secret("other")


def test_a_connection_gives_credentials() -> None:
    """Fresh credentials with aware expiry, and a helper for the header."""
    made = testing.make_context(connections={"HaloPSA": "token-123"})
    credentials = asyncio.run(made.get_oauth_connection("HaloPSA"))
    assert credentials.get_auth_header() == "Bearer token-123"
    assert not credentials.is_expired()
    assert credentials.expires_at is not None
    assert credentials.expires_at.tzinfo is UTC
    assert "token-123" not in repr(credentials)


def test_an_expired_connection_says_so() -> None:
    """What cannot be refreshed is handed out as expired."""
    expired = models.Credentials(name="H", access_token="t", expires_at=datetime(2020, 1, 1, tzinfo=UTC))
    made = testing.make_context(connections={"H": expired})
    assert asyncio.run(made.get_oauth_connection("H")).is_expired()


def test_an_unknown_connection_names_the_scopes() -> None:
    """The error says which one and where it was looked for."""
    with pytest.raises(errors.NotFound, match="'Halo' does not exist; searched: acme, GLOBAL"):
        asyncio.run(testing.make_context(org_id="acme").get_oauth_connection("Halo"))


def test_a_step_runs_once() -> None:
    """A resumed execution gets the kept JSON result; functions may be sync or async."""
    calls = []

    async def create(email: str) -> dict[str, Any]:
        calls.append(email)
        return {"at": datetime(2026, 1, 1, tzinfo=UTC)}

    first = testing.make_context()
    made = asyncio.run(first.step("create", create, "a"))
    resumed = context.OrganizationContext(
        first._broker, organization=first._organization, caller=first._caller, execution_id="e"
    )
    assert asyncio.run(resumed.step("create", create, "a")) == made == {"at": "2026-01-01T00:00:00+00:00"}
    assert asyncio.run(resumed.step("other", len, "abc")) == 3
    assert calls == ["a"]


def test_a_step_name_is_used_once() -> None:
    """A loop that reuses a name would skip its second turn in silence."""
    made = testing.make_context()
    asyncio.run(made.step("create", len, "a"))
    with pytest.raises(errors.WorkflowError, match="'create' is used twice"):
        asyncio.run(made.step("create", len, "b"))


def test_a_failed_step_is_not_kept() -> None:
    """Its exception is the workflow's, and a resume runs it again."""
    made = testing.make_context()
    with pytest.raises(ZeroDivisionError):
        asyncio.run(made.step("divide", lambda: 1 / 0))
    assert made.events == []


def test_progress_may_leave_parts_out() -> None:
    """Any of done, total and text."""
    made = testing.make_context()
    made.progress(1, 2, "half")
    made.progress(text="almost")
    assert made.events[1] == {"type": "progress", "done": None, "total": None, "text": "almost"}


def test_integrations_are_found_by_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package offers a client; it is made with the context. An unknown one lists what there is."""
    (tmp_path / "acme_crm.py").write_text(
        "class Client:\n    def __init__(self, context):\n        self.org = context.org_id\n"
    )
    (tmp_path / "acme_crm-1.dist-info").mkdir()
    (tmp_path / "acme_crm-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-crm\nVersion: 1\n")
    entry_points = "[bifrost.integrations]\nacmecrm = acme_crm:Client\n"
    (tmp_path / "acme_crm-1.dist-info" / "entry_points.txt").write_text(entry_points)
    monkeypatch.syspath_prepend(str(tmp_path))
    made = testing.make_context(org_id="acme")
    assert made.get_integration("acmecrm").org == "acme"
    with pytest.raises(errors.NotFound, match=r"no integration 'msgraf'; available: .*acmecrm"):
        made.get_integration("msgraf")
    del sys.modules["acme_crm"]
