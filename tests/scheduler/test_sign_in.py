"""Signing in beneath the API: set-up, links, limits over restarts, many at once, and what the database holds."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from bifrost_kernel import errors
from bifrost_scheduler import passwords as rules
from bifrost_scheduler import services as composition
from bifrost_scheduler import sessions
from bifrost_scheduler.identity import Principal
from bifrost_scheduler.passwords import Passwords
from bifrost_scheduler.people import People
from bifrost_scheduler.sessions import Sessions, Source
from bifrost_scheduler.settings import Settings
from bifrost_scheduler.sign_in import Limits, SignIn
from bifrost_scheduler.store import contract
from bifrost_scheduler.store.people_contract import User

OPERATOR = Principal(subject="user:operator", kind="operator", name="Operator", platform_admin=True)
HERE = Source(address="192.0.2.1", agent="Browser")
PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def hasher() -> Iterator[Passwords]:
    made = Passwords()
    yield made
    made.close()


@pytest.fixture
def build(hasher: Passwords) -> Callable[..., SignIn]:
    """Signing in over a store, as a start builds it."""

    def make(store: contract.Store, *, has_openid: bool = False, **limits: int) -> SignIn:
        living = Sessions(store, lifetime=timedelta(hours=12), idle=timedelta(hours=1))
        return SignIn(store, living, hasher, Limits(**{"account": 3, "address": 5, **limits}), has_openid=has_openid)

    return make


@pytest.fixture
def ways(build: Callable[..., SignIn], store: contract.Store) -> SignIn:
    return build(store)


@pytest.fixture
def people(store: contract.Store) -> People:
    return People(store)


def set_up(ways: SignIn, now: datetime, email: str = "boss@example.com", **fields: Any) -> Any:
    opening = ways.opening(OPERATOR, email=None, now=now)
    assert opening is not None
    return ways.set_up(opening.token, HERE, email=email, name="Boss", password=PASSWORD, now=now, **fields)


# set-up


def test_the_first_administrator(ways: SignIn, store: contract.Store, now: datetime) -> None:
    """The set-up token makes a PlatformAdmin who is signed in; afterwards there is no set-up any more."""
    assert ways.is_unset()
    assert set_up(ways, now).email == "boss@example.com"
    assert store.find_user("boss@example.com").roles == {"*": ("PlatformAdmin",)}
    assert ways.opening(OPERATOR, email=None, now=now) is None
    assert ways.with_password("boss@example.com", PASSWORD, HERE, now=now).name == "Boss"


def test_a_set_up_token_is_good_for_once(ways: SignIn, now: datetime) -> None:
    """Used, too old, from before the last start, or a link instead: refused."""
    earlier = ways.opening(OPERATOR, email=None, now=now)
    opening = ways.opening(OPERATOR, email=None, now=now)
    fields: dict[str, Any] = {"email": "boss@example.com", "name": "Boss", "password": PASSWORD}
    for token, at in [
        (earlier.token, now),
        (opening.token, now + timedelta(hours=24)),
        ("bfl_" + "x" * 43, now),
    ]:
        with pytest.raises(errors.Unauthorized):
            ways.set_up(token, HERE, now=at, **fields)
    ways.set_up(opening.token, HERE, now=now, **fields)
    with pytest.raises(errors.Unauthorized):
        ways.set_up(opening.token, HERE, now=now, **fields)


def test_set_up_ends_when_somebody_can_sign_in(
    ways: SignIn, people: People, store: contract.Store, now: datetime
) -> None:
    """A token that is still good is worth nothing once there is an administrator with a password."""
    opening = ways.opening(OPERATOR, email=None, now=now)
    people.create_user(OPERATOR, email="other@example.com", name="Other", roles={"*": ["PlatformAdmin"]})
    token, _ = people.make_link(OPERATOR, "other@example.com")
    assert ways.is_unset()
    ways.with_link(token, HERE, password=PASSWORD, now=datetime.now(UTC))
    with pytest.raises(errors.Unauthorized):
        ways.set_up(opening.token, HERE, email="boss@example.com", name="B", password=PASSWORD, now=now)
    assert store.find_user("boss@example.com") is None


def test_set_up_of_somebody_who_is_there(ways: SignIn, people: People, store: contract.Store, now: datetime) -> None:
    """Who was made on the command line before is set up as himself."""
    people.create_user(OPERATOR, email="boss@example.com", name="B", roles={"*": ["PlatformAdmin", "ReadOnlyUser"]})
    set_up(ways, now)
    assert store.find_user("boss@example.com").roles == {"*": ("PlatformAdmin", "ReadOnlyUser")}


def test_a_weak_password_leaves_the_token(ways: SignIn, now: datetime) -> None:
    """A refused password uses nothing up."""
    opening = ways.opening(OPERATOR, email=None, now=now)
    fields: dict[str, Any] = {"email": "boss@example.com", "name": "Boss", "now": now}
    for weak in ("short", "x" * 257, "boss@example.com"):
        with pytest.raises(errors.ValidationError):
            ways.set_up(opening.token, HERE, password=weak, **fields)
    ways.set_up(opening.token, HERE, password=PASSWORD, **fields)


def test_an_openid_provider_is_a_way_in(
    build: Callable[..., SignIn], people: People, store: contract.Store, now: datetime
) -> None:
    """An administrator who comes from the provider needs no set-up; no administrator still does."""
    ways = build(store, has_openid=True)
    assert ways.is_unset()
    people.create_user(OPERATOR, email="boss@example.com", name="B", roles={"*": ["PlatformAdmin"]})
    assert not ways.is_unset()


# the last administrator


@pytest.mark.parametrize(
    "act",
    [
        lambda people: people.delete_user(OPERATOR, "boss@example.com"),
        lambda people: people.change_user(OPERATOR, "boss@example.com", active=False),
        lambda people: people.change_user(OPERATOR, "boss@example.com", roles={"*": []}),
        lambda people: people.change_user(OPERATOR, "boss@example.com", roles={"*": ["OrgAdmin"]}),
    ],
)
def test_the_last_administrator_stays(
    ways: SignIn, people: People, store: contract.Store, now: datetime, act: Callable[[People], None]
) -> None:
    """The last active PlatformAdmin is neither removed, switched off nor demoted; the last but one is."""
    set_up(ways, now)
    people.create_user(OPERATOR, email="off@example.com", name="Off", roles={"*": ["PlatformAdmin"]})
    people.change_user(OPERATOR, "off@example.com", active=False)
    before, ledger = store.find_user("boss@example.com"), len(store.list_ledger())
    with pytest.raises(errors.Conflict, match="last active PlatformAdmin"):
        act(people)
    assert (store.find_user("boss@example.com"), len(store.list_ledger())) == (before, ledger)
    people.change_user(OPERATOR, "off@example.com", active=True)
    act(people)


# limits


def test_limits_survive_a_restart(
    build: Callable[..., SignIn], open_store: Callable[[], contract.Store], now: datetime
) -> None:
    """Failures are counted in the store: a restart gives nobody another try before the time is over."""
    for fails in (errors.Unauthorized, errors.TooManyRequests):
        opened = open_store()
        for _ in range(3):
            with pytest.raises(fails):
                build(opened).with_password("a@example.com", "wrong", HERE, now=now)
        opened.close()
    opened = open_store()
    with pytest.raises(errors.Unauthorized):
        build(opened).with_password("a@example.com", "wrong", HERE, now=now + timedelta(minutes=15))
    opened.close()


def test_an_address_is_limited(ways: SignIn, now: datetime) -> None:
    """Many accounts from one address, or from one IPv6 network, are many attempts; other addresses go on."""
    for source in (HERE, Source(address="2001:db8::1")):
        for number in range(5):
            with pytest.raises(errors.Unauthorized):
                ways.with_password(f"{source.address}-{number}", "wrong", source, now=now)
    for source in (HERE, Source(address="2001:db8::ffff:2")):
        with pytest.raises(errors.TooManyRequests) as refused:
            ways.with_password("another", "wrong", source, now=now + timedelta(minutes=5))
        assert refused.value.retry_after_seconds == 600
    for other in (Source(address="192.0.2.2"), Source(address="2001:db8:0:1::1")):
        with pytest.raises(errors.Unauthorized):
            ways.with_password("another-one", "wrong", other, now=now)


def test_many_at_once_are_as_many_as_one_after_another(ways: SignIn, now: datetime) -> None:
    """Attempts that run at the same time don't get beyond the limit."""

    def attempt(_: int) -> str:
        try:
            ways.with_password("a@example.com", "wrong", HERE, now=now)
        except errors.BifrostError as error:
            return error.code
        return "in"

    with ThreadPoolExecutor(8) as pool:
        codes = sorted(pool.map(attempt, range(8)))
    assert codes == ["TooManyRequests"] * 5 + ["Unauthorized"] * 3


