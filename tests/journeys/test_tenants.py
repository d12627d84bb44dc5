"""Many customers at once: each gets its own values, and nothing of it appears with another."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.journeys.product import Json, Product

TENANTS = tuple(f"customer-{letter}" for letter in "abcde")
CALLS = 50


def values_of(tenant: str) -> dict[str, str]:
    """What only this organization may see: a config value, a secret and a token."""
    return {
        "config": f"config-value-of-{tenant}",
        "secret": f"secret-value-of-{tenant}-0123456789",
        "token": f"access-token-of-{tenant}-0123456789",
    }


@pytest.fixture(scope="module")
def customers(product: Product) -> tuple[str, ...]:
    """Five organizations with a config value, a secret and a connection of the same names."""
    for tenant in TENANTS:
        product.add_organization(tenant)
        values = values_of(tenant)
        product.put("config/region", tenant, type="string", value=values["config"])
        product.put("secrets/directory_token", tenant, value=values["secret"])
        product.put(
            "connections/HaloPSA",
            tenant,
            oauth_flow_type="client_credentials",
            client_id="client",
            access_token=values["token"],
            expires_at="2099-01-01T00:00:00Z",
        )
    return TENANTS


def test_fifty_calls_of_five_organizations_at_once(product: Product, customers: tuple[str, ...]) -> None:
    """Fifty right answers and fifty records; no value of one organization anywhere in another's."""

    def call(number: int) -> tuple[str, int, httpx.Response]:
        tenant = customers[number % len(customers)]
        return tenant, number, product.run("own_values", tenant, number=number)

    with ThreadPoolExecutor(CALLS) as threads:
        answers = list(threads.map(call, range(CALLS)))

    for tenant, number, answer in answers:
        assert answer.status_code == 200, answer.text
        expected = {"number": number, "organization": tenant, "region": values_of(tenant)["config"]}
        assert answer.json() == expected | {"secret_chars": 37, "token_chars": 37}
    ids = {answer.headers["X-Execution-Id"]: tenant for tenant, _, answer in answers}
    assert len(ids) == CALLS
    for execution_id, tenant in ids.items():
        text = everything_about(product, execution_id)
        shown = {other for other in customers if other in text}
        assert shown == {tenant}
        assert values_of(tenant)["config"] in text
        assert not any(values_of(tenant)[kind] in text for kind in ("secret", "token"))


def test_a_list_holds_only_its_organizations(product: Product, customers: tuple[str, ...]) -> None:
    """Also when another one has run the same workflow in the same moment."""
    for tenant in customers:
        product.run("own_values", tenant, number=0)
    listed: list[Json] = product.executions(org=customers[0])
    assert {execution["organization"] for execution in listed} == {customers[0]}


def everything_about(product: Product, execution_id: str) -> str:
    return f"{product.record(execution_id)} {product.events(execution_id)} {product.execution(execution_id)}"
