"""Options of the hello world form."""

from bifrost_kernel import OrganizationContext, data_provider

LANGUAGES = (
    ("english", "English", "🇺🇸", "English"),
    ("spanish", "Spanish", "🇪🇸", "Español"),
    ("french", "French", "🇫🇷", "Français"),
    ("german", "German", "🇩🇪", "Deutsch"),
)


@data_provider(
    name="get_greeting_languages",
    description="Returns available greeting languages",
    category="examples",
    cache_ttl_seconds=3600,
)
async def get_greeting_languages(context: OrganizationContext):
    """The languages that `hello_world` knows; what stands in `metadata` is the option's tooltip."""
    context.log("info", f"Retrieved {len(LANGUAGES)} greeting languages")
    return [
        {"label": label, "value": value, "metadata": {"flag": flag, "native_name": native_name}}
        for value, label, flag, native_name in LANGUAGES
    ]
