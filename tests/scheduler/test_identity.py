"""Who may do what: each rule with its twin from the other organization."""

from __future__ import annotations

import pytest

from bifrost_kernel import errors, models
from bifrost_scheduler import identity
from bifrost_scheduler.identity import Principal

Permission = models.Permission
Trigger = models.Trigger
EXECUTE = frozenset({Permission.EXECUTE_WORKFLOWS, Permission.VIEW_HISTORY})
ADMIN = Principal(subject="user:p@x.com", kind="user", email="p@x.com", platform_admin=True)


def user(**roles):
    return identity.user_principal("a@x.com", name="A", roles={org: (role,) for org, role in roles.items()})


def key(*organizations, **fields):
    return Principal(subject="key:1", kind="key", grants=dict.fromkeys(organizations, EXECUTE), **fields)


def workflow(**fields):
    source = models.Source(file="workflows/w.py")
    return models.WorkflowMetadata(name="w", description="d", source=source, **fields)


@pytest.mark.parametrize("permission", list(Permission))
@pytest.mark.parametrize("role", list(identity.ROLES))
def test_a_role_counts_in_its_organization_alone(role, permission):
    """A role gives what the table says, and the other organization stays unknown."""
    person = user(acme=role)
    if permission in identity.ROLES[role]:
        identity.authorize(person, permission, "acme")
    else:
        with pytest.raises(errors.Forbidden):
            identity.authorize(person, permission, "acme")
    with pytest.raises(errors.NotFound):
        identity.authorize(person, permission, "beta")


def test_a_foreign_organization_reads_like_an_unknown_one():
    """The texts differ in nothing but the name that was asked for."""
    with pytest.raises(errors.NotFound) as refused:
        identity.authorize(user(acme="OrgAdmin"), Permission.VIEW_HISTORY, "beta")
    assert str(refused.value) == str(identity.organization_not_found("beta"))


def test_different_roles_in_two_organizations_do_not_mix():
    """An administrator of one organization is a reader of the other."""
    person = user(acme="OrgAdmin", beta="ReadOnlyUser")
    identity.authorize(person, Permission.MANAGE_SECRETS, "acme")
    with pytest.raises(errors.Forbidden):
        identity.authorize(person, Permission.MANAGE_SECRETS, "beta")
    assert person.organizations == ("acme", "beta")


def test_a_platform_admin_is_one_everywhere_or_nowhere():
    """The role makes a platform administrator when it is given for all organizations, not for one."""
    everywhere = identity.user_principal("p@x.com", name="P", roles={"*": ("PlatformAdmin",)})
    assert everywhere.platform_admin
    assert everywhere.organizations is None
    assert not user(acme="PlatformAdmin").platform_admin


@pytest.mark.parametrize(
    ("deciding", "asking", "made_by", "may"),
    [
        ({"subject": "user:b@x.com", "email": "b@x.com"}, {"subject": "user:a@x.com", "email": "a@x.com"}, None, True),
        ({"subject": "user:A@x.com", "email": "A@x.com"}, {"subject": "user:a@x.com", "email": "a@x.com"}, None, False),
        ({"subject": "key:1", "made_by": "user:a@x.com"}, {"subject": "user:a@x.com"}, None, False),
        ({"subject": "user:a@x.com"}, {"subject": "key:1"}, "user:A@x.com", False),
        ({"subject": "key:1", "made_by": "user:a@x.com"}, {"subject": "key:2"}, "user:a@x.com", False),
        ({"subject": "key:1", "made_by": "user:a@x.com"}, {"subject": "key:2"}, "user:b@x.com", True),
        ({"subject": "key:1", "email": "a@x.com"}, {"subject": "user:a@x.com"}, None, False),
    ],
)
def test_a_person_decides_once_in_whichever_credential(deciding, asking, made_by, may):
    """Approver and requester are two persons; a key is the person who made it."""
    grants = {"acme": frozenset(Permission)}
    principal = Principal(kind="user", grants=grants, **deciding)
    requester = models.Caller(**asking)
    assert identity.may_decide_approval(principal, requester, made_by=made_by) is may


def test_a_key_that_a_key_made_is_still_its_person():
    """However many keys lie between: the person who made the first one stands behind the last one."""
    child = Principal(subject="key:2", kind="key", made_by="user:a@x.com", grants={"acme": frozenset(Permission)})
    with pytest.raises(errors.Forbidden):
        identity.authorize_approval(child, "acme", models.Caller(subject="user:a@x.com"))
    with pytest.raises(errors.NotFound):
        identity.authorize_approval(child, "beta", models.Caller(subject="user:c@x.com"))


