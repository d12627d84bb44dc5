"""The command line as people and programs use it: processes of its own against a live control plane (contract §5)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

Bifrost = Callable[..., "subprocess.CompletedProcess[str]"]
COMMAND = [sys.executable, "-m", "bifrost_scheduler.cli.main"]


@pytest.fixture
def bifrost(control_plane: Any) -> Bifrost:
    """`bifrost("run", "nothing", key=…, given=…, url=…)` with the developer's key; `key=None` sets none."""

    def call(
        *arguments: str,
        key: str | None = "test",
        given: str = "",
        url: str | None = None,
        home: Path | None = None,
        preload: str = "",
    ) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BIFROST_")}
        environment["BIFROST_PRELOAD"] = preload
        environment["BIFROST_URL"] = url or control_plane.base_url
        environment["BIFROST_HOME"] = str(home or control_plane.services.settings.home)
        if key is not None:
            environment["BIFROST_API_KEY"] = key
        return subprocess.run(
            [*COMMAND, *arguments], env=environment, input=given, capture_output=True, text=True, check=False
        )

    return call


def document(done: subprocess.CompletedProcess[str]) -> Any:
    """The one JSON document that `--json` printed."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# forms


FORM = "workflow: create_user\ntitle: Ours\nhidden:\n  license: SPB\n"


def test_forms(bifrost: Bifrost, organization: str, tmp_path: Path) -> None:
    """A file is set, listed, shown, exported as it was, and deleted again."""
    (tmp_path / "newcomer.yaml").write_text(FORM)
    scope = ("--org", organization)
    assert document(bifrost("forms", "set", str(tmp_path / "newcomer.yaml"), *scope, "--json"))["version"] == 1
    assert re.search(r"newcomer +create_user +store", bifrost("forms", "list", *scope).stdout)
    assert "SPB" not in bifrost("forms", "show", "newcomer", *scope).stdout
    exported = bifrost("forms", "export", "newcomer", *scope).stdout
    assert exported == f"name: newcomer\n{FORM}"
    again = bifrost("forms", "set", "-", *scope, "--json", given=exported)
    assert document(again)["definition"] == {"workflow": "create_user", "title": "Ours", "hidden": {"license": "SPB"}}
    assert bifrost("forms", "delete", "newcomer", *scope).returncode == 0
    assert "newcomer" not in bifrost("forms", "list", *scope).stdout


def test_a_wrong_form_file(bifrost: Bifrost, organization: str, tmp_path: Path) -> None:
    """The file, the line and what is wrong there; a scope has to be named."""
    (tmp_path / "wrong.yaml").write_text("workflow: create_user\ntitel: x\n")
    done = bifrost("forms", "set", str(tmp_path / "wrong.yaml"), "--org", organization)
    assert (done.returncode, "wrong.yaml:2: titel" in done.stderr) == (2, True)
    assert bifrost("forms", "set", str(tmp_path / "gone.yaml"), "--org", organization).returncode == 2
    assert bifrost("forms", "list").returncode == 2
    assert "onboard_new_user" in bifrost("forms", "list", "--global").stdout


# people


def test_people(bifrost: Bifrost, organization: str, client: Callable[..., httpx.Client]) -> None:
    """A person is made, given and taken roles, let in by a link, switched off and removed."""
    email = f"ada@{organization}.example.com"
    add = ("users", "add", email, "--name", "Ada", "--role", "ReadOnlyUser", "--role", "WorkflowUser")
    made = document(bifrost(*add, "--org", organization, "--json"))
    assert made["roles"] == {organization: ["ReadOnlyUser", "WorkflowUser"]}
    assert document(bifrost("users", "revoke", email, "ReadOnlyUser", "--org", organization, "--json"))["roles"] == {
        organization: ["WorkflowUser"]
    }
    granted = document(bifrost("users", "grant", email, "OrgAdmin", "--org", organization, "--json"))
    assert granted["roles"] == {organization: ["WorkflowUser", "OrgAdmin"]}
    link = document(bifrost("users", "link", email, "--json"))["token"]
    assert client(None).post("/api/sessions", json={"link": link}).status_code == 201
    assert f"{organization}: WorkflowUser, OrgAdmin" in bifrost("users", "list", "--org", organization).stdout
    assert document(bifrost("users", "disable", email, "--json"))["disabled"]
    assert re.search(r"State\s+invited", bifrost("users", "enable", email).stdout)
    assert bifrost("users", "sign-out", email).returncode == 0
    assert "/signin/link#bfl_" in bifrost("users", "link", email).stdout
    assert bifrost("users", "delete", email).returncode == 0
    assert bifrost("users", "show", email).returncode == 2


def test_roles(bifrost: Bifrost, organization: str) -> None:
    """A role is defined, listed beside the built-in ones, and removed."""
    name = f"Dispatcher-{organization}"
    document(bifrost("roles", "set", name, "--permission", "canViewHistory", "--description", "looks on", "--json"))
    listed = bifrost("roles", "list").stdout
    assert re.search(rf"{name}\s+looks on\s+canViewHistory", listed)
    assert "ReadOnlyUser" in listed
    assert bifrost("roles", "delete", name).returncode == 0
    assert bifrost("roles", "delete", "OrgAdmin").returncode == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("users", "add", "a@example.com", "--name", "A", "--role", "OrgAdmin"),
        ("users", "add", "a@example.com", "--name", "A", "--role", "OrgAdmin", "--org", "a", "--org", "b"),
        ("users", "grant", "a@example.com", "OrgAdmin"),
        ("users", "add", "no email", "--name", "A"),
        ("roles", "set", "X", "--permission", "canFly"),
    ],
)
def test_people_usage(bifrost: Bifrost, arguments: tuple[str, ...]) -> None:
    """A role without its organization, what is no email and what is no permission: exit code 2, and a line why."""
    done = bifrost(*arguments)
    assert (done.returncode, done.stderr.startswith("bifrost: ")) == (2, True)


# run


def test_run(bifrost: Bifrost, organization: str) -> None:
    """`run` prints what a person asks first."""
    done = bifrost("run", "hello_world", "name=Alice", "language=spanish", "--org", organization)
    assert done.returncode == 0, done.stderr
    assert "¡Hola, Alice!" in done.stdout
    assert re.search(r"Status\s+success", done.stdout)
    assert re.search(r"Trigger\s+cli", done.stdout)


def test_run_as_json(bifrost: Bifrost, organization: str) -> None:
    """`run --json` prints the bare result, and values get their types from the workflow."""
    done = bifrost("run", "echo", "text=a=b", "count=3", "flag=false", 'data={"a": 1}', "--org", organization, "--json")
    result = document(done)
    assert (result["text"], result["count"], result["flag"], result["data"]) == ("a=b", 3, False, {"a": 1})


def test_run_asynchronously(bifrost: Bifrost, organization: str, until_over: Any) -> None:
    """`run --async` prints the envelope at once."""
    envelope = document(bifrost("run", "talkative", "--org", organization, "--async", "--json"))
    assert until_over(envelope["execution_id"])["status"] == "success"


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("run", "explode"), 1, "ValueError: boom"),
        (("run", "refuse"), 1, "Choose another name."),
        (("run", "overdue"), 1, "Execution:"),
        (("run", "echo", "count=x"), 2, "count:"),
        (("run", "echo", "text"), 2, "is not key=value"),
        (("run", "echo", "text=a", "text=b"), 2, "given twice"),
        (("run", "nobody"), 2, "nobody"),
        (("run", "broken_one"), 2, "workflows/broken.py:"),
        (("run",), 2, "Missing argument"),
        (("fly",), 2, "No such command"),
        (("executions", "list", "--limit", "0"), 2, "--limit"),
    ],
)
def test_exit_code(bifrost: Bifrost, organization: str, arguments: tuple[str, ...], status: int, told: str) -> None:
    """1 when the execution failed, 2 when the call was wrong; the reason stands on stderr, stdout stays empty."""
    extra = ("--org", organization) if arguments[0] == "run" and len(arguments) > 1 else ()
    done = bifrost(*arguments, *extra)
    assert done.returncode == status, done.stderr
    assert told in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["../keys", "a/b", "a?limit=1", "a#b", "", "ä"])
def test_strange_names(bifrost: Bifrost, organization: str, name: str) -> None:
    """A name is a name, never a part of the address."""
    done = bifrost("run", name, "--org", organization)
    assert done.returncode == 2
    assert "no workflow" in done.stderr or "nothing at this address" in done.stderr


def test_unreachable(bifrost: Bifrost) -> None:
    """3 when no control plane answers."""
    done = bifrost("workflows", url="http://127.0.0.1:9")
    assert (done.returncode, "cannot be reached" in done.stderr) == (3, True)


# credentials


def test_operator(bifrost: Bifrost) -> None:
    """Without a key the operator's credential of the home is used."""
    assert document(bifrost("orgs", "list", "--json", key=None))


