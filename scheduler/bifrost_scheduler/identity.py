"""Who is asking, and the one decision whether they may; every door of the control plane asks here.

Pure: a `Principal` is made by whoever checked the credential (`tokens` for keys, the session for people). This module
reads no store and checks no credential. Another organization and an unknown one are the same `NotFound`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import Field

from bifrost_kernel import errors, models

Permission = models.Permission

EVERYWHERE = "*"
"""In roles and grants: every organization."""

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


def user_principal(email: str, *, name: str, roles: Mapping[str, Iterable[str]]) -> Principal:
    """A person with role names by organization; `PlatformAdmin` counts only when it is given for `*`.

    Raises:
        ValidationError: a role is unknown.
    """
    platform_admin = "PlatformAdmin" in roles.get(EVERYWHERE, ())
    grants = {organization: _permissions_of(names) for organization, names in roles.items()}
    return Principal(
        subject=f"user:{email}", kind="user", email=email, name=name, grants=grants, platform_admin=platform_admin
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
    principal: Principal, organization: str, workflow: models.WorkflowMetadata, trigger: models.Trigger
) -> None:
    """Let the principal execute a workflow for an organization (or `GLOBAL`) in this way.

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
    elif principal.kind == "user" and not principal.platform_admin:
        _require_form(workflow, trigger)


def may_decide_approval(principal: Principal, requester: models.Caller) -> bool:
    """Whether this is another one than the requester, also when one person holds both credentials."""
    if principal.subject == requester.subject:
        return False
    if principal.email is None or requester.email is None:
        return True
    return principal.email.casefold() != requester.email.casefold()


def authorize_approval(principal: Principal, organization: str, requester: models.Caller) -> None:
    """Let the principal approve or reject what `requester` asked for.

    Raises:
        NotFound: the organization is not the principal's.
        Forbidden: the permission is missing, or it is the requester himself.
    """
    authorize(principal, Permission.APPROVE_EXECUTIONS, organization)
    if not may_decide_approval(principal, requester):
        raise errors.Forbidden("an execution is approved or rejected by another one than who asked for it")


def organization_not_found(organization: str) -> errors.NotFound:
    """The one text for an organization that is unknown, inactive or somebody else's."""
    return errors.NotFound(f"there is no organization {organization!r}")


def _permissions_of(roles: Iterable[str]) -> frozenset[Permission]:
    names = tuple(roles)
    unknown = sorted(set(names) - set(ROLES))
    if unknown:
        choices = ", ".join(ROLES)
        message = f"unknown role {unknown[0]!r}; there are {choices}"
        raise errors.ValidationError(message, [errors.FieldError("roles", "choice", message)])
    granted: frozenset[Permission] = frozenset()
    return granted.union(*(ROLES[name] for name in names))


def _require_form(workflow: models.WorkflowMetadata, trigger: models.Trigger) -> None:
    if trigger is not models.Trigger.FORM:
        raise errors.Forbidden("only PlatformAdmins execute a workflow directly; use its form")
    if not workflow.expose_in_forms:
        raise errors.Forbidden(f"workflow {workflow.name!r} has no form")
