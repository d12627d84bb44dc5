"""The workflow of the rehearsal: the calls that most workflows make."""

from __future__ import annotations

import logging

from bifrost_kernel.context import OrganizationContext
from bifrost_kernel.decorators import param, workflow


@workflow(name="rehearsal", description="A rehearsal", category="Examples", tags=["internal"])
@param("name", type="string", label="Name", required=True, validation={"max_length": 10})
@param("language", type="string", label="Language", default_value="english", data_provider="none")
@param("count", type="int", label="Count", default_value=1, validation={"min": 0})
async def rehearse(
    context: OrganizationContext, name: str, language: str = "english", count: int = 1
) -> dict[str, object]:
    context.log("info", f"Rehearsing with {name}", {"language": language})
    logging.getLogger(__name__).info("as libraries do")
    context.save_checkpoint("start", {"name": name, "count": count})
    context.set_variable("seen", [name])
    context.get_config("none", default=None)
    print(name)  # noqa: T201
    return {"name": name, "organization": context.org_name, "seen": context.get_variable("seen")}
