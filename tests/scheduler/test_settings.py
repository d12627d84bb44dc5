"""Settings: environment, limits, and the folders of the home."""

from __future__ import annotations

import re
from pathlib import Path

import pydantic
import pytest

from bifrost_scheduler.settings import Settings, is_loopback, prepare_home


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(f"BIFROST_{name.upper()}", raising=False)


def test_the_environment_is_read(monkeypatch):
    """Lists are comma-separated, paths absolute."""
    monkeypatch.setenv("BIFROST_PORT", "7072")
    monkeypatch.setenv("BIFROST_HOME", "~/elsewhere")
    monkeypatch.setenv("BIFROST_EGRESS_ALLOW", "127.0.0.1:8080, [::1]:9000")
    monkeypatch.setenv("BIFROST_ALLOWED_HOSTS", "bifrost.example.com")
    settings = Settings()
    assert settings.port == 7072
    assert settings.home == Path.home() / "elsewhere"
    assert settings.egress_allow == ("127.0.0.1:8080", "[::1]:9000")
    assert settings.allowed_hosts == ("bifrost.example.com",)


def test_what_is_given_wins_over_the_environment(monkeypatch):
    """The command line is the last word."""
    monkeypatch.setenv("BIFROST_PORT", "7072")
    assert Settings(port=7073).port == 7073


def test_defaults_are_those_of_the_contract():
    """Limits that the documents promise."""
    settings = Settings()
    assert (settings.host, settings.port, settings.lab_port, settings.portal_port) == ("127.0.0.1", 7071, 8888, 8866)
    assert (settings.memory_bytes, settings.processes, settings.log_lines) == (2**30, 128, 10_000)
    assert (settings.request_body_bytes, settings.event_bytes, settings.output_bytes) == (2**20, 2**20, 10 * 2**20)
    assert (settings.grace_seconds, settings.shutdown_seconds) == (5, 15)
    assert settings.max_concurrent_executions >= 8


def test_settings_are_frozen():
    """Nothing changes them after the start."""
    with pytest.raises(pydantic.ValidationError):
        Settings().port = 1


def test_a_misspelt_setting_is_refused():
    """An unknown argument is an error and not a silent default."""
    with pytest.raises(pydantic.ValidationError):
        Settings(prot=7071)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com", ""])
def test_dev_is_refused_where_others_can_reach_it(host):
    """The text says what to do instead; without `dev` the host is fine."""
    with pytest.raises(pydantic.ValidationError, match="without --dev"):
        Settings(dev=True, host=host)
    Settings(dev=False, host=host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "::1", "[::1]"])
def test_dev_is_fine_on_loopback(host):
    """Every spelling of it."""
    assert Settings(dev=True, host=host).dev
    assert is_loopback(host)


@pytest.mark.parametrize("pair", ["localhost", ":80", "host:", "host:x", "host:99999"])
def test_an_egress_rule_is_host_and_port(pair):
    """Anything else is refused, and the text shows an example."""
    with pytest.raises(pydantic.ValidationError, match=re.escape("host:port")):
        Settings(egress_allow=(pair,))


def test_packages_to_preload_are_names_of_modules():
    """Comma-separated in the environment; what `import` would not take is refused by name."""
    assert Settings(preload="pandas, msal.application").preload == ("pandas", "msal.application")
    with pytest.raises(pydantic.ValidationError, match=r"'pandas==2\.2' is no name of a module"):
        Settings(preload="httpx,pandas==2.2")


def test_every_setting_is_documented():
    """Each field has its description."""
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_the_home_is_for_its_owner_alone(tmp_path):
    """It is made with mode 0700, or closed when it was open to others; kernels may read the code in it."""
    settings = Settings(home=tmp_path / "deep" / "home")
    settings.home.mkdir(parents=True, mode=0o755)
    prepare_home(settings)
    prepare_home(settings)
    folders = (settings.home, settings.keys_dir, settings.records_dir, settings.code_dir, settings.logs_dir)
    assert [folder.stat().st_mode & 0o777 for folder in folders] == [0o700, 0o700, 0o700, 0o755, 0o700]
    assert settings.database.parent == settings.home
