"""The contract of `Store`: every implementation passes this file unchanged."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from bifrost_kernel import errors, models
from bifrost_scheduler import ledger
from bifrost_scheduler.store import contract

Status = models.ExecutionStatus


def organization(key, now, **fields):
    return contract.Organization(id=key, name=key.title(), created_at=now, **fields)


def api_key(key, now, organizations=("acme",)):
    return contract.ApiKey(
        id=key,
        name=key,
        sha256="aa",
        organizations=organizations,
        workflows=None,
        permissions=("canExecuteWorkflows",),
        created_by="user:admin@example.com",
        created_at=now,
    )


def secret(version, now, scope="acme", name="token", sealed=b"sealed"):
    return contract.SealedSecret(
        scope=scope, name=name, version=version, sealed=sealed, updated_at=now, updated_by="user:a"
    )


def connection(version, now, scope="acme", name="graph"):
    return contract.Connection(
        scope=scope,
        name=name,
        version=version,
        oauth_flow_type="client_credentials",
        client_id="id",
        scopes=("a", "b"),
        sealed=b"sealed",
        updated_at=now,
        updated_by="user:a",
    )


def outcome(now, status=Status.SUCCESS, **fields):
    return contract.Outcome(status=status, completed_at=now, **fields)


def finish(store, execution, now, status=Status.SUCCESS, **fields):
    return store.finish_execution(
        execution.id, fence=execution.fence, outcome=outcome(now, status, **fields), record_sha256="ab" * 32
    )


# life


def test_a_working_store_says_so(store):
    """`check` passes on a store that reads and writes, and counts as a commit like any other."""
    store.check()
    assert store.has_committed_within(60)
    assert not store.has_committed_within(0)


def test_a_closed_store_is_unavailable(open_store):
    """After `close`, reading and writing are refused with a retry, never with an error of the database."""
    store = open_store()
    store.close()
    store.close()
    with pytest.raises(errors.Unavailable):
        store.find_organization("acme")
    with pytest.raises(errors.Unavailable):
        store.check()
    assert not store.has_committed_within(60)


def test_what_was_written_is_there_after_a_restart(open_store, now, audit):
    """A row outlives the process that wrote it."""
    first = open_store()
    first.create_organization(organization("acme", now, tenant_id="t"), audit=audit)
    first.close()
    second = open_store()
    assert second.find_organization("acme") == organization("acme", now, tenant_id="t")
    second.close()


# organizations and people


def test_an_organization_id_is_taken_once(store, now, audit):
    """A second organization of the same id is a conflict, and leaves no audit entry."""
    store.create_organization(organization("acme", now), audit=audit)
    with pytest.raises(errors.Conflict, match="acme"):
        store.create_organization(organization("acme", now), audit=audit)
    assert len(store.list_ledger()) == 1


def test_an_organization_is_switched_off_and_on(store, now, audit):
    """`change_organization` answers with the changed row; an unknown id is not found."""
    store.create_organization(organization("acme", now), audit=audit)
    off = contract.OrganizationChange(active=False)
    assert store.change_organization("acme", off, audit=audit).active is False
    assert store.find_organization("acme").active is False
    with pytest.raises(errors.NotFound):
        store.change_organization("nobody", off, audit=audit)


def test_an_organization_keeps_its_list_of_hosts(store, now, audit):
    """A change touches what it names: the list alone, or its end; another organization's stays."""
    for id_ in ("acme", "other"):
        store.create_organization(organization(id_, now), audit=audit)
    store.change_organization("acme", contract.OrganizationChange(egress=("a.example",)), audit=audit)
    off = store.change_organization("acme", contract.OrganizationChange(active=False), audit=audit)
    assert (off.active, off.egress) == (False, ("a.example",))
    assert store.change_organization("acme", contract.OrganizationChange(egress=()), audit=audit).egress == ()
    assert store.change_organization("acme", contract.OrganizationChange(egress=None), audit=audit).egress is None
    assert store.find_organization("other").egress is None


