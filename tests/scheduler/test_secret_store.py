"""The contract of `SecretStore`, and what the local one promises of its key and its rows."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bifrost_kernel import errors
from bifrost_scheduler.secret_store.contract import Secret
from bifrost_scheduler.secret_store.local import LocalSecretStore

VALUE = "correct horse battery staple"


@pytest.fixture
def keys_dir(tmp_path):
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture(params=["local"])
def secret_store(request, store, keys_dir):
    return {"local": LocalSecretStore}[request.param](store, keys_dir)


def seal(secret_store, now, secrets, name="graph"):
    return secret_store.seal_connection(
        "acme",
        name,
        secrets,
        updated_by="user:a",
        now=now,
        oauth_flow_type="client_credentials",
        client_id="id",
        scopes=("a",),
    )


# the contract


@pytest.mark.parametrize("value", [VALUE, "ünïcödé–value", "x" * 64 * 1024, "line\nline\n", "12345678"])
def test_a_value_opens_as_it_was_put(secret_store, store, audit, value):
    """Any text of eight characters and up to 64 KB."""
    put = secret_store.put("acme", "token", value, audit=audit)
    assert store.find_secret("acme", "token") == put
    assert secret_store.open(put).reveal() == value
    assert (put.version, put.updated_by, put.updated_at) == (1, audit.actor, audit.at)


@pytest.mark.parametrize(
    "value", ["", "true", "1234567", "   abc    ", 12345678, None, b"12345678", "x" * 65537, "\ud800" * 9]
)
def test_a_value_that_could_not_be_masked_is_refused(secret_store, store, audit, value):
    """The text says which secret and why; nothing is stored."""
    with pytest.raises(errors.ValidationError, match="'token'") as refused:
        secret_store.put("acme", "token", value, audit=audit)
    assert refused.value.fields[0].field == "value"
    assert store.find_secret("acme", "token") is None


def test_each_put_is_a_new_version(secret_store, store, audit):
    """Also after a deletion."""
    secret_store.put("acme", "token", VALUE, audit=audit)
    assert secret_store.put("acme", "token", VALUE, audit=audit).version == 2
    store.delete_secret("acme", "token", audit=audit)
    assert secret_store.put("acme", "token", VALUE, audit=audit).version == 3


def test_concurrent_puts_all_succeed(secret_store, store, audit):
    """Each gets a version of its own, and the last one opens."""
    with ThreadPoolExecutor(4) as pool:
        versions = list(
            pool.map(lambda n: secret_store.put("acme", "t", f"{VALUE} {n}", audit=audit).version, range(12))
        )
    assert sorted(versions) == list(range(1, 13))
    assert secret_store.open(store.find_secret("acme", "t")).reveal().startswith(VALUE)


@pytest.mark.parametrize("moved", [{"scope": "beta"}, {"scope": "GLOBAL"}, {"name": "other"}, {"version": 2}])
def test_a_row_that_was_moved_does_not_open(secret_store, audit, moved):
    """Ciphertext belongs to its scope, name and version."""
    put = secret_store.put("acme", "token", VALUE, audit=audit)
    with pytest.raises(errors.Unavailable):
        secret_store.open(put.model_copy(update=moved))


def test_a_changed_row_does_not_open(secret_store, audit):
    """Not one bit, nor a cut or empty ciphertext."""
    put = secret_store.put("acme", "token", VALUE, audit=audit)
    flipped = put.sealed[:-1] + bytes([put.sealed[-1] ^ 1])
    for sealed in (flipped, put.sealed[:20], put.sealed[:1], b"", b"\xff" + put.sealed[1:]):
        with pytest.raises(errors.Unavailable):
            secret_store.open(put.model_copy(update={"sealed": sealed}))


def test_a_connection_opens_as_it_was_sealed(secret_store, store, audit, now):
    """Its secrets come back; its row holds none of them."""
    connection = seal(secret_store, now, {"client_secret": VALUE, "refresh_token": "r" * 20})
    store.put_connection(connection, audit=audit)
    found = store.find_connection("acme", "graph")
    assert secret_store.open_connection(found) == {"client_secret": VALUE, "refresh_token": "r" * 20}
    assert VALUE.encode() not in found.sealed
    assert seal(secret_store, now, {}).version == 2


def test_a_connection_never_opens_as_a_secret(secret_store, audit, now):
    """The kinds are apart, also with the same scope, name and version."""
    connection = seal(secret_store, now, {"client_secret": VALUE})
    put = secret_store.put("acme", "graph", VALUE, audit=audit)
    with pytest.raises(errors.Unavailable):
        secret_store.open(put.model_copy(update={"sealed": connection.sealed}))
    with pytest.raises(errors.Unavailable):
        secret_store.open_connection(connection.model_copy(update={"sealed": put.sealed}))


def test_fingerprints_tell_values_and_organizations_apart(secret_store):
    """The same value is the same again, and another one under another organization."""
    first = secret_store.value_hmac("acme", VALUE)
    assert first == secret_store.value_hmac("acme", VALUE)
    assert len({first, secret_store.value_hmac("acme", "other"), secret_store.value_hmac("beta", VALUE)}) == 3


def test_a_rotation_keeps_every_value(secret_store, store, audit, now):
    """Everything is sealed anew and opens; rows that were read before still open; fingerprints stay."""
    before = secret_store.put("acme", "token", VALUE, audit=audit)
    store.put_connection(seal(secret_store, now, {"client_secret": VALUE}), audit=audit)
    fingerprint = secret_store.value_hmac("acme", VALUE)
    assert secret_store.rotate(audit=audit) == 2
    after = store.find_secret("acme", "token")
    assert after.sealed[0] != before.sealed[0]
    assert secret_store.open(after).reveal() == secret_store.open(before).reveal() == VALUE
    assert secret_store.open_connection(store.find_connection("acme", "graph")) == {"client_secret": VALUE}
    assert secret_store.value_hmac("acme", VALUE) == fingerprint


# the type


@pytest.mark.parametrize("show", [str, repr, "{}".format, "{:>40}".format, lambda secret: f"{[secret]}"])
def test_a_secret_shows_nothing(show):
    """However it is printed."""
    shown = show(Secret(VALUE))
    assert "***" in shown
    assert VALUE not in shown


def test_a_secret_is_not_serialised():
    """Neither as JSON nor by pickle or copy."""
    with pytest.raises(TypeError):
        json.dumps(Secret(VALUE))
    with pytest.raises(TypeError):
        Secret(VALUE).__reduce__()


# the local key


def test_the_key_is_made_once_and_for_its_owner(secret_store, keys_dir, store, audit):
    """32 bytes, mode 0600, and a second start reads the same."""
    key = keys_dir / "master.key"
    content = key.read_bytes()
    assert (len(content), key.stat().st_mode & 0o777) == (32, 0o600)
    put = secret_store.put("acme", "token", VALUE, audit=audit)
    assert LocalSecretStore(store, keys_dir).open(put).reveal() == VALUE
    assert key.read_bytes() == content


def test_without_its_key_the_store_is_sealed(secret_store, keys_dir, store, audit, now):
    """Every use says so, no new key is made, and with the key back everything opens."""
    put = secret_store.put("acme", "token", VALUE, audit=audit)
    (keys_dir / "master.key").rename(keys_dir / "elsewhere")
    sealed = LocalSecretStore(store, keys_dir)
    for use in (
        sealed.check,
        lambda: sealed.open(put),
        lambda: sealed.put("acme", "new", VALUE, audit=audit),
        lambda: seal(sealed, now, {}),
        lambda: sealed.value_hmac("acme", VALUE),
        lambda: sealed.rotate(audit=audit),
    ):
        with pytest.raises(errors.Unavailable, match=r"master\.key"):
            use()
    assert not (keys_dir / "master.key").exists()
    (keys_dir / "elsewhere").rename(keys_dir / "master.key")
    assert LocalSecretStore(store, keys_dir).open(put).reveal() == VALUE


def test_with_another_key_the_store_is_sealed(secret_store, keys_dir, store, audit):
    """Nothing is written under the wrong key."""
    secret_store.put("acme", "token", VALUE, audit=audit)
    (keys_dir / "master.key").write_bytes(b"\0" * 32)
    sealed = LocalSecretStore(store, keys_dir)
    with pytest.raises(errors.Unavailable, match="does not open"):
        sealed.put("acme", "token", VALUE, audit=audit)


def test_one_damaged_row_does_not_seal_the_store(secret_store, keys_dir, store, audit):
    """The others still open after a restart."""
    secret_store.put("acme", "a-damaged", VALUE, audit=audit)
    good = secret_store.put("acme", "b-good", VALUE, audit=audit)
    row = store.find_secret("acme", "a-damaged")
    store.put_secret(row.model_copy(update={"version": 2, "sealed": b"\x01" + b"\0" * 40}), audit=audit)
    assert LocalSecretStore(store, keys_dir).open(good).reveal() == VALUE


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_can_read_is_refused(secret_store, keys_dir, store, mode):
    """The text says what to do."""
    (keys_dir / "master.key").chmod(mode)
    with pytest.raises(errors.Unavailable, match="chmod 600"):
        LocalSecretStore(store, keys_dir)


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_a_damaged_key_is_refused_and_kept(secret_store, keys_dir, store, content):
    """It is not replaced by a new one."""
    (keys_dir / "master.key").write_bytes(content)
    with pytest.raises(errors.Unavailable, match=r"master\.key"):
        LocalSecretStore(store, keys_dir)
    assert (keys_dir / "master.key").read_bytes() == content


def test_an_interrupted_rotation_is_finished_by_the_next(secret_store, keys_dir, store, audit):
    """A new key without resealed rows loses nothing; rotating again reseals all."""
    put = secret_store.put("acme", "token", VALUE, audit=audit)
    (keys_dir / "master.2.key").write_bytes(b"k" * 32)
    (keys_dir / "master.2.key").chmod(0o600)
    restarted = LocalSecretStore(store, keys_dir)
    assert restarted.open(put).reveal() == VALUE
    assert restarted.rotate(audit=audit) == 1
    assert restarted.open(store.find_secret("acme", "token")).reveal() == VALUE


def test_no_value_stands_in_the_files(secret_store, tmp_path, store, audit, now):
    """Neither database, log nor key folder holds a value in clear."""
    secret_store.put("acme", "token", VALUE, audit=audit)
    store.put_connection(seal(secret_store, now, {"refresh_token": VALUE}), audit=audit)
    files = [path for path in Path(tmp_path).rglob("*") if path.is_file()]
    assert files
    assert not any(VALUE.encode() in path.read_bytes() for path in files)
