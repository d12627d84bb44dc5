"""Who is asking, and the one decision whether they may; every door of the control plane asks here.

Pure: a `Principal` is made by whoever checked the credential (`tokens` for keys, the session for people). This module
reads no store and checks no credential. Another organization and an unknown one are the same `NotFound`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import AwareDatetime, Field

from bifrost_kernel import errors, models

Permission = models.Permission

EVERYWHERE = "*"
"""In roles and grants: every organization."""

PLATFORM_ADMIN = "PlatformAdmin"
"""The role that is given for every organization or not at all."""

ROLES: Mapping[str, frozenset[Permission]] = {
    "PlatformAdmin": frozenset(Permission),
    "OrgAdmin": frozenset(Permission),
    "WorkflowDeveloper": frozenset(
        {
            Permission.EXECUTE_WORKFLOWS,
            Permission.MANAGE_CONFIG,
            Permission.MANAGE_FORMS,
            Permission.MANAGE_SCHEDULES,
            Permission.VIEW_HISTORY,
        }
    ),
    "WorkflowUser": frozenset({Permission.EXECUTE_WORKFLOWS, Permission.VIEW_HISTORY}),
    "ReadOnlyUser": frozenset({Permission.VIEW_HISTORY}),
}

_ALLOWED_IN_GLOBAL = frozenset({Permission.EXECUTE_WORKFLOWS, Permission.VIEW_HISTORY})


class Principal(models.Frozen):
    """A checked credential: who it is, and what it may do where."""

    subject: str
    """`user:<email>` or `key:<id>`."""
    kind: Literal["user", "key", "operator", "dev"]
    email: str | None = None
    name: str | None = None
    grants: dict[str, frozenset[Permission]] = Field(default_factory=dict)
    """Permissions by organization id, `GLOBAL`, or `*` for all of them."""
    workflows: tuple[str, ...] | None = None
    """The only workflows that a key may execute; None is any."""
    platform_admin: bool = False
    roles: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Role names of a person by organization id, or `*` for all of them."""
    session_id: str | None = None
    """The session that a person came with."""
    made_by: str | None = None
    """The subject of the person who made a key, or who made the key that made it."""
    expires_at: AwareDatetime | None = None
    """When a key ends; None is never."""

    @property
    def organizations(self) -> tuple[str, ...] | None:
        """The organizations that it may see, sorted; None is every one."""
        if self.platform_admin or EVERYWHERE in self.grants:
            return None
        return tuple(sorted(self.grants))

    @property
    def label(self) -> str:
        """How people know it: in texts and logs."""
        return self.email or self.name or self.subject

    @property
    def caller(self) -> models.Caller:
        return models.Caller(subject=self.subject, email=self.email, name=self.name)

    def permissions_in(self, organization: str) -> frozenset[Permission]:
        if self.platform_admin:
            return frozenset(Permission)
        nothing: frozenset[Permission] = frozenset()
        return self.grants.get(organization, nothing) | self.grants.get(EVERYWHERE, nothing)


class FormAccess(models.Frozen):
    """Whom a form object is for; None is everybody."""

    organizations: tuple[str, ...] | None = None
    roles: tuple[str, ...] | None = None
    enabled: bool = True


def user_principal(
    email: str,
    *,
    name: str,
    roles: Mapping[str, Iterable[str]],
    known: Mapping[str, frozenset[Permission]] = ROLES,
    session_id: str | None = None,
) -> Principal:
    """A person with role names by organization; `PlatformAdmin` counts only when it is given for `*`.

    Args:
        known: the permissions of every role that there is.

    Raises:
        ValidationError: a role is unknown.
    """
    held = {organization: tuple(names) for organization, names in roles.items()}
    return Principal(
        subject=f"user:{email}",
        kind="user",
        email=email,
        name=name,
        grants={organization: permissions_of(names, known=known) for organization, names in held.items()},
        platform_admin=PLATFORM_ADMIN in held.get(EVERYWHERE, ()),
        roles=held,
        session_id=session_id,
    )


def may_see(principal: Principal, organization: str) -> bool:
    """Whether the organization exists at all for this principal."""
    visible = principal.organizations
    return visible is None or organization in visible


def authorize(principal: Principal, permission: Permission, organization: str) -> None:
    """Let the principal use a permission in an organization, or in `GLOBAL`, where only PlatformAdmins manage things.

    Raises:
        NotFound: the organization is not the principal's.
        Forbidden: it is, and the permission is missing there.
    """
    if not may_see(principal, organization):
        raise organization_not_found(organization)
    if permission not in principal.permissions_in(organization):
        raise errors.Forbidden(f"this needs the permission {permission} in {organization}")
    if organization == models.GLOBAL and permission not in _ALLOWED_IN_GLOBAL and not principal.platform_admin:
        raise errors.Forbidden("only PlatformAdmins manage what is GLOBAL")


def authorize_execution(
    principal: Principal,
    organization: str,
    workflow: models.WorkflowMetadata,
    trigger: models.Trigger,
    *,
    through_form: bool = False,
) -> None:
    """Let the principal execute a workflow for an organization (or `GLOBAL`) in this way.

    Args:
        through_form: the inputs are those of a form that `may_use_form` let the principal use.

    People who are no PlatformAdmins come through forms and their schedules only; keys execute directly, within their
    workflows. A schedule takes the permission to manage schedules besides, now as when it was saved.

    Raises:
        NotFound: the organization is not the principal's.
        Forbidden: a permission, the workflow or the way in is not the principal's.
    """
    authorize(principal, Permission.EXECUTE_WORKFLOWS, organization)
    if workflow.required_permission not in principal.permissions_in(organization):
        raise errors.Forbidden(
            f"workflow {workflow.name!r} needs the permission {workflow.required_permission} in {organization}"
        )
    if principal.workflows is not None and workflow.name not in principal.workflows:
        raise errors.Forbidden(f"this key may not execute workflow {workflow.name!r}")
    if trigger is models.Trigger.SCHEDULE:
        authorize(principal, Permission.MANAGE_SCHEDULES, organization)
    elif through_form or trigger is models.Trigger.FORM:
        _require_exposed(principal, workflow)
    else:
        require_direct_execution(principal)