def test_organizations_are_listed_by_id_in_pages(store, now, audit):
    """A page begins after the last id of the page before."""
    for key in ("cc", "aa", "bb"):
        store.create_organization(organization(key, now), audit=audit)
    assert [one.id for one in store.list_organizations(limit=2)] == ["aa", "bb"]
    assert [one.id for one in store.list_organizations(after="bb")] == ["cc"]


def test_a_key_keeps_every_field(store, now, audit):
    """A key comes back as it was created, None for every organization included."""
    key = api_key("k1", now, None).model_copy(update={"expires_at": now, "acts_as": "a@example.com"})
    store.create_key(key, audit=audit)
    assert store.find_key("k1") == key


def test_keys_of_one_organization_are_those_scoped_to_it(store, now, audit):
    """Keys of another organization, and platform keys of all, are not an organization's to list."""
    for key, organizations in (("k1", ("acme", "beta")), ("k2", ("beta",)), ("k3", None)):
        store.create_key(api_key(key, now, organizations), audit=audit)
    assert [key.id for key in store.list_keys(organization="acme")] == ["k1"]
    assert [key.id for key in store.list_keys()] == ["k1", "k2", "k3"]


def test_a_deleted_key_is_gone(store, now, audit):
    """Deleting twice is not found."""
    store.create_key(api_key("k1", now), audit=audit)
    store.delete_key("k1", audit=audit)
    assert store.find_key("k1") is None
    with pytest.raises(errors.NotFound):
        store.delete_key("k1", audit=audit)


def test_the_last_use_of_a_key_is_kept_once_a_minute(store, now, audit):
    """A use within the minute is not written; one after it is."""
    store.create_key(api_key("k1", now), audit=audit)
    store.touch_key("k1", now)
    store.touch_key("k1", now + timedelta(seconds=30))
    store.check()
    assert store.find_key("k1").last_used_at == now
    store.touch_key("k1", now + timedelta(seconds=61))
    store.check()
    assert store.find_key("k1").last_used_at == now + timedelta(seconds=61)


# config, secrets, connections


def test_config_is_replaced_and_deleted_within_its_scope(store, now, audit):
    """The same key in another scope is another entry."""
    for scope in ("acme", "GLOBAL"):
        entry = contract.ConfigEntry(
            scope=scope, key="size", type="int", value="1", updated_at=now, updated_by="user:a"
        )
        store.put_config(entry, audit=audit)
        store.put_config(entry.model_copy(update={"value": "2"}), audit=audit)
    store.delete_config("acme", "size", audit=audit)
    assert store.find_config("acme", "size") is None
    assert [entry.value for entry in store.list_config("GLOBAL")] == ["2"]
    with pytest.raises(errors.NotFound):
        store.delete_config("acme", "size", audit=audit)


def test_a_secret_version_follows_the_last(store, now, audit):
    """Only the next version is taken; the older ciphertext is replaced."""
    store.put_secret(secret(1, now), audit=audit)
    with pytest.raises(errors.Conflict):
        store.put_secret(secret(1, now, sealed=b"other"), audit=audit)
    with pytest.raises(errors.Conflict):
        store.put_secret(secret(3, now), audit=audit)
    store.put_secret(secret(2, now, sealed=b"new"), audit=audit)
    assert store.find_secret("acme", "token") == secret(2, now, sealed=b"new")
    assert len(store.list_secrets("acme")) == 1


def test_secret_versions_never_repeat(store, now, audit):
    """After a deletion the count goes on, so that deleted ciphertext can never stand in for new."""
    store.put_secret(secret(1, now), audit=audit)
    store.delete_secret("acme", "token", audit=audit)
    assert store.find_secret("acme", "token") is None
    assert store.next_secret_version("acme", "token") == 2
    assert store.next_secret_version("beta", "token") == 1


