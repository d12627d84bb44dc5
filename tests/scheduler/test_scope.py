"""The one resolver: organization, then GLOBAL."""

from __future__ import annotations

import pytest

from bifrost_kernel import errors
from bifrost_scheduler import scope


def test_an_organization_falls_back_to_global():
    """The organization is searched first; GLOBAL has nowhere to fall back to."""
    assert scope.search_order("acme") == ("acme", "GLOBAL")
    assert scope.search_order("GLOBAL") == ("GLOBAL",)


@pytest.mark.parametrize("own", ["", 0, False, []])
def test_an_empty_value_of_the_organization_counts(own):
    """Only absence falls through to GLOBAL, a false value does not."""
    assert scope.resolve("acme", {"acme": own, "GLOBAL": "x"}.get) == ("acme", own)


def test_the_scope_of_the_find_is_told():
    """A value of GLOBAL is said to be of GLOBAL; nothing anywhere is None."""
    assert scope.resolve("acme", {"GLOBAL": 1, "beta": 2}.get) == ("GLOBAL", 1)
    assert scope.resolve("acme", {"beta": 2}.get) is None


def test_an_error_is_no_absence():
    """When the organization's own value cannot be read, GLOBAL's is not used instead."""

    def find(where):
        if where == "acme":
            raise errors.Unavailable("down")
        return "global"

    with pytest.raises(errors.Unavailable):
        scope.resolve("acme", find)
