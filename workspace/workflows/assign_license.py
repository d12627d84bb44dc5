"""Assign a license: the value of a dropdown, not its label, is what a workflow gets."""

from bifrost_kernel import OrganizationContext, param, workflow


@workflow(name="assign_license", description="Assign M365 license", category="m365")
@param("user_email", type="email", label="User Email", required=True)
@param("license_sku", type="string", label="License", data_provider="get_available_licenses", required=True)
async def assign_license(context: OrganizationContext, user_email: str, license_sku: str):
    """Note the assignment; the call to Microsoft 365 is for you to add."""
    context.log("info", f"Assigning license {license_sku} to {user_email}")
    return {"user_email": user_email, "license_sku": license_sku}