def test_two_writers_of_one_secret_do_not_both_win(store, now, audit):
    """Of eight threads that seal the same next version one succeeds, the others see a conflict."""

    def put(number):
        try:
            store.put_secret(secret(1, now, sealed=bytes([number])), audit=audit)
        except errors.Conflict:
            return 0
        return 1

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(put, range(8))) == 1


def test_a_connection_is_changed_from_what_was_read(store, now, audit):
    """A connection that somebody else has changed meanwhile is a conflict, also for a first one."""
    store.put_connection(connection(1, now), audit=audit)
    with pytest.raises(errors.Conflict):
        store.put_connection(connection(1, now), audit=audit)
    changed = connection(2, now).model_copy(update={"status": "needs_authorization", "expires_at": now})
    store.put_connection(changed, audit=audit)
    assert store.find_connection("acme", "graph") == changed
    assert store.list_connections("acme") == [changed]
    store.delete_connection("acme", "graph", audit=audit)
    assert store.next_connection_version("acme", "graph") == 3


def test_scopes_that_hold_something_sealed_are_known(store, now, audit):
    """Secrets and connections count, each scope once."""
    store.put_secret(secret(1, now, scope="beta"), audit=audit)
    store.put_connection(connection(1, now, scope="beta"), audit=audit)
    store.put_connection(connection(1, now, scope="GLOBAL"), audit=audit)
    assert store.list_sealed_scopes() == ["GLOBAL", "beta"]


# data providers


def test_options_are_found_while_they_are_fresh(store, now):
    """An answer made before `not_before` is not used, nor one of another organization or code."""
    key = contract.OptionsKey(organization="acme", provider="licenses", inputs_sha256="i", code_hash="c")
    cached = contract.CachedOptions(options=(models.Option(label="E5", value=5, metadata={"a": 1}),), cached_at=now)
    store.put_options(key, cached)
    assert store.find_options(key, not_before=now) == cached
    assert store.find_options(key, not_before=now + timedelta(seconds=1)) is None
    assert store.find_options(key.model_copy(update={"organization": "beta"}), not_before=now) is None
    assert store.find_options(key.model_copy(update={"code_hash": "d"}), not_before=now) is None


# submitting


def test_a_submitted_execution_waits_with_its_first_event(store, submit, now):
    """The row comes back as it was given, with one status event."""
    execution = submit(parameters={"list": [1, None, "ü"]})
    assert store.find_execution(execution.id) == execution
    (event,) = store.list_events(execution.id)
    assert (event.seq, event.at, event.body) == (1, now, {"status": "pending"})


def test_a_full_queue_refuses_one_organization_only(store, submit, new_execution):
    """The limit counts what waits in this organization; approvals do not count."""
    submit()
    submit(status=Status.AWAITING_APPROVAL)
    store.submit_execution(new_execution(), queue_limit=2)
    with pytest.raises(errors.TooManyRequests, match="organization_queue_limit"):
        store.submit_execution(new_execution(), queue_limit=2)
    store.submit_execution(new_execution(organization="beta"), queue_limit=2)


def test_an_idempotency_key_makes_one_execution(store, new_execution, now):
    """The same key and body give the same execution, another body is a conflict."""
    key = contract.Idempotency(credential="key:1", key="once", body_sha256="body")
    first = store.submit_execution(new_execution(), idempotency=key, queue_limit=1)
    second = store.submit_execution(new_execution(), idempotency=key, queue_limit=1)
    assert (first.replayed, second.replayed) == (False, True)
    assert second.execution.id == first.execution.id
    assert store.find_replay("acme", "hello_world", key, now=now).id == first.execution.id
    other = key.model_copy(update={"body_sha256": "other"})
    with pytest.raises(errors.Conflict):
        store.submit_execution(new_execution(), idempotency=other, queue_limit=9)
    with pytest.raises(errors.Conflict):
        store.find_replay("acme", "hello_world", other, now=now)


