"""What every store promises about people and sessions; each store runs through all of it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from bifrost_kernel import errors
from bifrost_scheduler.store.people_contract import Role, User
from bifrost_scheduler.store.session_contract import Allowance, Authorization, Link, Session


@pytest.fixture
def ada(store, now, audit):
    """A user who is there, as the store gives him back."""
    user = User(email="ada@example.com", name="Ada", roles={"acme": ("OrgAdmin",)}, created_at=now)
    store.create_user(user, audit=audit)
    return store.find_user("ada@example.com")


@pytest.fixture
def new_session(now):
    def make(user, id_="s1", **fields):
        given = {"created_at": now, "used_at": now, "expires_at": now + timedelta(hours=12), "epoch": user.epoch}
        return Session(**{"id": id_, "sha256": f"hash-{id_}", "email": user.email, **given, **fields})

    return make


# users


def test_a_user_keeps_every_field(store, now, audit, ada):
    """What was written comes back, as version 1."""
    whole = {"password_hash": "$argon2id$", "issuer": "https://i", "subject": "s", "roles": {"*": ("X",)}, "epoch": 3}
    changed = store.change_user(ada.model_copy(update=whole), audit=audit)
    assert (ada.version, changed.version) == (1, 2)
    assert store.find_user(ada.email) == changed == ada.model_copy(update={**whole, "version": 2})
    assert store.find_user_of("https://i", "s") == changed
    assert store.find_user_of("https://other", "s") is None


def test_a_user_is_made_once(store, now, audit, ada):
    """A taken email is a conflict without an entry."""
    with pytest.raises(errors.Conflict, match="ada@example"):
        store.create_user(ada, audit=audit)
    assert len(store.list_ledger()) == 1


def test_a_user_changes_as_he_was_read(store, audit, ada):
    """Of two who read the same version one writes; the other one is told, and nothing of his is left."""
    store.change_user(ada.model_copy(update={"name": "One"}), audit=audit)
    for act in (
        lambda: store.change_user(ada.model_copy(update={"name": "Two"}), audit=audit),
        lambda: store.delete_user(ada.email, version=ada.version, audit=audit),
    ):
        with pytest.raises(errors.Conflict, match="changed meanwhile"):
            act()
    assert (store.find_user(ada.email).name, len(store.list_ledger())) == ("One", 2)


def test_unknown_users(store, audit, ada):
    """Who is not there is neither changed nor removed."""
    nobody = ada.model_copy(update={"email": "nobody@example.com"})
    for act in (
        lambda: store.change_user(nobody, audit=audit),
        lambda: store.delete_user("nobody@example.com", version=1, audit=audit),
    ):
        with pytest.raises(errors.NotFound):
            act()


def test_users_are_listed_by_email(store, now, audit):
    """All, or those with a role in one organization; `*` is no organization."""
    for name, roles in {"b": {"acme": ("R",)}, "a": {"acme": ("R",), "beta": ("R",)}, "c": {"*": ("R",)}}.items():
        store.create_user(User(email=name, name=name, roles=roles, created_at=now), audit=audit)
    assert [one.email for one in store.list_users()] == ["a", "b", "c"]
    assert [one.email for one in store.list_users(organization="acme")] == ["a", "b"]
    assert [one.email for one in store.list_users(organization="acme", after="a")] == ["b"]
    assert store.list_users(organization="acme' OR 1") == []


def test_an_account_of_a_provider_is_one_persons(store, now, audit, ada):
    """A second user with the same account is a conflict."""
    mine = {"issuer": "https://i", "subject": "s"}
    store.change_user(ada.model_copy(update=mine), audit=audit)
    with pytest.raises(errors.Conflict):
        store.create_user(User(email="eve@example.com", name="Eve", created_at=now, **mine), audit=audit)


def test_the_last_administrator(store, now, audit, ada):
    """The last active PlatformAdmin stays one; others come and go."""
    boss = User(email="boss@example.com", name="B", roles={"*": ("Other", "PlatformAdmin")}, created_at=now)
    store.create_user(boss, audit=audit)
    boss = store.find_user(boss.email)
    for change in ({"active": False}, {"roles": {"*": ("Other",)}}, {"roles": {"acme": ("PlatformAdmin",)}}):
        with pytest.raises(errors.Conflict, match="last active PlatformAdmin"):
            store.change_user(boss.model_copy(update=change), audit=audit)
    with pytest.raises(errors.Conflict):
        store.delete_user(boss.email, version=boss.version, audit=audit)
    assert [one.email for one in store.list_admins()] == [boss.email]
    store.change_user(ada.model_copy(update={"roles": {"*": ("PlatformAdmin",)}}), audit=audit)
    store.delete_user(boss.email, version=boss.version, audit=audit)


# roles


def test_roles(store, now, audit, ada):
    """A role is replaced as a whole, and removed when nobody has it."""
    store.put_role(Role(name="Two", permissions=("canViewHistory",)), audit=audit)
    store.put_role(Role(name="Two", description="d", permissions=()), audit=audit)
    assert list(store.list_roles()) == [store.find_role("Two")] == [Role(name="Two", description="d", permissions=())]
    held = store.change_user(ada.model_copy(update={"roles": {"acme": ("OrgAdmin", "Two")}}), audit=audit)
    with pytest.raises(errors.Conflict, match="ada@example"):
        store.delete_role("Two", audit=audit)
    store.change_user(held.model_copy(update={"roles": {}}), audit=audit)
    store.delete_role("Two", audit=audit)
    with pytest.raises(errors.NotFound):
        store.delete_role("Two", audit=audit)


# sessions


def test_a_session_keeps_every_field(store, audit, ada, new_session):
    """A session is found by its hash and by its id."""
    session = new_session(ada, address="192.0.2.1", agent="Browser")
    store.open_session(session, audit=[audit, audit])
    assert store.find_session("hash-s1") == store.find_session_by_id("s1") == session
    assert (store.find_session("s1"), len(store.list_ledger())) == (None, 3)


@pytest.mark.parametrize("change", [{"epoch": 5}, {"email": "nobody@example.com"}])
def test_no_session_of_another_epoch(store, audit, ada, new_session, change):
    """A session of a user who has changed, or is not there, does not begin."""
    with pytest.raises(errors.Unauthorized):
        store.open_session(new_session(ada, **change), audit=[audit])
    assert store.find_session("hash-s1") is None


@pytest.mark.parametrize(("change", "left"), [({"name": "B"}, 2), ({"epoch": 1}, 0), ({"active": False}, 0)])
def test_what_ends_with_a_change(store, now, audit, ada, new_session, change, left):
    """Another epoch, and being inactive, end sessions and links; another name does not."""
    for id_ in ("s1", "s2"):
        store.open_session(new_session(ada, id_), audit=[audit])
    link = Link(sha256="l", kind="sign_in", email=ada.email, created_at=now, expires_at=now + timedelta(hours=1))
    store.put_link(link, audit=audit)
    store.change_user(ada.model_copy(update=change), audit=audit)
    assert len(store.list_sessions(ada.email, now=now, used_after=now - timedelta(hours=1))) == left
    assert (store.find_link("l") is None) is (left == 0)


def test_a_session_that_goes_on(store, now, audit, ada, new_session):
    """The one that is kept moves to the new epoch."""
    for id_ in ("s1", "s2"):
        store.open_session(new_session(ada, id_), audit=[audit])
    store.change_user(ada.model_copy(update={"epoch": 1}), keep="s2", audit=audit)
    assert (store.find_session_by_id("s1"), store.find_session_by_id("s2").epoch) == (None, 1)


def test_living_sessions_are_listed(store, now, audit, ada, new_session):
    """Neither one that is over nor one that lay idle, nor another's; those that are over go with the next sign-in."""
    store.open_session(new_session(ada, "over", expires_at=now + timedelta(minutes=1)), audit=[audit])
    store.open_session(new_session(ada, "idle", used_at=now - timedelta(hours=2)), audit=[audit])
    store.open_session(new_session(ada, "alive"), audit=[audit])
    later, since = now + timedelta(minutes=2), now - timedelta(hours=1)
    assert [one.id for one in store.list_sessions(ada.email, now=later, used_after=since)] == ["alive"]
    assert store.list_sessions(ada.email, now=later, used_after=since, after="alive") == []
    store.open_session(new_session(ada, "later", created_at=later), audit=[audit])
    assert store.find_session_by_id("over") is None


