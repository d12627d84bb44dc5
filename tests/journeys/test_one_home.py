"""A home belongs to one control plane, and without `--dev` nothing in it is open."""

from __future__ import annotations

import httpx
import pytest

from tests.journeys.product import MakeProduct, Product


def test_a_second_control_plane_on_the_same_home_ends(product: Product) -> None:
    """With an error that says why and what to do; the first one goes on."""
    with product.launch() as second:
        printed, _ = second.communicate(timeout=30)
    assert second.returncode == 1
    assert f"already running on {product.home}" in printed
    assert "Traceback" not in printed
    assert product.http.get("/api/health").status_code == 200


def test_a_taken_port_is_said(product: Product, new_product: MakeProduct) -> None:
    """Not a traceback, and no process that stays."""
    with new_product(port=product.http.base_url.port).launch() as second:
        printed, _ = second.communicate(timeout=30)
    assert second.returncode == 1
    assert "is taken; choose another with --port" in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize(("wrong", "said"), [({"host": "0.0.0.0"}, "--host 127.0.0.1"), ({"port": 70000}, "port")])
def test_wrong_settings_are_refused(new_product: MakeProduct, wrong: dict[str, object], said: str) -> None:
    """`--dev` anywhere but on loopback among them."""
    with new_product(**wrong).launch() as refused:
        printed, _ = refused.communicate(timeout=30)
    assert refused.returncode == 2
    assert said in printed


@pytest.fixture
def closed(new_product: MakeProduct) -> Product:
    """A product as it is installed: without `--dev`."""
    return new_product(dev=False).start()


def test_without_dev_nothing_is_open(closed: Product) -> None:
    """No known key, no organization, no metrics without a key; only health and the documentation answer."""
    address = str(closed.http.base_url)
    for headers in ({}, {"x-functions-key": "test"}, {"x-functions-key": ""}, {"Authorization": "Bearer test"}):
        for path in ("/api/workflows", "/api/executions", "/api/organizations", "/api/keys", "/api/audit", "/metrics"):
            assert httpx.get(address + path, headers=headers).status_code == 401, (path, headers)
        call = httpx.post(f"{address}/api/workflows/leave", json={}, headers=headers)
        assert call.status_code == 401
    assert httpx.get(f"{address}/api/health").json()["status"] == "ok"


def test_the_operators_key_is_his_alone(closed: Product) -> None:
    """It is in a file that only the owner of the home can read, opens the metrics, and is another one after a start."""
    path = closed.home / "keys" / "operator.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert closed.home.stat().st_mode & 0o777 == 0o700
    old = {"x-functions-key": path.read_text()}
    assert closed.http.get("/metrics", headers=old).status_code == 200
    assert closed.http.get("/api/organizations", headers=old).json()["items"] == []
    closed.stop()
    closed.start()
    assert closed.http.get("/metrics", headers=old).status_code == 401


def test_a_page_on_the_internet_cannot_reach_it(product: Product) -> None:
    """A name that was rebound to this address is no Host of ours."""
    answer = product.http.get("/api/workflows", headers={"Host": "attacker.example"})
    assert answer.status_code in (400, 403, 421)