@pytest.mark.parametrize(
    "difference", [{"organization": "beta"}, {"workflow": "other"}, {"credential": "key:2"}, {"age": -24 * 3600}]
)
def test_an_idempotency_key_is_of_its_credential_organization_workflow_and_day(store, new_execution, difference):
    """The same text used elsewhere, or a day later, is a new submit."""
    key = contract.Idempotency(credential="key:1", key="once", body_sha256="body")
    store.submit_execution(new_execution(), idempotency=key, queue_limit=9)
    credential = difference.pop("credential", "key:1")
    again = store.submit_execution(
        new_execution(**difference), idempotency=key.model_copy(update={"credential": credential}), queue_limit=9
    )
    assert again.replayed is False


def test_a_hundred_submits_with_one_idempotency_key_make_one_execution(store, new_execution):
    """Concurrency makes no second one."""
    key = contract.Idempotency(credential="key:1", key="once", body_sha256="body")

    def submit_once(_):
        return store.submit_execution(new_execution(), idempotency=key, queue_limit=999).execution.id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(submit_once, range(100)))) == 1


def test_a_refused_submit_leaves_nothing(store, new_execution):
    """No row, no event and no idempotency key remains of it."""
    key = contract.Idempotency(credential="key:1", key="once", body_sha256="body")
    refused = new_execution()
    with pytest.raises(errors.TooManyRequests):
        store.submit_execution(refused, idempotency=key, queue_limit=0)
    assert store.find_execution(refused.id) is None
    assert store.list_events(refused.id) == []
    assert store.submit_execution(new_execution(), idempotency=key, queue_limit=1).replayed is False


# claiming


def test_a_claim_runs_the_oldest_with_a_fence_and_a_lease(store, submit, claim, now):
    """The claimed row says who runs it, since when and until when; the next claim takes the next."""
    old, young = submit(age=2), submit(age=1)
    claimed = claim(owner="runner-1")
    assert (claimed.id, claimed.status, claimed.owner) == (old.id, Status.RUNNING, "runner-1")
    assert (claimed.started_at, claimed.lease_until) == (now, now + timedelta(seconds=10))
    assert claimed == store.find_execution(old.id)
    assert store.list_events(old.id)[-1].body == {"status": "running"}
    second = claim()
    assert second.id == young.id
    assert second.fence != claimed.fence
    assert claim() is None


def test_claims_are_fair_between_organizations(submit, claim):
    """A long queue of one organization does not hold up the others."""
    for age in range(100, 90, -1):
        submit(age=age, organization="big")
    submit(age=5, organization="small")
    submit(age=4, organization="tiny")
    assert [claim().organization for _ in range(5)] == ["big", "small", "tiny", "big", "big"]


def test_an_organization_at_its_limit_waits(store, submit, claim, now):
    """What is over the limit stays pending until one of the organization's executions ends."""
    for _ in range(3):
        submit()
    first, second = claim(organization_limit=2), claim(organization_limit=2)
    assert second is not None
    assert claim(organization_limit=2) is None
    finish(store, first, now)
    assert claim(organization_limit=2) is not None


def test_eight_threads_claim_two_hundred_rows_once_each(submit, claim):
    """No execution is claimed twice, and none is left."""
    wanted = {submit(organization=f"org-{number % 7}").id for number in range(200)}

    def drain(_):
        claimed = []
        while (execution := claim(organization_limit=1000)) is not None:
            claimed.append(execution.id)
        return claimed

    with ThreadPoolExecutor(8) as pool:
        claimed = [one for ids in pool.map(drain, range(8)) for one in ids]
    assert len(claimed) == 200
    assert set(claimed) == wanted


def test_a_waiting_approval_is_not_claimed(submit, claim):
    """`awaiting_approval` never runs."""
    submit(status=Status.AWAITING_APPROVAL)
    assert claim() is None


