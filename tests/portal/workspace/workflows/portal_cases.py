"""Workflows that the portal's tests fill in, watch and attack."""

import asyncio
from pathlib import Path

from bifrost_kernel import OrganizationContext, data_provider, param, workflow

SCRIPT = "<script>window.pwned=1</script><img src=x onerror='window.pwned=1'>"


@data_provider(name="get_cities", description="Cities of a country", cache_ttl_seconds=60)
def get_cities(context: OrganizationContext, country: str):
    names = {"Croatia": ["Zagreb", "Split"], "Spain": ["Madrid", "Bilbao"]}[country]
    return [{"label": name, "value": name.lower(), "metadata": {"country": country}} for name in names]


@data_provider(name="get_many", description="More than anybody scrolls through", cache_ttl_seconds=60)
def get_many(context: OrganizationContext):
    return [{"label": f"Item {n:03}", "value": n, "metadata": {"available": n}} for n in range(150)]


@data_provider(name="get_hostile", description="Options with script in them", cache_ttl_seconds=60)
def get_hostile(context: OrganizationContext):
    return [{"label": SCRIPT, "value": "a", "metadata": {"note": SCRIPT}}, {"label": "b", "value": "b"}]


@workflow(name="everything", description="Every type of input", category="Portal cases")
@param("text", type="string", label="Text", required=True, validation={"min_length": 2, "max_length": 10})
@param("code", type="string", label="Code", required=False, validation={"pattern": "[A-Z]{3}"})
@param("count", type="int", label="Count", default_value=3, validation={"min": 1, "max": 9})
@param("price", type="float", label="Price", required=False)
@param("mail", type="email", label="Mail", required=False)
@param("urgent", type="bool", label="Urgent", default_value=False)
@param("extra", type="json", label="Extra", required=False)
@param("names", type="list", label="Names", required=False, help_text="One name per line")
@param("country", type="string", label="Country", required=False)
@param("city", type="string", label="City", required=False, data_provider="get_cities")
@param("item", type="int", label="Item", required=False, data_provider="get_many")
def everything(
    context: OrganizationContext,
    text,
    code=None,
    count=3,
    price=None,
    mail=None,
    urgent=False,
    extra=None,
    names=None,
    country="Croatia",
    city=None,
    item=None,
):
    return {
        "text": text,
        "count": count,
        "price": price,
        "urgent": urgent,
        "extra": extra,
        "names": names,
        "item": item,
    }


@workflow(name="slow_steps", description="Tells what it does while it does it", category="Portal cases")
@param("steps", type="int", label="Steps", default_value=3)
@param("pause", type="float", label="Pause", default_value=0.2)
async def slow_steps(context: OrganizationContext, steps=3, pause=0.2):
    for step in range(steps):
        context.log("info", f"Step {step + 1}")
        context.progress(step + 1, steps, "Working")
        await asyncio.sleep(pause)
    return {"steps": steps}


@workflow(name="hostile", description=SCRIPT, category="Portal cases")
@param("choice", type="string", label=f"Choice {SCRIPT}", help_text=SCRIPT, data_provider="get_hostile", required=False)
@param("name", type="string", label="Name", default_value=SCRIPT)
@param("form", type="string", label="Form", default_value="fields")
def hostile(context: OrganizationContext, choice=None, name="", form="fields"):
    context.log("warning", SCRIPT, {SCRIPT: SCRIPT})
    context.save_checkpoint(SCRIPT, {"x": SCRIPT})
    context.set_variable("v", SCRIPT)
    if form == "error":
        raise RuntimeError(SCRIPT)
    return {
        "fields": {SCRIPT: SCRIPT, "name": name},
        "table": [{SCRIPT: SCRIPT, "formula": "=cmd|' /C calc'!A0"}],
        "markdown": {"type": "markdown", "content": f"# Report\n\n{SCRIPT}\n\n[click](javascript:window.pwned=1)"},
        "html": {"type": "html", "content": f"<h1>Report</h1>{SCRIPT}<a href='javascript:window.pwned=1'>x</a>"},
        "text": SCRIPT,
    }[form]


@workflow(name="report", description="Results of every kind", category="Portal cases")
@param("kind", type="string", label="Kind", default_value="table")
def report(context: OrganizationContext, kind="table"):
    return {
        "table": [{"name": "Ada", "seats": 10}, {"name": "Bob", "seats": 9}],
        "markdown": {"type": "markdown", "content": "## Audit\n\nAll **fine**."},
        "html": {"type": "html", "content": "<h1>Audit</h1><p>All fine.</p>"},
        "file": {"type": "file", "name": "../audit.txt", "content": "all fine"},
        "text": "All fine.",
        "nothing": None,
        "errors": {"success": False, "reason": "half of it failed"},
    }[kind]


@workflow(name="guarded", description="Waits for somebody else's yes", category="Portal cases", requires_approval=True)
@param("amount", type="int", label="Amount", required=True)
def guarded(context: OrganizationContext, amount):
    return {"paid": amount}


@workflow(name="counted", description="Leaves a line for each time that it ran", category="Portal cases")
@param("path", type="string", label="Path", required=True)
def counted(context: OrganizationContext, path):
    with Path(path).open("a") as file:
        file.write(f"{context.execution_id}\n")
    return {"written": True}