def test_a_link_survives_two_who_use_it_at_once(ways: SignIn, people: People, now: datetime) -> None:
    """One of two who come with the same link gets in."""
    people.create_user(OPERATOR, email="a@example.com", name="A", roles={})
    token, _ = people.make_link(OPERATOR, "a@example.com")
    barrier = threading.Barrier(2)

    def attempt(_: int) -> bool:
        barrier.wait()
        try:
            ways.with_link(token, HERE, password=None, now=datetime.now(UTC))
        except errors.Unauthorized:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(attempt, range(2))) == [False, True]


# passwords


def test_too_many_hashes_wait_elsewhere() -> None:
    """Whoever finds every place for a hash taken is told to come back; nobody waits in line without an end."""
    made = Passwords(threads=1, waiting=1)
    codes: list[str] = []

    def verify(_: int) -> None:
        try:
            made.verify(None, "x")
        except errors.Unavailable as error:
            codes.append(error.code)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(verify, range(16)))
    made.close()
    assert codes


def test_a_password_is_argon2id(hasher: Passwords) -> None:
    """Hashes are argon2id, each with a salt of its own, and a damaged one is nobody's."""
    one, two = hasher.hash(PASSWORD), hasher.hash(PASSWORD)
    assert one.startswith("$argon2id$v=19$m=47104,t=1,p=1$")
    assert one != two
    assert hasher.verify(one, PASSWORD)
    assert [hasher.verify(stored, PASSWORD) for stored in (None, "", "x", one[:-5] + "aaaaa")] == [False] * 4