def needs_form(principal: Principal) -> bool:
    """Whether this is a person who executes nothing but by a form."""
    return principal.kind == "user" and not principal.platform_admin


def require_direct_execution(principal: Principal) -> None:
    """
    Raises:
        Forbidden: it is a person who is no PlatformAdmin.
    """
    if needs_form(principal):
        raise errors.Forbidden("only PlatformAdmins execute a workflow directly; use its form")


def may_use_form(
    principal: Principal, organization: str, workflow: models.WorkflowMetadata, access: Iterable[FormAccess]
) -> bool:
    """Whether a form of this workflow is there for the principal, for whom it is also to be executed.

    A form that is limited to organizations is for them alone, whoever asks; roles don't limit PlatformAdmins.

    Raises:
        NotFound: the organization is not the principal's.
        Forbidden: it may not execute the workflow there.
    """
    authorize_execution(principal, organization, workflow, models.Trigger.FORM, through_form=True)
    return all(_is_for(principal, organization, one) for one in access)


def is_for_organization(access: FormAccess, organization: str) -> bool:
    """Whether a form is there in this organization, for anybody."""
    return access.enabled and (access.organizations is None or organization in access.organizations)


def manages_forms(principal: Principal, organization: str) -> bool:
    """Whether it may know what forms bind there, and why one is broken."""
    return may_see(principal, organization) and Permission.MANAGE_FORMS in principal.permissions_in(organization)


def _is_for(principal: Principal, organization: str, access: FormAccess) -> bool:
    if not is_for_organization(access, organization):
        return False
    if access.roles is None or principal.platform_admin:
        return True
    held = {*principal.roles.get(organization, ()), *principal.roles.get(EVERYWHERE, ())}
    return not held.isdisjoint(access.roles)


def may_decide_approval(principal: Principal, requester: models.Caller, *, made_by: str | None = None) -> bool:
    """Whether this is another one than the requester: no person stands behind both credentials.

    Args:
        made_by: of a requesting key, who made it.
    """
    deciding = _persons(principal.subject, principal.email, principal.made_by)
    asking = _persons(requester.subject, requester.email, made_by)
    return deciding.isdisjoint(asking)


def authorize_approval(
    principal: Principal, organization: str, requester: models.Caller, *, made_by: str | None = None
) -> None:
    """Let the principal approve or reject what `requester` asked for.

    Args:
        made_by: of a requesting key, who made it.

    Raises:
        NotFound: the organization is not the principal's.
        Forbidden: the permission is missing, or it is the requester himself, in whichever credential.
    """
    authorize(principal, Permission.APPROVE_EXECUTIONS, organization)
    if not may_decide_approval(principal, requester, made_by=made_by):
        raise errors.Forbidden("an execution is approved or rejected by another one than who asked for it")


def authorize_grant(principal: Principal, organization: str, permissions: Iterable[Permission]) -> None:
    """Let the principal give, or take, these permissions in an organization, or in `*`: never more than it holds.

    Raises:
        NotFound: the organization is not the principal's.
        Forbidden: it does not manage users there, or lacks one of the permissions itself.
    """
    if organization == EVERYWHERE:
        if not principal.platform_admin:
            raise errors.Forbidden("only PlatformAdmins give roles in every organization")
        return
    authorize(principal, Permission.MANAGE_USERS, organization)
    missing = sorted(set(permissions) - principal.permissions_in(organization))
    if missing:
        raise errors.Forbidden(f"nobody gives or takes what he lacks himself: {', '.join(missing)} in {organization}")


def require_whole_principal(principal: Principal) -> None:
    """Refuse keys that are narrowed to workflows or to a time: what they made would be wider, or outlive them.

    Raises:
        Forbidden: it is such a key.
    """
    if principal.workflows is not None or principal.expires_at is not None:
        raise errors.Forbidden("a key that expires, or is limited to workflows, manages no people")


def organization_not_found(organization: str) -> errors.NotFound:
    """The one text for an organization that is unknown, inactive or somebody else's."""
    return errors.NotFound(f"there is no organization {organization!r}")


def permissions_of(
    roles: Iterable[str], *, known: Mapping[str, frozenset[Permission]] = ROLES
) -> frozenset[Permission]:
    """What these roles give together.

    Raises:
        ValidationError: a role is unknown.
    """
    names = tuple(roles)
    unknown = sorted(set(names) - set(known))
    if unknown:
        message = f"unknown role {unknown[0]!r}; there are {', '.join(known)}"
        raise errors.ValidationError(message, [errors.FieldError("roles", "choice", message)])
    granted: frozenset[Permission] = frozenset()
    return granted.union(*(known[name] for name in names))


def _persons(subject: str, email: str | None, made_by: str | None) -> frozenset[str]:
    """Every name under which whoever is behind a credential may appear."""
    names = (subject, made_by, None if email is None else f"user:{email}")
    return frozenset(name.casefold() for name in names if name is not None)


def _require_exposed(principal: Principal, workflow: models.WorkflowMetadata) -> None:
    if needs_form(principal) and not workflow.expose_in_forms:
        raise errors.Forbidden(f"workflow {workflow.name!r} has no form")
