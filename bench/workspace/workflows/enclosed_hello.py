"""`hello_world` of the examples, which runs fully enclosed or not at all: no figure is had without the sandbox."""

import os

from bifrost_kernel import OrganizationContext, param, workflow

GREETINGS = {
    "english": "Hello, {name}!",
    "spanish": "¡Hola, {name}!",
    "french": "Bonjour, {name}!",
    "german": "Hallo, {name}!",
}
STATUS = {"CapEff": "0000000000000000", "CapPrm": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2"}


def assert_enclosed() -> None:
    """A pid namespace of its own, no way to the network, no privilege, and a filter of system calls."""
    processes = {int(name) for name in os.listdir("/proc") if name.isdigit()}
    assert processes == {2} == {os.getpid()}, f"is {os.getpid()} and sees {processes}"
    assert os.getppid() == 0, f"was started by {os.getppid()}, which is in here"
    with open("/proc/net/dev") as lines:
        interfaces = {line.partition(":")[0].strip() for line in lines if ":" in line}
    assert interfaces == {"lo"}, f"sees interfaces {interfaces}"
    with open("/proc/self/status") as lines:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in lines)
    assert status | STATUS == status, f"is {[status[name] for name in STATUS]}"


@workflow(name="enclosed_hello", description="Generate a personalized greeting in multiple languages")
@param("name", type="string", label="Name", required=True, help_text="Name of the person to greet")
@param("language", type="string", default_value="english", data_provider="get_greeting_languages")
async def enclosed_hello(context: OrganizationContext, name: str, language: str = "english"):
    """Greet `name` in `language`, on behalf of the organization."""
    assert_enclosed()
    context.log("info", f"Generating greeting for {name}", {"language": language, "org_id": context.org_id})
    context.save_checkpoint("greeting_start", {"name": name, "language": language})

    result = {
        "greeting": GREETINGS.get(language, GREETINGS["english"]).format(name=name),
        "language": language,
        "organization": context.org_name,
        "executed_by": context.executed_by_email,
    }

    context.log("info", "Greeting generated successfully", result)
    context.save_checkpoint("greeting_complete", result)
    return result