@pytest.mark.parametrize("password", ["", "x" * 11, "x" * 257, "ada.lovelace@example.com", "ADA.LOVELACE@example.com"])
def test_passwords_that_are_refused(password: str) -> None:
    """Too short, too long, or the email in any case."""
    with pytest.raises(errors.ValidationError):
        rules.check(password, email="ada.lovelace@example.com")
    rules.check("пароль, длинный", email="ada.lovelace@example.com")


# what is stored, what is said


def test_nothing_in_clear(ways: SignIn, people: People, store: contract.Store, tmp_path: Path, now: datetime) -> None:
    """Neither database nor audit holds a password, a link or a token, also not one that was typed as the email."""
    begun = set_up(ways, now)
    link, _ = people.make_link(OPERATOR, "boss@example.com")
    typed = "my secret passphrase"
    for email, password in (("boss@example.com", "wrong horse battery"), (typed, "x")):
        with pytest.raises(errors.Unauthorized):
            ways.with_password(email, password, HERE, now=now)
    store.check()
    held = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for secret in (PASSWORD, begun.token, link, "wrong horse battery", typed):
        assert secret.encode() not in held


def test_the_audit_of_signing_in(ways: SignIn, store: contract.Store, now: datetime) -> None:
    """Each sign-in and each failure is one entry, with the address and the reason."""
    set_up(ways, now)
    store.create_user(User(email="off@example.com", name="O", active=False, created_at=now), audit=_any(now))
    for email in ("boss@example.com", "off@example.com", "nobody@example.com"):
        with pytest.raises(errors.Unauthorized):
            ways.with_password(email, "wrong", HERE, now=now)
    bodies = [json.loads(entry.body) for entry in store.list_ledger()]
    assert [(one["target"], one["details"]["reason"]) for one in bodies if one["action"] == "session.refuse"] == [
        ("boss@example.com", "password"),
        ("off@example.com", "disabled"),
        (None, "unknown"),
    ]
    assert {one["address"] for one in bodies if one["action"].startswith("session.")} == {"192.0.2.1"}


