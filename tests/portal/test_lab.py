"""What authors meet in JupyterLab."""

from __future__ import annotations

import uuid
from pathlib import Path

import httpx
import psutil

from tests.portal.conftest import Kernel, Lab, running_lab


def test_the_bifrost_kernel_is_the_default(lab: Lab) -> None:
    """A new notebook starts with "Bifrost (Python 3)"."""
    specs = lab.client.get("/api/kernelspecs").json()
    assert specs["default"] == "bifrost"
    assert specs["kernelspecs"]["bifrost"]["spec"]["display_name"] == "Bifrost (Python 3)"


def test_context_is_there_before_the_first_cell(kernel: Kernel) -> None:
    """The context of an organization stands in the namespace without any import."""
    assert "Test Organization" in kernel.run("context.org_name")
    assert "dev@example.com" in kernel.run("context.executed_by_email")


def test_config_of_the_chosen_organization_is_read(kernel: Kernel, control_plane_client: httpx.Client) -> None:
    """`%bifrost org` changes whose config and secrets `context` reads."""
    control_plane_client.post("/api/organizations", json={"id": "lab-acme", "name": "Lab Acme"}).raise_for_status()
    for organization, value in (("test-org-active", "own"), ("lab-acme", "acme")):
        control_plane_client.put(
            "/api/config/color", json={"value": value}, headers={"X-Organization-Id": organization}
        ).raise_for_status()
    assert "own" in kernel.run("context.get_config('color')")
    assert "Lab Acme" in kernel.run("%bifrost org lab-acme")
    assert "acme" in kernel.run("context.get_config('color')")
    kernel.run("%bifrost org test-org-active")


def test_an_unknown_organization_is_refused_and_the_old_one_stays(kernel: Kernel) -> None:
    """A wrong id says so, and `context` stays what it was."""
    assert "no organization" in kernel.run("%bifrost org nobody")
    assert "test-org-active" in kernel.run("context.org_id")


def test_workflows_are_listed_and_run_as_executions(kernel: Kernel, control_plane_client: httpx.Client) -> None:
    """`%bifrost run` leaves an execution with the trigger `notebook` and a record."""
    assert "hello_world" in kernel.run("%bifrost workflows")
    name = f"Lab {uuid.uuid4().hex}"
    assert f"¡Hola, {name}!" in kernel.run(f"%bifrost run hello_world 'name={name}' language=spanish")
    newest = control_plane_client.get("/api/executions", params={"text": name}).json()["items"][0]
    assert (newest["trigger"], newest["status"]) == ("notebook", "success")
    assert newest["execution_id"] in kernel.run("%bifrost executions 5")


def test_a_value_of_the_notebook_can_be_an_input(kernel: Kernel) -> None:
    """`key=$variable` passes the variable's value."""
    assert "Hello, Zoë!" in kernel.run("person = 'Zoë'\n%bifrost run hello_world name=$person")


def test_wrong_inputs_name_every_field(kernel: Kernel) -> None:
    """A refused run shows each wrong field and makes no execution."""
    shown = kernel.run("%bifrost run hello_world language=klingon color=red")
    assert "name" in shown
    assert "color" in shown


def test_logs_are_shown_and_not_kept(kernel: Kernel) -> None:
    """In authoring, `context.log` speaks beneath the cell."""
    assert "Trying" in kernel.run("context.log('info', 'Trying')")


def test_the_kernel_sees_no_credential(kernel: Kernel) -> None:
    """Neither the author's key nor the session's token stands in the kernel's environment."""
    shown = kernel.run("import os; print(sorted(os.environ.items()))")
    assert "BIFROST_API_KEY" not in shown
    assert "BIFROST_TOKEN" not in shown


def test_the_kernel_is_a_fork(kernel: Kernel) -> None:
    """It was not executed for this notebook: what it imports was imported before."""
    assert "bifrost: kernels for people" in kernel.run("import os; print(open(f'/proc/{os.getppid()}/cmdline').read())")


def test_workspace_modules_can_be_imported(kernel: Kernel) -> None:
    """A module of the workspace is importable as it is in a workflow."""
    assert "Error" not in kernel.run("from modules import directory")


def test_a_stock_kernel_loads_the_extension(lab: Lab) -> None:
    """`%load_ext bifrost_kernel` gives a plain Python kernel the same context."""
    stock = lab.start_kernel("python3")
    shown = stock.run("%load_ext bifrost_kernel\ncontext.org_id")
    stock.close()
    assert "test-org-active" in shown


def test_lab_asks_for_its_token(lab: Lab) -> None:
    """Nobody gets in without the login link."""
    assert httpx.get(f"{lab.url}/api/kernels").status_code == 403
    assert httpx.post(f"{lab.url}/api/kernels", json={"name": "bifrost"}).status_code == 403


def test_lab_serves_no_voila(lab: Lab) -> None:
    """Voila is no extension of the authors' server."""
    assert lab.client.get("/voila/render/x.ipynb").status_code == 404


def test_lab_ends_with_the_control_plane(control_plane_client: httpx.Client, tmp_path: Path) -> None:
    """When the control plane is gone, however it went, Lab and its kernels are too."""
    with running_lab(control_plane_client, tmp_path) as (lab, process, lifeline):
        lab.start_kernel("bifrost").close()
        kernels = psutil.Process(process.pid).children(recursive=True)
        assert kernels
        lifeline.close()
        assert process.wait(timeout=30) is not None
        assert not psutil.wait_procs(kernels, timeout=30)[1]


def test_the_same_form_in_a_notebook(kernel: Kernel) -> None:
    """`BifrostForm` shows a workflow's form beneath the cell, with the fields of the chosen organization."""
    shown = kernel.run(
        "from bifrost_portal.form_widget import BifrostForm\n"
        "form = BifrostForm('hello_world')\n"
        "[field['name'] for field in form.spec['fields']], form.spec['organization']['id']"
    )
    assert "['name', 'language'], 'test-org-active'" in shown
    assert "there is no form" in kernel.run("BifrostForm('nobody')").lower()


def test_a_form_in_a_notebook_runs_its_workflow(kernel: Kernel, control_plane_client: httpx.Client) -> None:
    """What the browser's half sends is checked, submitted once for each key, and followed to its end."""
    name, key = f"Form {uuid.uuid4().hex}", uuid.uuid4().hex
    kernel.run(
        "from bifrost_portal.form_widget import AuthoringBackend, FormRefused\n"
        "backend = AuthoringBackend('hello_world')\n"
        f"answers = [backend.submit({{'name': {name!r}}}, {key!r})['execution_id'] for _ in range(2)]"
    )
    assert "True" in kernel.run("len(set(answers)) == 1")
    told = kernel.run("list(backend.follow(answers[0]))")
    assert "Generating greeting" in told
    assert "'over'" in told
    assert "Name is required" in kernel.run("try: backend.submit({}, 'k')\nexcept FormRefused as e: print(e.fields)")
    newest = control_plane_client.get("/api/executions", params={"text": name}).json()["items"]
    assert [(one["trigger"], one["status"]) for one in newest] == [("form", "success")]
