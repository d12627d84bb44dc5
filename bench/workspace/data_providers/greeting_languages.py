"""Options of the form, so that every call has one to check."""

from bifrost_kernel import OrganizationContext, data_provider


@data_provider(name="get_greeting_languages", description="Languages of the greeting", cache_ttl_seconds=3600)
async def get_greeting_languages(context: OrganizationContext):
    return [{"label": name.title(), "value": name} for name in ("english", "spanish", "french", "german")]