def test_no_credential(bifrost: Bifrost, tmp_path: Path) -> None:
    """Without a key and without a home the command says what to set."""
    done = bifrost("workflows", key=None, home=tmp_path)
    assert (done.returncode, "BIFROST_API_KEY" in done.stderr) == (3, True)


def test_wrong_key(bifrost: Bifrost) -> None:
    """A wrong key is said to be wrong, and is not repeated."""
    done = bifrost("workflows", key="wrong-key-of-the-test")
    assert (done.returncode, "wrong-key-of-the-test" in done.stderr) == (2, False)


def test_key_of_an_organization(
    bifrost: Bifrost, new_key: Callable[..., str], organization: str, neighbour: str
) -> None:
    """With an organization's key the commands see this organization and no other."""
    key = new_key(organization)
    bifrost("run", "nothing", "--org", organization)
    bifrost("run", "nothing", "--org", neighbour)
    rows = document(bifrost("executions", "list", "--json", key=key))
    assert {row["organization"] for row in rows} == {organization}
    assert bifrost("executions", "list", "--org", neighbour, key=key).returncode == 2


# the rest


def test_workflows(bifrost: Bifrost) -> None:
    """`workflows` shows what there is and what is broken, with its place."""
    done = bifrost("workflows")
    assert re.search(r"hello_world\s+Examples\s+sync", done.stdout)
    assert "workflows/broken.py:" in done.stdout
    assert document(bifrost("workflows", "--json"))["broken"]


