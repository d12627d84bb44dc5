"""How we name users; shared by the workflows that create them."""


def user_id(email: str) -> str:
    """The id of the user with this address."""
    return f"user-{email.split('@')[0]}"


def display_name(first_name: str, last_name: str) -> str:
    """The name that colleagues see."""
    return f"{first_name} {last_name}"
