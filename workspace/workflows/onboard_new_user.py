"""Onboard a new user: the shape of a workflow with several systems, one named step for each."""

from modules.directory import display_name, user_id

from bifrost_kernel import OrganizationContext, param, workflow


@workflow(
    name="onboard_new_user",
    description="Complete user onboarding process",
    category="user_management",
    tags=["onboarding", "m365", "automation"],
)
@param("email", type="email", label="User Email", required=True, help_text="Email address for the new user")
@param("first_name", type="string", label="First Name", required=True)
@param("last_name", type="string", label="Last Name", required=True)
@param("department", type="string", label="Department", data_provider="get_departments", required=True)
@param("license_sku", type="string", label="License", data_provider="get_available_licenses", required=True)
async def onboard_new_user(
    context: OrganizationContext, email: str, first_name: str, last_name: str, department: str, license_sku: str
):
    """Create the user and give them their license; a resumed execution does not create them twice."""
    context.log("info", f"Starting onboarding for {email}")

    # With a connection to Microsoft 365 this would be:
    #     graph = context.get_integration("msgraph")
    #     created = await context.step("create_user", graph.users.create, …)
    created = await context.step("create_user", user_id, email)
    context.progress(1, 2, "User created")
    context.save_checkpoint("user_created", {"user_id": created, "email": email})

    result = {
        "user_id": created,
        "email": email,
        "display_name": display_name(first_name, last_name),
        "department": department,
        "license": license_sku,
        "status": "completed",
    }
    context.progress(2, 2, "License assigned")
    context.log("info", "User onboarding completed", result)
    return result