def test_lost_executions_are_those_of_others_whose_lease_is_over(store, submit, claim, now):
    """A renewed lease, and one's own executions, are not lost."""
    for _ in range(3):
        submit()
    lost, mine, renewed = claim(owner="a"), claim(owner="b"), claim(owner="c")
    later = now + timedelta(seconds=11)
    store.renew_leases(owner="c", until=later)
    assert [one.id for one in store.list_lost(owner="b", now=later)] == [lost.id]
    assert store.list_lost(owner="b", now=now) == []
    assert {one.id for one in store.list_running()} == {lost.id, mine.id, renewed.id}


# finishing


def test_a_finish_writes_status_event_and_ledger_together(store, submit, claim, now):
    """The row has its outcome, the last event its status, the ledger the hash of its record."""
    submit()
    running = claim()
    later = now + timedelta(seconds=2)
    done = finish(store, running, later, Status.FAILED, error="boom", error_type="ValueError", error_details=[1])
    assert done == store.find_execution(running.id)
    assert (done.status, done.error, done.error_type, done.error_details) == (Status.FAILED, "boom", "ValueError", [1])
    assert (done.duration_ms, done.lease_until) == (2000, None)
    assert store.list_events(done.id)[-1].body == {"status": "failed"}
    entry = store.find_ledger_of(done.id)
    assert entry == store.find_ledger_head()
    assert entry.execution_id == done.id
    for part in (done.id, "acme", "hello_world", "key:1", "failed", "ab" * 32):
        assert part in entry.body


@pytest.mark.parametrize("result", [None, 0, False, "", [], {"success": False, "n": [1.5, "ü\ud800"]}])
def test_a_result_comes_back_as_it_was(store, submit, claim, now, result):
    """Falsy results are results; a lone surrogate, which UTF-8 has no form for, becomes a question mark."""
    submit()
    done = finish(store, claim(), now, result=result)
    expected = {"success": False, "n": [1.5, "ü?"]} if isinstance(result, dict) else result
    assert store.find_execution(done.id).result == expected


def test_a_final_status_never_changes(store, submit, claim, now):
    """The second finish is a conflict, whatever it says."""
    submit()
    running = claim()
    finish(store, running, now)
    with pytest.raises(errors.Conflict):
        finish(store, running, now, Status.FAILED)
    with pytest.raises(errors.Conflict):
        store.finish_execution(running.id, fence=None, outcome=outcome(now, Status.CANCELLED), record_sha256=None)
    assert store.find_execution(running.id).status is Status.SUCCESS
    assert len(store.list_ledger()) == 1


def test_only_the_claim_that_runs_it_may_finish(store, submit, claim, now):
    """Another fence, or none, does not end a running execution; an unknown one is not found."""
    submit()
    running = claim()
    for fence in ("another", None):
        with pytest.raises(errors.Conflict):
            store.finish_execution(running.id, fence=fence, outcome=outcome(now), record_sha256=None)
    with pytest.raises(errors.NotFound):
        store.finish_execution("nothing", fence=None, outcome=outcome(now), record_sha256=None)


@pytest.mark.parametrize("status", [Status.PENDING, Status.AWAITING_APPROVAL])
def test_what_never_ran_is_finished_without_a_fence(store, submit, claim, now, status):
    """A cancelled or rejected execution has its ledger entry, and is not claimed any more."""
    waiting = submit(status=status)
    done = store.finish_execution(
        waiting.id, fence=None, outcome=outcome(now, Status.CANCELLED), record_sha256="cd" * 32
    )
    assert (done.status, done.duration_ms) == (Status.CANCELLED, None)
    assert store.find_ledger_of(waiting.id) is not None
    assert claim() is None


def test_finish_and_cancel_in_a_race_have_one_winner(store, submit, claim, now):
    """Of a claim and a cancel of the same waiting execution exactly one succeeds, twenty times over."""

    def cancel(execution):
        try:
            store.finish_execution(execution.id, fence=None, outcome=outcome(now, Status.CANCELLED), record_sha256=None)
        except errors.Conflict:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        for _ in range(20):
            waiting = submit()
            cancelled, claimed = pool.submit(cancel, waiting), pool.submit(claim, organization_limit=99)
            assert cancelled.result() != (claimed.result() is not None)


