"""A first workflow: two inputs, a dropdown, log lines, checkpoints, and a result."""

from bifrost_kernel import OrganizationContext, param, workflow

GREETINGS = {
    "english": "Hello, {name}!",
    "spanish": "¡Hola, {name}!",
    "french": "Bonjour, {name}!",
    "german": "Hallo, {name}!",
}


@workflow(
    name="hello_world",
    description="Generate a personalized greeting in multiple languages",
    category="Examples",
    tags=["demo", "getting-started"],
)
@param("name", type="string", label="Name", required=True, help_text="Name of the person to greet")
@param(
    "language",
    type="string",
    label="Language",
    default_value="english",
    data_provider="get_greeting_languages",
    help_text="Language for the greeting",
)
async def hello_world(context: OrganizationContext, name: str, language: str = "english"):
    """Greet `name` in `language`, on behalf of the organization."""
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
