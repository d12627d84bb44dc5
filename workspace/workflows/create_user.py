"""Create one user: text inputs, an e-mail address, a dropdown and a checkbox."""

from modules.directory import display_name, user_id

from bifrost_kernel import OrganizationContext, param, workflow


@workflow(name="create_user", description="Create new user", category="user_management")
@param("first_name", type="string", label="First Name", required=True)
@param("last_name", type="string", label="Last Name", required=True)
@param("email", type="email", label="Email", required=True)
@param("license", type="string", label="License", data_provider="get_available_licenses")
@param("send_welcome", type="bool", label="Send Welcome Email", default_value=True)
async def create_user(
    context: OrganizationContext,
    first_name: str,
    last_name: str,
    email: str,
    license: str,
    send_welcome: bool = True,
):
    """Create the user; the directory itself is for you to connect."""
    user = {
        "user_id": user_id(email),
        "display_name": display_name(first_name, last_name),
        "license": license,
        "welcome_sent": send_welcome,
    }
    context.log("info", "User created successfully", user)
    return user
