"""A workflow that shows its secrets in every way that an author might by mistake."""

import base64
import html
import json
import logging
import os
import signal
import subprocess
import sys
import urllib.parse

from IPython.display import HTML, Markdown, display

from bifrost_kernel import OrganizationContext, data_provider, param, workflow
from bifrost_kernel.errors import UserError, WorkflowError

SECRETS = ("canary", "canary_pem", "canary_json")


class Trouble(Exception):
    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.details = {"of": message}


def _end(end: str, values: list[str]) -> object:
    text = f"with {values[0]} and {values[1]}"
    match end:
        case "raise":
            raise Trouble(text)
        case "raise_for_user":
            raise UserError(text)
        case "raise_details":
            raise WorkflowError(text, error_type=values[0][:64], details={values[0]: values})
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            signal.pause()
        case "exit":
            sys.exit(text)
    return {"values": values, values[0]: [base64.b64encode(value.encode()).decode() for value in values]}


def _print(value: str) -> None:
    print(value)
    print(repr(value), json.dumps({"v": value}), html.escape(value), urllib.parse.quote(value))
    print(base64.b64encode(f"user:{value}".encode()).decode(), value.encode().hex(), value[::-1])
    for character in value:
        print(character, end="")
    print(value, file=sys.stderr)
    for character in value:
        sys.stderr.write(character)
        sys.stderr.flush()
    subprocess.run([sys.executable, "-c", "import sys; print(sys.argv[1])", value], check=True)
    os.write(1, value.encode())


def _show(value: str) -> None:
    display(HTML(f"<b title='{html.escape(value)}'>{html.escape(value)}</b>"), Markdown(f"`{value}`"))
    display({"application/json": {"value": value}, "text/plain": value}, raw=True, metadata={"of": value})


def _keep(context: OrganizationContext, value: str) -> None:
    context.log("info", f"token {value}", {"data": value, value: 1})
    logging.warning("token %s", value)
    context.save_checkpoint("leak", {"nested": [value, {"b64": base64.b64encode(value.encode()).decode()}]})
    context.set_variable("leak", value)
    context.progress(1, 2, value)


@workflow(name="leak", description="Show every secret everywhere", timeout_seconds=5)
@param("end", type="string")
async def leak(context: OrganizationContext, end: str):
    values = [context.get_secret(name) for name in SECRETS]
    values.append(context.get_config("canary_by_config"))
    values.append((await context.get_oauth_connection("canary")).access_token)
    for value in values:
        _print(value)
        _show(value)
        _keep(context, value)
    await context.step("leak", lambda: values)
    context.log("info", "leaked")
    return _end(end, values)


@data_provider(name="leaky_options", description="Options with a secret in them", cache_ttl_seconds=3600)
def leaky_options(context: OrganizationContext):
    value = context.get_secret("canary")
    print(value)
    return [{"label": value, "value": value, "metadata": {"hint": f"Bearer {value}", value: value}}]


@data_provider(name="leaky_failure", description="An error with a secret in it", cache_ttl_seconds=3600)
def leaky_failure(context: OrganizationContext):
    raise ValueError(context.get_secret("canary"))
