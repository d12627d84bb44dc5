"""A scheduled workflow: every Monday at nine, look for licenses that run out."""

from bifrost_kernel import OrganizationContext, workflow

LOW_SHARE = 0.2


@workflow(
    name="license_audit",
    description="Audit Microsoft 365 license usage and send report",
    category="automation",
    execution_mode="scheduled",
    schedule="0 9 * * 1",
    tags=["m365", "licenses", "reporting"],
)
async def license_audit(context: OrganizationContext):
    """Count the products of which fewer than a fifth is left."""
    context.log("info", "Starting license audit")

    # With a connection to Microsoft 365 this would be `context.get_integration("msgraph")` and its subscribed SKUs.
    licenses = [
        {"sku": "M365 E3", "total": 50, "consumed": 48, "available": 2},
        {"sku": "M365 E5", "total": 10, "consumed": 7, "available": 3},
        {"sku": "M365 Business", "total": 25, "consumed": 15, "available": 10},
    ]
    low = [entry for entry in licenses if entry["available"] / entry["total"] < LOW_SHARE]

    recipient = context.get_config("admin_email", default="admin@company.com")
    context.log(
        "warning" if low else "info",
        f"Found {len(low)} licenses with low availability",
        {"low_licenses": low, "recipient": recipient},
    )
    return {"total_skus": len(licenses), "low_availability_count": len(low), "admin_notified": bool(low)}
