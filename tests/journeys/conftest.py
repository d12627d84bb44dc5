"""What the journeys share: one running product for those that only use it, and new ones for those that kill it."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.journeys.product import MakeProduct, Product

WORKSPACE = Path(__file__).parent / "workspace"
_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A product that every journey may use, and none may stop."""
    with _products(tmp_path_factory.mktemp("shared")) as make:
        yield make().start()


@pytest.fixture
def new_product(tmp_path: Path) -> Iterator[MakeProduct]:
    """Makes products of the test's own, each on a home of its own; not started yet."""
    with _products(tmp_path) as make:
        yield make


@pytest.fixture(scope="module")
def make_product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeProduct]:
    """The same for a product that the tests of one module share."""
    with _products(tmp_path_factory.mktemp("products")) as make:
        yield make


@contextlib.contextmanager
def _products(folder: Path) -> Iterator[MakeProduct]:
    products: list[Product] = []

    def make(**settings: object) -> Product:
        own = folder / f"product-{len(products)}"
        shutil.copytree(WORKSPACE, own / "workspace")
        # Many workflows here leave traces in files of the test's, which at level full they could not reach.
        products.append(Product(own, own / "workspace", **{"grace_seconds": 1, "sandbox": "reduced", **settings}))
        return products[-1]

    yield make
    for made in products:
        made.close()


@pytest.fixture
def organization(product: Product) -> str:
    """A tenant of the test's own in the shared product."""
    return product.add_organization(f"tenant-{next(_NUMBERS)}")


@pytest.fixture
def save(product: Product) -> Iterator[Callable[[str, str], Path]]:
    """Save a file into the shared product's workspace; it is removed afterwards."""
    saved: list[Path] = []

    def write(relative: str, text: str) -> Path:
        path = product.workspace / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        saved.append(path)
        return path

    yield write
    for path in saved:
        path.unlink(missing_ok=True)