def test_a_cancel_is_noted_once_and_not_after_the_end(store, submit, claim, now, audit):
    """The first who asks is kept; a final execution is returned unchanged, without an audit entry."""
    submit()
    running = claim()
    assert store.request_cancel(running.id, by="user:a", audit=audit).cancel_requested_by == "user:a"
    assert store.request_cancel(running.id, by="user:b", audit=audit).cancel_requested_by == "user:a"
    done = finish(store, running, now)
    entries = len(store.list_ledger())
    assert store.request_cancel(done.id, by="user:c", audit=audit) == done
    assert len(store.list_ledger()) == entries
    with pytest.raises(errors.NotFound):
        store.request_cancel("nothing", by="user:a", audit=audit)


# approving


def test_an_approval_makes_it_pending(store, submit, claim, audit):
    """The approver is kept, the event written, and the execution can be claimed."""
    waiting = submit(status=Status.AWAITING_APPROVAL, approval_hash="seen")
    approved = store.approve_execution(waiting.id, by="user:b", approval_hash="seen", audit=audit)
    assert (approved.status, approved.approved_by) == (Status.PENDING, "user:b")
    assert [event.body["status"] for event in store.list_events(waiting.id)] == ["awaiting_approval", "pending"]
    assert claim().id == waiting.id


def test_an_approval_is_of_what_was_seen_and_given_once(store, submit, audit):
    """Another hash is a conflict, and so is the second approval."""
    waiting = submit(status=Status.AWAITING_APPROVAL, approval_hash="seen")
    with pytest.raises(errors.Conflict):
        store.approve_execution(waiting.id, by="user:b", approval_hash="other", audit=audit)
    store.approve_execution(waiting.id, by="user:b", approval_hash="seen", audit=audit)
    with pytest.raises(errors.Conflict):
        store.approve_execution(waiting.id, by="user:b", approval_hash="seen", audit=audit)


# events


def test_events_count_from_one_without_gaps_under_concurrency(store, submit, claim, now):
    """Eight threads append; every seq is given once, and each event stands at its own."""
    submit()
    running = claim()

    def append(number):
        return number, store.append_event(
            running.id, fence=running.fence, type=models.EventType.LOG, body={"n": number}, at=now
        )

    with ThreadPoolExecutor(8) as pool:
        given = {seq: number for number, seq in pool.map(append, range(160))}
    events = store.list_events(running.id)
    assert [event.seq for event in events] == list(range(1, 163))
    assert {event.seq: event.body["n"] for event in events[2:]} == given


def test_events_need_the_fence_of_the_running_claim(store, submit, claim, now):
    """Before the claim, under another fence, and after the end nothing is appended."""
    execution = submit()
    log = {"type": models.EventType.LOG, "body": {}, "at": now}
    with pytest.raises(errors.Conflict):
        store.append_event(execution.id, fence="", **log)
    running = claim()
    with pytest.raises(errors.Conflict):
        store.append_event(running.id, fence="other", **log)
    finish(store, running, now)
    with pytest.raises(errors.Conflict):
        store.append_event(running.id, fence=running.fence, **log)


def test_events_are_read_on_from_the_last_seen(store, submit, claim, now):
    """`after` and `limit` cut the list, in order."""
    submit()
    running = claim()
    for _ in range(3):
        store.append_event(running.id, fence=running.fence, type=models.EventType.LOG, body={}, at=now)
    assert [event.seq for event in store.list_events(running.id, after=2, limit=2)] == [3, 4]


# history