def test_executions(bifrost: Bifrost, run: Callable[..., httpx.Response], organization: str) -> None:
    """An execution is listed, shown with its events, and its record saved as notebook and as page."""
    id_ = run("talkative", organization).headers["X-Execution-Id"]
    assert id_ in bifrost("executions", "list", "--org", organization, "--status", "success").stdout
    shown = bifrost("executions", "show", id_).stdout
    assert "first" in shown
    assert "half" in shown
    assert [event["type"] for event in document(bifrost("executions", "logs", id_, "--json"))].count("log") == 1
    assert "first" in bifrost("executions", "logs", id_, "--follow").stdout
    assert json.loads(bifrost("executions", "notebook", id_, "-o", "-").stdout)["nbformat"] == 4
    assert bifrost("executions", "notebook", id_, "--html", "-o", "-").stdout.startswith("<!doctype html>")


def test_steering(bifrost: Bifrost, run: Callable[..., httpx.Response], organization: str) -> None:
    """Executions are run again, approved, rejected and cancelled."""
    first = run("echo", organization, text="again").headers["X-Execution-Id"]
    assert document(bifrost("executions", "rerun", first, "--json"))["result"]["text"] == "again"
    waiting = [run("guarded", organization).json()["execution_id"] for _ in range(3)]
    assert document(bifrost("executions", "approve", waiting[0], "--json", key=None))["approved_by"] == "user:operator"
    assert document(bifrost("executions", "reject", waiting[1], "--json", key=None))["status"] == "cancelled"
    assert document(bifrost("executions", "cancel", waiting[2], "--json"))["status"] == "cancelled"
    assert bifrost("executions", "cancel", waiting[2]).returncode == 2


def test_output_cannot_steer_a_terminal(
    bifrost: Bifrost, run: Callable[..., httpx.Response], organization: str
) -> None:
    """Control characters in what a customer sent are shown, not sent to the terminal."""
    response = run("echo", organization, text="\x1b[31mred\x07 [bold]markup[/bold] \u202e")
    shown = bifrost("executions", "show", response.headers["X-Execution-Id"]).stdout
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", shown)
    assert "[bold]markup[/bold]" in shown