def test_a_touched_session(store, now, audit, ada, new_session):
    """The last use is remembered; a session that ended is not found."""
    store.open_session(new_session(ada), audit=[audit])
    store.touch_session("s1", now + timedelta(minutes=5))
    store.check()
    assert store.find_session_by_id("s1").used_at == now + timedelta(minutes=5)
    store.end_session("s1", audit=audit)
    with pytest.raises(errors.NotFound):
        store.end_session("s1", audit=audit)


def test_a_link_is_used_up_with_all_that_it_leads_to(store, now, audit, ada, new_session):
    """Link, changed user and session are one transaction: when one fails, nothing happened."""
    link = Link(sha256="l", kind="sign_in", email=ada.email, created_at=now, expires_at=now + timedelta(hours=1))
    store.put_link(link, audit=audit)
    changed = ada.model_copy(update={"epoch": 1, "password_hash": "h"})
    stale = changed.model_copy(update={"version": 7})
    with pytest.raises(errors.Conflict):
        store.open_session(new_session(changed), user=stale, link="l", audit=[audit])
    assert (store.find_link("l"), store.find_user(ada.email)) == (link, ada)
    store.open_session(new_session(changed), user=changed, link="l", audit=[audit])
    with pytest.raises(errors.Unauthorized):
        store.open_session(new_session(changed, "s2"), link="l", audit=[audit])