def test_history_is_newest_first_in_pages_of_the_organizations_asked_for(store, submit):
    """A page ends where the next begins; what belongs to another organization is not there."""
    acme = [submit(age=age).id for age in (5, 3, 1)]
    beta = [submit(age=age, organization="beta").id for age in (4, 2)]
    newest_first = sorted(acme + beta, reverse=True)

    def page(**fields):
        return [one.id for one in store.list_executions(contract.ExecutionFilter(**fields))]

    assert page(organizations=("acme",)) == acme[::-1]
    assert page(organizations=("acme", "beta"), limit=3) == newest_first[:3]
    assert page(organizations=("beta", "acme"), before=newest_first[2]) == newest_first[3:]
    assert page(organizations=None) == newest_first
    assert page(organizations=()) == []


def test_history_filters_by_each_field_alone_and_together(store, submit, claim, now):
    """Status, workflow, caller by subject or email, time and text each narrow the list, in one and in all scopes."""
    person = models.Caller(subject="user:a@example.com", email="a@example.com")
    old = submit(age=3600)
    failed = finish(store, claim(), now, Status.FAILED, error="Disk FULL_100% of x")
    other = submit(age=10, workflow="audit", caller=person, parameters={"q": 'say "ünder"'})
    assert failed.id == old.id
    for organizations in (("acme",), None, ("acme", "beta")):

        def page(organizations=organizations, **fields):
            wanted = contract.ExecutionFilter(organizations=organizations, **fields)
            return [one.id for one in store.list_executions(wanted)]

        assert page(status=Status.FAILED) == [old.id]
        assert page(workflow="audit") == [other.id]
        assert page(workflow="audit", status=Status.FAILED) == []
        assert page(workflow="audit", status=Status.PENDING) == [other.id]
        assert page(caller="a@example.com") == page(caller="user:a@example.com") == [other.id]
        assert page(caller="key:1", status=Status.FAILED) == [old.id]
        assert page(since=now - timedelta(seconds=60)) == [other.id]
        assert page(until=now - timedelta(seconds=60)) == [old.id]
        assert page(since=now - timedelta(seconds=3600), until=now - timedelta(seconds=10)) == [old.id]
        assert page(text="full_100%") == [old.id]
        assert page(text="full?100%") == []
        assert page(text='"Ünder"'.replace("Ü", "ü")) == [other.id]
        assert page(text="AUDIT") == [other.id]


@pytest.mark.parametrize("odd", ["\ud800", "a\x00b", "x" * 10_000, "' OR 1=1 --", "../../etc"])
def test_an_id_of_any_shape_is_simply_not_there(store, odd):
    """Whatever text is asked for, the answer is nothing and no error."""
    assert store.find_execution(odd) is None
    assert store.find_organization(odd) is None
    assert store.find_key(odd) is None
    assert store.list_events(odd, after=2**70) == []
    assert store.list_executions(contract.ExecutionFilter(organizations=(odd,), before=odd)) == []


def test_active_executions_are_counted_by_status(store, submit, claim, now):
    """What is final does not count."""
    submit(), submit(), submit(), submit(status=Status.AWAITING_APPROVAL)
    finish(store, claim(), now)
    claim()
    assert store.count_active() == {"pending": 1, "awaiting_approval": 1, "running": 1}


# ledger


def test_every_act_has_its_entry_in_the_same_transaction(store, now, audit):
    """An act that fails leaves no entry; each that succeeds leaves exactly one, in order."""
    store.create_organization(organization("acme", now), audit=audit)
    with pytest.raises(errors.NotFound):
        store.delete_secret("acme", "nothing", audit=audit)
    store.append_audit(audit.model_copy(update={"action": "access.denied", "details": {"why": "x"}}))
    entries = store.list_ledger()
    assert [entry.seq for entry in entries] == [1, 2]
    assert '"action":"access.denied"' in entries[1].body
    assert ledger.verify(store) is None
    assert [entry.seq for entry in store.list_ledger(after=1)] == [2]


def test_the_chain_holds_under_concurrency(store, audit):
    """Eight threads that append at once make one unbroken chain."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store.append_audit(audit), range(100)))
    assert store.find_ledger_head().seq == 100
    assert ledger.verify(store) is None
