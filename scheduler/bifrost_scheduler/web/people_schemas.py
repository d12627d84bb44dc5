"""The shapes of requests and answers about people: users, roles, sessions, signing in (contract §10)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import email_validator
from pydantic import AfterValidator, Field, StringConstraints, model_validator

from bifrost_kernel import models
from bifrost_scheduler import identity
from bifrost_scheduler.passwords import MAX_CHARS
from bifrost_scheduler.store.people_contract import Role, User
from bifrost_scheduler.web.schemas import Input, Name, OrganizationId, Shape, Text


def _email(text: str) -> str:
    try:
        found = email_validator.validate_email(text, check_deliverability=False, globally_deliverable=False)
    except email_validator.EmailNotValidError as error:
        raise ValueError(f"this is no email address: {error}") from error
    return found.normalized.lower()


Email = Annotated[str, StringConstraints(min_length=3, max_length=254), AfterValidator(_email)]
Password = Annotated[str, StringConstraints(max_length=MAX_CHARS)]
Token = Annotated[str, StringConstraints(max_length=200)]
Address = Annotated[str, StringConstraints(max_length=1000, pattern=r"^[^\x00-\x1f\x7f]*$")]
Place = OrganizationId | Literal["*"]
"""An organization, or `*` for every one."""
Held = Annotated[dict[Place, Annotated[list[Name], Field(max_length=50)]], Field(max_length=200)]


class NewUser(Input):
    email: Email
    name: Text
    roles: Held = Field(default_factory=dict)
    """Role names by organization id, or `*` for every organization."""


class UserChange(Input):
    """What is left out stays; of `roles` the organizations that are not named stay."""

    name: Text | None = None
    disabled: bool | None = None
    roles: Held | None = None


class UserShape(Shape):
    email: str
    name: str
    disabled: bool
    roles: dict[str, list[str]]
    """In the organizations whose users the asker manages."""
    has_password: bool
    has_openid: bool
    created_at: datetime


def user_shape(user: User, roles: dict[str, list[str]]) -> UserShape:
    return UserShape(
        email=user.email,
        name=user.name,
        disabled=not user.active,
        roles=roles,
        has_password=user.password_hash is not None,
        has_openid=user.subject is not None,
        created_at=user.created_at,
    )


class CreatedLink(Shape):
    token: str
    """Shown this once: good for one sign-in, also to set a password."""
    expires_at: datetime


class RoleInput(Input):
    description: Annotated[str, StringConstraints(max_length=200)] = ""
    permissions: list[models.Permission]


class RoleShape(Shape):
    name: str
    description: str
    permissions: list[models.Permission]
    built_in: bool


def role_shape(role: Role) -> RoleShape:
    permissions = [models.Permission(permission) for permission in role.permissions]
    built_in = role.name in identity.ROLES
    return RoleShape(name=role.name, description=role.description, permissions=permissions, built_in=built_in)


class NewSession(Input):
    """`email` and `password`, or a `link` (with a `password` to set, or without)."""

    email: Annotated[str, StringConstraints(max_length=254)] | None = None
    password: Password | None = None
    link: Token | None = None

    @model_validator(mode="after")
    def _one_way(self) -> NewSession:
        by_password = self.email is not None and self.password is not None and self.link is None
        by_link = self.link is not None and self.email is None
        if not by_password and not by_link:
            raise ValueError("send email and password, or a link")
        return self


class Setup(Input):
    token: Token
    email: Email
    name: Text
    password: Password


class PasswordChange(Input):
    current: Password
    new: Password


class PersonShape(Shape):
    email: str
    name: str


class CreatedSession(Shape):
    token: str
    """Shown this once: the bearer token of this session."""
    expires_at: datetime
    user: PersonShape


class NewAuthorization(Input):
    redirect_uri: Address
    """The portal's address that the provider sends the browser back to."""
    return_to: Address | None = None
    """A path of the portal, for afterwards."""


class AuthorizationShape(Shape):
    authorization_url: str
    binding: str
    """The portal keeps it in a cookie of this browser: without it nobody can finish."""


class NewOpenIdSession(Input):
    binding: Token
    redirect_uri: Address
    query: Annotated[dict[str, Annotated[str, StringConstraints(max_length=4000)]], Field(max_length=20)]
    """What the provider appended to the redirect address: `code` or `error`, `state`, `iss`."""


class CreatedOpenIdSession(CreatedSession):
    return_to: str | None


class MembershipShape(Shape):
    id: str
    name: str
    permissions: list[models.Permission]


class CurrentSession(Shape):
    user: PersonShape
    platform_admin: bool
    organizations: list[MembershipShape]
    expires_at: datetime


class SessionShape(Shape):
    id: str
    created_at: datetime
    used_at: datetime
    expires_at: datetime
    address: str | None
    agent: str | None
    current: bool


class OpenIdShape(Shape):
    name: str
    """What stands on the button."""


class SignInShape(Shape):
    """What the page for signing in has to offer."""

    oidc: OpenIdShape | None
    setup: bool
    """There is no PlatformAdmin yet who can sign in."""
    password: bool