def test_organizations(bifrost: Bifrost) -> None:
    """Organizations are made, listed, switched off and on."""
    assert document(bifrost("orgs", "add", "from-cli", "--name", "From CLI", "--json"))["id"] == "from-cli"
    assert bifrost("orgs", "add", "from-cli", "--name", "Again").returncode == 2
    assert document(bifrost("orgs", "deactivate", "from-cli", "--json"))["active"] is False
    assert document(bifrost("orgs", "activate", "from-cli", "--json"))["active"] is True
    assert "From CLI" in bifrost("orgs", "list").stdout
    assert document(bifrost("orgs", "egress", "from-cli", "a.example", "--json"))["egress"] == ["a.example"]
    assert document(bifrost("orgs", "egress", "from-cli", "--json"))["egress"] == ["a.example"]
    assert document(bifrost("orgs", "egress", "from-cli", "--nothing", "--json"))["egress"] == []
    assert document(bifrost("orgs", "egress", "from-cli", "--public", "--json"))["egress"] is None
    assert bifrost("orgs", "egress", "from-cli", "a.example", "--nothing").returncode == 2


def test_keys(bifrost: Bifrost, organization: str) -> None:
    """A key is shown once, works, and is refused after its deletion."""
    made = document(bifrost("keys", "add", "psa", "--org", organization, "--workflow", "nothing", "--json"))
    run = ("run", "nothing", "--org", organization)
    assert bifrost(*run, key=made["key"]).returncode == 0
    assert bifrost("run", "talkative", "--org", organization, key=made["key"]).returncode == 2
    assert made["id"] in bifrost("keys", "list", "--org", organization).stdout
    assert bifrost("keys", "delete", made["id"]).returncode == 0
    assert bifrost(*run, key=made["key"]).returncode == 2


def test_config(bifrost: Bifrost, organization: str) -> None:
    """Config is set with its type, listed and deleted; a scope has to be named, and one only."""
    of = ("--org", organization)
    assert document(bifrost("config", "set", "limit", "42", "--type", "int", *of, "--json"))["value"] == 42
    assert document(bifrost("config", "list", *of, "--json"))[0]["key"] == "limit"
    assert bifrost("config", "set", "limit", "x", "--type", "int", *of).returncode == 2
    assert bifrost("config", "delete", "limit", *of).returncode == 0
    assert bifrost("config", "delete", "limit", *of).returncode == 2
    assert bifrost("config", "set", "limit", "1").returncode == 2
    assert bifrost("config", "set", "limit", "1", *of, "--global").returncode == 2
    assert document(bifrost("config", "set", "from_cli", "1", "--global", "--json"))["scope"] == "GLOBAL"


def test_secret_comes_from_standard_input(bifrost: Bifrost, organization: str) -> None:
    """A secret is read from standard input, without the last line end, and never printed."""
    of = ("--org", organization)
    done = bifrost("secrets", "set", "vault", *of, given="secret-of-the-cli\n")
    assert (done.returncode, "secret-of-the-cli" in done.stdout) == (0, False)
    listed = bifrost("secrets", "list", *of)
    assert ("vault" in listed.stdout, "secret-of-the-cli" in listed.stdout) == (True, False)
    assert document(bifrost("run", "tell_secret", "name=vault", *of, "--json")) == {"secret": "***"}
    assert bifrost("secrets", "set", "vault", *of, given="short").returncode == 2
    assert bifrost("secrets", "delete", "vault", *of).returncode == 0


def test_connections(bifrost: Bifrost, client: Callable[..., httpx.Client], organization: str) -> None:
    """Connections are listed without their tokens."""
    body = {"oauth_flow_type": "client_credentials", "client_id": "c", "access_token": "token-of-the-cli"}
    client("test", organization).put("/api/connections/Halo", json=body).raise_for_status()
    done = bifrost("connections", "list", "--org", organization)
    assert ("Halo" in done.stdout, "token-of-the-cli" in done.stdout) == (True, False)


def test_doctor(bifrost: Bifrost) -> None:
    """`doctor` says what this machine allows, and is content with a running control plane."""
    findings = {finding["check"]: finding["state"] for finding in document(bifrost("doctor", "--json"))}
    assert (findings["Control plane"], findings["Home"], findings["Keys"]) == ("ok", "ok", "ok")


