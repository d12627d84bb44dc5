"""Workflows that read what belongs to their organization."""

import asyncio

from bifrost_kernel import OrganizationContext, param, workflow


@workflow(name="own_values", description="Read each kind of value, and return what may be shown")
@param("number", type="int")
async def own_values(context: OrganizationContext, number: int):
    secret = context.get_secret("directory_token")
    credentials = await context.get_oauth_connection("HaloPSA")
    context.set_variable("owner", context.org_id)
    await asyncio.sleep(0)
    context.log("info", f"{secret} and {credentials.access_token}", {"token": credentials.access_token})
    return {
        "number": number,
        "organization": context.org_id,
        "region": context.get_config("region"),
        "secret_chars": len(secret),
        "token_chars": len(credentials.access_token),
    }