def test_a_new_user_begins_with_a_session(store, now, audit, new_session):
    """Version 0 is somebody who is not there yet."""
    new = User(email="new@example.com", name="New", created_at=now)
    store.open_session(new_session(new), user=new, audit=[audit])
    assert store.find_user("new@example.com").version == 1


def test_the_last_link_counts(store, now, audit, ada):
    """A link takes the place of those before it, of its own kind and person."""
    for sha256, kind, email in [("a", "sign_in", ada.email), ("b", "setup", ""), ("c", "sign_in", ada.email)]:
        fields = {"sha256": sha256, "kind": kind, "email": email}
        store.put_link(Link(created_at=now, expires_at=now + timedelta(hours=1), **fields), audit=audit)
    assert [store.find_link(sha256) is not None for sha256 in "abc"] == [False, True, True]


# attempts and authorizations


def test_attempts(store, now):
    """The fullest bucket decides, and says when; a refused attempt counts nowhere; time empties them."""
    one, both = Allowance(bucket="a", limit=2, window_seconds=60), Allowance(bucket="b", limit=9, window_seconds=60)
    assert [store.take_attempt([one, both], now=now) for _ in range(2)] == [None, None]
    assert store.take_attempt([one, both], now=now + timedelta(seconds=59)) == now + timedelta(seconds=60)
    store.return_attempt(["a"])
    assert store.take_attempt([one], now=now) is None
    store.return_attempt([], cleared=["a"])
    assert [store.take_attempt([one], now=now) for _ in range(2)] == [None, None]
    assert store.take_attempt([one], now=now + timedelta(seconds=60)) is None


def test_an_authorization_is_taken_once(store, now):
    """A state is given once, over or not; those that are over go with the next one."""
    fields = {"binding_sha256": "b", "redirect_uri": "http://x", "return_to": "/", "created_at": now}
    first, second = (Authorization(state_sha256=name, expires_at=now, **fields) for name in ("one", "two"))
    store.put_authorization(first)
    assert [store.take_authorization("one"), store.take_authorization("one")] == [first, None]
    store.put_authorization(first)
    store.put_authorization(second)
    assert [store.take_authorization(name) for name in ("one", "two")] == [None, second]