def test_nobody_gives_beyond_himself():
    """A grant stays within what its giver holds there; everywhere is for PlatformAdmins, elsewhere is unknown."""
    manager = Principal(
        subject="user:m", kind="user", grants={"acme": frozenset({Permission.MANAGE_USERS, Permission.VIEW_HISTORY})}
    )
    identity.authorize_grant(manager, "acme", [Permission.VIEW_HISTORY])
    for organization, permission, refusal in [
        ("acme", Permission.MANAGE_SECRETS, errors.Forbidden),
        ("*", Permission.VIEW_HISTORY, errors.Forbidden),
        ("beta", Permission.VIEW_HISTORY, errors.NotFound),
    ]:
        with pytest.raises(refusal):
            identity.authorize_grant(manager, organization, [permission])
    identity.authorize_grant(ADMIN, "*", list(Permission))


def test_only_platform_admins_manage_what_is_global():
    """An administrator of all organizations still does not write GLOBAL."""
    identity.authorize(ADMIN, Permission.MANAGE_SECRETS, "GLOBAL")
    everywhere = identity.user_principal("a@x.com", name="A", roles={"*": ("OrgAdmin",)})
    with pytest.raises(errors.Forbidden):
        identity.authorize(everywhere, Permission.MANAGE_SECRETS, "GLOBAL")
    with pytest.raises(errors.NotFound):
        identity.authorize(user(acme="OrgAdmin"), Permission.MANAGE_SECRETS, "GLOBAL")


def test_an_unknown_role_is_refused_with_the_choices():
    """A misspelt role gives nothing silently."""
    with pytest.raises(errors.ValidationError, match="OrgAdmin"):
        user(acme="Boss")


@pytest.mark.parametrize("trigger", [Trigger.API, Trigger.CLI, Trigger.NOTEBOOK, Trigger.RERUN])
def test_people_execute_through_forms(trigger):
    """Only platform administrators execute directly."""
    identity.authorize_execution(ADMIN, "acme", workflow(), trigger)
    identity.authorize_execution(user(acme="WorkflowUser"), "acme", workflow(), Trigger.FORM)
    with pytest.raises(errors.Forbidden):
        identity.authorize_execution(user(acme="OrgAdmin"), "acme", workflow(), trigger)


def test_a_workflow_without_a_form_has_no_form():
    """`expose_in_forms=False` holds for people, whatever they send."""
    with pytest.raises(errors.Forbidden):
        identity.authorize_execution(user(acme="WorkflowUser"), "acme", workflow(expose_in_forms=False), Trigger.FORM)


def test_a_key_executes_its_workflows_in_its_organizations():
    """Another workflow is forbidden, another organization unknown."""
    scoped = key("acme", workflows=("w",))
    identity.authorize_execution(scoped, "acme", workflow(), Trigger.API)
    with pytest.raises(errors.Forbidden):
        identity.authorize_execution(key("acme", workflows=("x",)), "acme", workflow(), Trigger.API)
    with pytest.raises(errors.NotFound):
        identity.authorize_execution(scoped, "beta", workflow(), Trigger.API)


def test_the_required_permission_is_required_besides():
    """A workflow may ask for more than the right to execute; the right to execute is needed in any case."""
    guarded = workflow(required_permission=Permission.MANAGE_SECRETS)
    with pytest.raises(errors.Forbidden, match="canManageSecrets"):
        identity.authorize_execution(key("acme"), "acme", guarded, Trigger.API)
    reader = Principal(subject="key:2", kind="key", grants={"acme": frozenset({Permission.MANAGE_SECRETS})})
    with pytest.raises(errors.Forbidden, match="canExecuteWorkflows"):
        identity.authorize_execution(reader, "acme", guarded, Trigger.API)


@pytest.mark.parametrize("scope", ["*", "GLOBAL"])
def test_a_key_of_all_or_of_global_runs_global_workflows(scope):
    """A key of one organization does not."""
    identity.authorize_execution(key(scope), "GLOBAL", workflow(requires_org=False), Trigger.API)
    with pytest.raises(errors.NotFound):
        identity.authorize_execution(key("acme"), "GLOBAL", workflow(requires_org=False), Trigger.API)


