"""Call a vendor's API with an OAuth connection of the organization."""

import aiohttp

from bifrost_kernel import OrganizationContext, TemporaryError, WorkflowError, param, workflow


@workflow(
    name="fetch_halo_tickets",
    description="Fetch open tickets from HaloPSA",
    category="integration",
    tags=["halopsa", "tickets"],
    retries=2,
)
@param("status", type="string", label="Ticket Status", default_value="open", help_text="Filter tickets by status")
async def fetch_halo_tickets(context: OrganizationContext, status: str = "open"):
    """The organization's tickets with this status."""
    credentials = await context.get_oauth_connection("HaloPSA")
    if credentials.is_expired():
        context.log("warning", "OAuth token is expired - may need refresh")

    url = f"{context.get_config('halopsa_url')}/api/tickets"
    headers = {"Authorization": credentials.get_auth_header()}
    async with (
        # trust_env: the way out of a kernel is the proxy that its environment names.
        aiohttp.ClientSession(trust_env=True) as session,
        session.get(url, headers=headers, params={"status": status}) as response,
    ):
        if response.status == 429 or response.status >= 500:
            raise TemporaryError(f"HaloPSA answered {response.status}")
        if response.status != 200:
            raise WorkflowError(f"API request failed: {response.status}")
        tickets = await response.json()

    context.log("info", f"Fetched {len(tickets)} tickets")
    return {"tickets": tickets, "count": len(tickets)}