def test_an_enabled_person_does_not_find_old_sessions(
    ways: SignIn, people: People, store: contract.Store, now: datetime
) -> None:
    """What ended with being disabled or deleted stays ended when the person comes back."""
    living = Sessions(store, lifetime=timedelta(hours=12), idle=timedelta(hours=1))
    set_up(ways, now)
    people.create_user(OPERATOR, email="a@example.com", name="A", roles={})
    for leave, come_back in [
        (
            lambda: people.change_user(OPERATOR, "a@example.com", active=False),
            lambda: people.change_user(OPERATOR, "a@example.com", active=True),
        ),
        (
            lambda: people.delete_user(OPERATOR, "a@example.com"),
            lambda: people.create_user(OPERATOR, email="a@example.com", name="A", roles={}),
        ),
    ]:
        token, _ = people.make_link(OPERATOR, "a@example.com")
        begun = ways.with_link(token, HERE, password=None, now=datetime.now(UTC))
        assert living.find_principal(begun.token, now=datetime.now(UTC)) is not None
        leave()
        come_back()
        assert living.find_principal(begun.token, now=datetime.now(UTC)) is None


def test_a_home_that_was_in_development(tmp_path: Path) -> None:
    """The first start without --dev takes the well-known password and every session that came by it."""
    chosen = {"home": tmp_path / "home", "workspace": tmp_path / "workspace", "lab": False, "portal": False, "port": 0}
    (tmp_path / "workspace").mkdir()
    now = datetime.now(UTC)
    developing = composition.build(Settings(dev=True, **chosen))
    begun = developing.sign_in.with_password("dev@example.com", "test", HERE, now=now)
    opening = developing.opening()
    assert (opening.kind, developing.sign_in.is_unset()) == ("sign_in", False)
    developing.stop()
    serious = composition.build(Settings(dev=False, **chosen))
    with pytest.raises(errors.Unauthorized):
        serious.sign_in.with_password("dev@example.com", "test", HERE, now=now)
    with pytest.raises(errors.Unauthorized):
        serious.sign_in.with_link(opening.token, HERE, password=None, now=now)
    with pytest.raises(errors.Unauthorized):
        serious.authenticator.authenticate(begun.token)
    assert serious.opening().kind == "setup"
    serious.stop()


# whose address it is


def test_only_the_portal_names_addresses(client: Callable[..., httpx.Client], control_plane: Any) -> None:
    """`X-Forwarded-For` counts beside the portal's own key, when it is an address, and for nobody else."""
    control_plane.services.accept_portal("the portal's key")
    store = control_plane.services.store
    for portal, forwarded, address in [
        ("the portal's key", "203.0.113.9", "203.0.113.9"),
        ("the portal's key", "2001:db8::9", "2001:db8::9"),
        ("the portal's key", "203.0.113.9, 10.0.0.1", "127.0.0.1"),
        ("another key", "203.0.113.9", "127.0.0.1"),
        (None, "203.0.113.9", "127.0.0.1"),
    ]:
        headers = {"X-Forwarded-For": forwarded, **({"X-Bifrost-Portal": portal} if portal else {})}
        client(None, **headers).post("/api/sessions", json={"email": "nobody@x.example.com", "password": "x"})
        client("test", **headers).get("/api/workflows").raise_for_status()
        bodies = [json.loads(entry.body) for entry in store.list_ledger(limit=1_000_000)]
        assert [one["address"] for one in bodies if one.get("action") == "session.refuse"][-1] == address


def test_the_portals_key_opens_nothing(client: Callable[..., httpx.Client], control_plane: Any) -> None:
    """The portal's key is no credential."""
    control_plane.services.accept_portal("the portal's key")
    for headers in ({"X-Bifrost-Portal": "the portal's key"}, {"x-functions-key": "the portal's key"}):
        assert client(None, **headers).get("/api/workflows").status_code == 401


def _any(now: datetime) -> contract.AuditEntry:
    return contract.AuditEntry(at=now, actor="user:operator", action="test.act")


def test_a_session_by_its_id(ways: SignIn, store: contract.Store, now: datetime) -> None:
    """Whoever vouches for a session's id gets its person with the rights of now, while it lives."""
    living = Sessions(store, lifetime=timedelta(hours=12), idle=timedelta(hours=1))
    token = set_up(ways, now).token
    session = store.find_session(sessions.sha256(token))
    assert living.find_principal_by_id(session.id, now=now).platform_admin
    assert living.find_principal_by_id("nothing", now=now) is None
    assert living.find_principal_by_id(session.id, now=now + timedelta(hours=1)) is None