@pytest.mark.parametrize(
    ("requester", "allowed"),
    [
        (models.Caller(subject="user:b@x.com", email="b@x.com"), True),
        (models.Caller(subject="user:a@x.com", email="a@x.com"), False),
        (models.Caller(subject="key:9", email="A@X.com"), False),
        (models.Caller(subject="key:9"), True),
    ],
)
def test_nobody_approves_what_he_asked_for(requester, allowed):
    """The requester is the same person also behind a key that acts as him."""
    approver = user(acme="OrgAdmin")
    assert identity.may_decide_approval(approver, requester) is allowed
    if not allowed:
        with pytest.raises(errors.Forbidden):
            identity.authorize_approval(approver, "acme", requester)


def test_approvals_need_the_permission_in_that_organization():
    """A key may hold it, a user without it may not, and another organization's administrator does not see it."""
    requester = models.Caller(subject="user:b@x.com", email="b@x.com")
    everything = Principal(subject="key:1", kind="key", grants={"acme": frozenset(Permission)})
    for principal in (user(acme="OrgAdmin"), everything):
        identity.authorize_approval(principal, "acme", requester)
    with pytest.raises(errors.Forbidden):
        identity.authorize_approval(user(acme="WorkflowUser"), "acme", requester)
    with pytest.raises(errors.NotFound):
        identity.authorize_approval(user(beta="OrgAdmin"), "acme", requester)


FORM = identity.FormAccess()


def test_a_form_is_for_its_roles_in_that_organization():
    """A role counts where it is held, or held everywhere; PlatformAdmins see every form, keys none with roles."""
    access = [FORM.model_copy(update={"roles": ("OrgAdmin",)})]
    allowed = {
        "acme": user(acme="OrgAdmin"),
        "everywhere": identity.user_principal("e@x.test", name="E", roles={"*": ["OrgAdmin"]}),
        "platform": ADMIN,
    }
    assert all(identity.may_use_form(one, "acme", workflow(), access) for one in allowed.values())
    elsewhere = user(acme="WorkflowUser", globex="OrgAdmin")
    assert not identity.may_use_form(elsewhere, "acme", workflow(), access)
    assert not identity.may_use_form(key("acme"), "acme", workflow(), access)


def test_a_form_is_for_its_organizations_whoever_asks():
    """A value that is bound for one organization reaches no other, by nobody's right."""
    access = [FORM.model_copy(update={"organizations": ("acme",)})]
    platform = ADMIN
    assert identity.may_use_form(platform, "acme", workflow(), access)
    assert not identity.may_use_form(platform, "globex", workflow(), access)


def test_every_limit_of_a_form_holds():
    """Of several limits all have to allow it; one that is switched off allows nobody."""
    one = user(acme="WorkflowUser")
    assert identity.may_use_form(one, "acme", workflow(), [FORM, FORM])
    assert not identity.may_use_form(one, "acme", workflow(), [FORM, FORM.model_copy(update={"enabled": False})])


def test_a_form_needs_the_right_to_execute():
    """What a form allows is still executed: the permissions of the workflow hold, and foreign stays unknown."""
    with pytest.raises(errors.Forbidden):
        identity.may_use_form(user(acme="ReadOnlyUser"), "acme", workflow(), [FORM])
    with pytest.raises(errors.Forbidden):
        identity.may_use_form(
            user(acme="WorkflowUser"), "acme", workflow(required_permission="canManageConfig"), [FORM]
        )
    with pytest.raises(errors.NotFound):
        identity.may_use_form(user(globex="OrgAdmin"), "acme", workflow(), [FORM])


@pytest.mark.parametrize("role", ["OrgAdmin", "WorkflowDeveloper"])
def test_who_manages_schedules_executes_by_them(role):
    """Who manages schedules has workflows run by schedule in his own organization, also such as have no form."""
    person, unseen = user(acme=role), workflow(expose_in_forms=False)
    identity.authorize_execution(person, "acme", unseen, Trigger.SCHEDULE)
    with pytest.raises(errors.Forbidden):
        identity.authorize_execution(person, "acme", unseen, Trigger.API)
    with pytest.raises(errors.NotFound):
        identity.authorize_execution(person, "beta", unseen, Trigger.SCHEDULE)


@pytest.mark.parametrize("caller", [user(acme="WorkflowUser"), user(acme="ReadOnlyUser"), key("acme")])
def test_others_execute_nothing_by_schedule(caller):
    """Without the permission to manage schedules nothing runs by one."""
    with pytest.raises(errors.Forbidden):
        identity.authorize_execution(caller, "acme", workflow(), Trigger.SCHEDULE)