def test_doctor_finds_an_open_home(bifrost: Bifrost, tmp_path: Path) -> None:
    """`doctor` ends with 1 when keys are open to others, and says what to do."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "operator.key").touch(mode=0o644)
    tmp_path.chmod(0o755)
    done = bifrost("doctor", home=tmp_path)
    assert (done.returncode, "chmod 700" in done.stdout, "chmod 600" in done.stdout) == (1, True, True)


def test_doctor_names_what_cannot_be_preloaded(bifrost: Bifrost) -> None:
    """A package that is not there is a warning with the reason; those that are there are listed."""
    for preload, state, text in (
        ("colorsys,no_such_module_here", "warning", "No module named 'no_such_module_here'"),
        ("colorsys", "ok", "colorsys"),
    ):
        findings = {one["check"]: one for one in json.loads(bifrost("doctor", "--json", preload=preload).stdout)}
        assert findings["Preload"]["state"] == state
        assert text in findings["Preload"]["text"]


def test_help(bifrost: Bifrost) -> None:
    """Help and version need no control plane."""
    assert "executions" in bifrost("--help", url="http://127.0.0.1:9").stdout
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", bifrost("--version", url="http://127.0.0.1:9").stdout)


def test_up_refuses_development_in_the_open(bifrost: Bifrost) -> None:
    """`up --dev` on another address than loopback is a usage error that says why."""
    done = bifrost("up", "--dev", "--host", "0.0.0.0")
    assert (done.returncode, "well-known key" in done.stderr) == (2, True)


def test_second_control_plane(bifrost: Bifrost, control_plane: Any) -> None:
    """A home has one control plane: a second one ends at once and says so."""
    done = bifrost("up", "--home", str(control_plane.services.settings.home), "--no-lab", "--no-portal", "--port", "0")
    assert (done.returncode, "already running" in done.stderr) == (1, True)


def test_start_up_time(bifrost: Bifrost) -> None:
    """The command line starts hardly slower than the libraries that it cannot do without."""

    def took(*command: str) -> float:
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - started

    ours = min(took(*COMMAND, "--help") for _ in range(5))
    floor = min(took(sys.executable, "-c", "import httpx, typer, rich.table") for _ in range(5))
    assert ours < 2.5 * floor


# schedules


def test_next_times_without_a_control_plane(bifrost: Bifrost, tmp_path: Path) -> None:
    """`schedules next` needs neither server nor key: instants for programs, words for people."""
    asked = ("schedules", "next", "0 9 * * 1", "--timezone", "Europe/Zagreb", "--from", "2026-10-20T00:00:00Z")
    nowhere = {"key": None, "url": "http://127.0.0.1:1", "home": tmp_path}
    assert document(bifrost(*asked, "--count", "2", "--json", **nowhere)) == [
        "2026-10-26T08:00:00Z",
        "2026-11-02T08:00:00Z",
    ]
    shown = bifrost(*asked, **nowhere).stdout
    assert "Mondays at 09:00, Europe/Zagreb" in shown
    assert "Mon 2026-10-26 09:00 +0100" in shown


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("0 0 31 2 *",), "never comes due"),
        (("* * * * * *",), "it has 6"),
        (("@daily", "--timezone", "Mars"), "IANA"),
        (("@daily", "--from", "tomorrow"), "no instant"),
        (("@daily", "--from", "2026-01-01T00:00:00"), "no instant"),
    ],
)
def test_next_times_of_nothing(bifrost: Bifrost, arguments: tuple[str, ...], told: str) -> None:
    """What cannot be computed is a usage error that says why."""
    done = bifrost("schedules", "next", *arguments)
    assert done.returncode == 2
    assert told in done.stderr


def test_schedules(bifrost: Bifrost, organization: str) -> None:
    """A schedule is added, looked at, paused, resumed, run and deleted by its name."""
    here = ("--org", organization)
    added = ("nightly", "--workflow", "echo", "--cron", "30 2 * * *", "--timezone", "Europe/Zagreb", "-p", "text=a")
    assert "Every day at 02:30, Europe/Zagreb" in bifrost("schedules", "add", *added, *here).stdout
    assert document(bifrost("schedules", "show", "nightly", *here, "--json"))["parameters"] == {"text": "a"}
    assert "paused" in bifrost("schedules", "pause", "nightly", *here).stdout
    assert re.search(r"nightly\s+echo.*paused", bifrost("schedules", "list", *here).stdout)
    assert document(bifrost("schedules", "resume", "nightly", *here, "--json"))["paused_at"] is None
    assert document(bifrost("schedules", "run", "nightly", *here, "--json"))["trigger"] == "schedule"
    assert "not been due" in bifrost("schedules", "history", "nightly", *here).stdout
    assert bifrost("schedules", "delete", "nightly", *here).returncode == 0
    assert document(bifrost("schedules", "list", *here, "--json")) == []
