import pytest

from service.settings import PREFIX, Settings, load_settings
from srgnn.errors import ConfigError


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)


def test_defaults_need_no_environment() -> None:
    settings = load_settings()
    assert (settings.host, settings.port, settings.k, settings.redis_url) == ("127.0.0.1", 8000, 20, None)


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_environment_is_read_and_options_override_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRGNN_PORT", "9000")
    monkeypatch.setenv("SRGNN_HOST", "0.0.0.0")
    monkeypatch.setenv("SRGNN_KEYS_FILE", "keys")
    settings = load_settings(port=9001, host=None)
    assert (settings.host, settings.port) == ("0.0.0.0", 9001)


def test_empty_variable_means_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRGNN_REDIS_URL", "")
    assert load_settings().redis_url is None


def test_typo_in_a_setting_suggests_the_right_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRGNN_IDLE_SECOND", "5")
    with pytest.raises(ConfigError, match=r"SRGNN_IDLE_SECOND.*did you mean SRGNN_IDLE_SECONDS\?"):
        load_settings()


def test_unknown_setting_is_refused_with_the_likely_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRGNN_8000_TCP_ADDR", "10.0.0.1")
    with pytest.raises(ConfigError, match="enableServiceLinks"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SRGNN_PORT", "70000"),
        ("SRGNN_PORT", "tcp://10.0.0.1:8000"),
        ("SRGNN_K", "0"),
        ("SRGNN_IDLE_SECONDS", "-1"),
        ("SRGNN_MAX_CLICKS", "many"),
        ("SRGNN_LOG_LEVEL", "loud"),
        ("SRGNN_MAX_BODY_BYTES", "0"),
    ],
)
def test_wrong_value_names_setting_value_and_meaning(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as error:
        load_settings()
    assert name in str(error.value)
    assert value in str(error.value)
    assert str(Settings.model_fields[name.removeprefix(PREFIX).lower()].description) in str(error.value)


def test_settings_that_contradict_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRGNN_K", "50")
    monkeypatch.setenv("SRGNN_MAX_K", "10")
    with pytest.raises(ConfigError, match="SRGNN_K is 50, above SRGNN_MAX_K, which is 10"):
        load_settings()
    monkeypatch.setenv("SRGNN_MAX_K", "100")
    monkeypatch.setenv("SRGNN_QUEUE_SIZE", "10")
    with pytest.raises(ConfigError, match="SRGNN_MAX_HISTORIES is 256, above SRGNN_QUEUE_SIZE"):
        load_settings()


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost", "redis://host:port", "redis://:secret@h:x"])
def test_wrong_redis_url_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("SRGNN_REDIS_URL", url)
    with pytest.raises(ConfigError, match="SRGNN_REDIS_URL") as error:
        load_settings()
    assert "secret" not in str(error.value)


def test_password_of_redis_is_not_in_the_representation() -> None:
    assert "secret" not in repr(load_settings(redis_url="redis://:secret@host:1/0"))


def test_several_workers_need_a_store_that_they_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRGNN_WORKERS", "2")
    with pytest.raises(ConfigError, match=r"SRGNN_WORKERS is 2, but SRGNN_REDIS_URL is not set.*give --redis-url"):
        load_settings()
    assert load_settings(redis_url="redis://host/0").workers == 2


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "shop.example", "127.0.0.1.example", "", "localhost."])
def test_without_keys_nobody_but_this_machine_is_served(host: str) -> None:
    with pytest.raises(ConfigError, match=r"SRGNN_KEYS_FILE is not set.*srgnn keys --file FILE.*--host 127\.0\.0\.1"):
        load_settings(host=host)
    assert load_settings(host=host, keys_file="keys").host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.53", "::1", "localhost"])
def test_this_machine_needs_no_keys(host: str) -> None:
    assert load_settings(host=host).keys_file is None
