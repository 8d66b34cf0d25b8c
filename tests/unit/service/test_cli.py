"""How ``srgnn serve`` starts and refuses to; tests/integration/test_http.py stops a running one."""

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from service import cli
from service.app import create_app
from service.keys import Keys
from service.settings import load_settings
from srgnn.cli import main
from srgnn.errors import ConfigError, StoreMisconfigured
from srgnn.recommender import Recommender
from tests.redis_server import RedisServer, free_port


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers = handlers
    root.setLevel(level)


def run(*arguments: str, **environment: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["serve", *arguments], env=environment)
    return result.exit_code, result.stderr


def test_help_names_every_option_and_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from srgnn.cli import main\n"
        "main(['serve', '--help'], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules, 'slow'\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False)
    assert found.returncode == 0, found.stderr
    for option in ("--artifact", "--redis-url", "--host", "--port", "--workers"):
        assert option in found.stdout


def test_port_in_use_is_told_with_its_remedy(tiny_artifact: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, message = run("--artifact", str(tiny_artifact), "--port", str(port))
    assert code == 2
    assert f"cannot listen on 127.0.0.1:{port}" in message
    assert "choose another with --port" in message


def test_missing_artifact_is_told_with_its_remedy(tmp_path: Path) -> None:
    code, message = run("--artifact", str(tmp_path / "nothing"), "--port", "0")
    assert code == 2
    assert str(tmp_path / "nothing") in message
    assert "srgnn train" in message


def test_a_wrong_password_of_redis_ends_it_and_is_not_shown(tiny_artifact: Path) -> None:
    with RedisServer() as server:
        server.command("CONFIG", "SET", "requirepass", "another")
        arguments = ["--port", "0", "--redis-url", f"redis://:secret@127.0.0.1:{server.port}/0"]
        code, message = run("--artifact", str(tiny_artifact), *arguments, SRGNN_STORE_TIMEOUT_MS="5000")
    assert code == 2
    assert "Check user and password" in message
    assert "or leave out --redis-url" in message
    assert "secret" not in message


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (["--port", "70000"], {}, "SRGNN_PORT is 70000"),
        (["--redis-url", "http://x"], {}, "SRGNN_REDIS_URL"),
        ([], {"SRGNN_QUEU_SIZE": "5"}, "did you mean SRGNN_QUEUE_SIZE?"),
        ([], {"SRGNN_DEADLINE_MS": "soon"}, "SRGNN_DEADLINE_MS is 'soon'"),
        (["--host", "0.0.0.0"], {}, "SRGNN_KEYS_FILE is not set"),
        (["--workers", "2"], {}, "SRGNN_WORKERS is 2, but SRGNN_REDIS_URL is not set"),
    ],
)
def test_wrong_settings_are_told(arguments: list[str], environment: dict[str, str], expected: str) -> None:
    code, message = run(*arguments, **environment)
    assert code == 2
    assert message.startswith("error: ")
    assert expected in message


def test_port_taken_while_the_model_was_loading_is_told(tiny_recommender: Recommender) -> None:
    with cli.open_listener(load_settings(port=0)) as first:
        settings = load_settings(port=first.getsockname()[1])
        with cli.open_listener(settings) as second:
            first.listen()
            app = create_app(settings, recommender=tiny_recommender)
            with pytest.raises(ConfigError, match="cannot listen on"):
                cli.run_server(app, settings, second)


def test_several_workers_serve_nothing_but_an_artifact(tiny_recommender: Recommender) -> None:
    with pytest.raises(ConfigError, match="SRGNN_WORKERS is 2: several workers can only serve an artifact"):
        cli.run_service(load_settings(workers=2, redis_url="redis://127.0.0.1:1/0"), tiny_recommender)


def test_unknown_host_is_told() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on no\.such\.host\.invalid"):
        cli.open_listener(load_settings(host="no.such.host.invalid", port=0, keys_file="keys"))


def test_a_free_port_can_be_left_to_the_system() -> None:
    with cli.open_listener(load_settings(port=0)) as listener:
        assert listener.getsockname()[1] > 0


async def test_a_store_that_answers_is_not_spoken_of(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    await cli.check_store(load_settings())
    await cli.check_store(load_settings(redis_url=redis_url, store_timeout_ms=5000))
    assert not caplog.records


@pytest.mark.parametrize("host", ["127.0.0.1", "no.such.host.invalid"])
async def test_a_store_that_cannot_be_reached_is_told_loudly_and_no_reason_not_to_serve(
    host: str, caplog: pytest.LogCaptureFixture
) -> None:
    await cli.check_store(load_settings(redis_url=f"redis://:secret@{host}:{free_port()}/0", store_timeout_ms=5000))
    record = caplog.records[-1]
    assert record.levelname == "ERROR"
    assert "serving WITHOUT the session store" in record.message
    assert "Check that Redis runs there" in record.fields["cause"]  # type: ignore[attr-defined]
    assert "secret" not in str(vars(record))


async def test_a_store_that_hangs_is_no_reason_not_to_serve(caplog: pytest.LogCaptureFixture) -> None:
    with RedisServer() as server:
        server.hang()
        await cli.check_store(load_settings(redis_url=server.url))
    assert "serving WITHOUT the session store" in caplog.text


async def test_what_is_no_redis_ends_the_start() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(StoreMisconfigured, match="that a Redis is there; or leave out --redis-url"):
            await cli.check_store(load_settings(redis_url=f"redis://127.0.0.1:{port}/0", store_timeout_ms=5000))


def keys(*arguments: str, **environment: str) -> tuple[int, dict[str, object], str]:
    result = CliRunner().invoke(main, ["keys", *arguments], env=environment)
    return result.exit_code, json.loads(result.stdout.splitlines()[-1] if result.stdout else "{}"), result.stderr


def test_a_key_is_made_listed_and_revoked(tmp_path: Path) -> None:
    file = str(tmp_path / "keys")
    code, made, _ = keys("--file", file, "--name", "shop", "--scope", "click", "--scope", "read")
    assert (code, made["name"], made["scopes"]) == (0, "shop", ["click", "read"])
    grant = Keys(Path(file)).find(str(made["key"]).encode())
    assert grant
    assert grant.scopes == {"click", "read"}
    assert keys(SRGNN_KEYS_FILE=file)[1] == {"keys": [{"name": "shop", "scopes": ["click", "read"]}]}
    assert keys("--file", file, "--revoke", "shop")[:2] == (0, {"revoked": "shop"})
    assert keys("--file", file)[1] == {"keys": []}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--name", "shop"], "--name needs --scope read, click or admin"),
        (["--scope", "read"], "give --name with --scope"),
        (["--name", "shop", "--scope", "read", "--revoke", "shop"], "give --name with --scope"),
        (["--name", "shop", "--scope", "write"], "'write' is not one of"),
        (["--revoke", "shop"], "cannot read the keys in"),
        (["--name", "a b", "--scope", "read"], "no key 'a b' can be made"),
    ],
)
def test_wrong_options_of_keys_are_told_and_change_nothing(tmp_path: Path, arguments: list[str], expected: str) -> None:
    code, _, message = keys("--file", str(tmp_path / "keys"), *arguments)
    assert code == 2
    assert expected in message
    assert not (tmp_path / "keys").exists()


def test_serving_without_keys_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with cli.open_listener(load_settings(port=0)) as listener:
        cli.log_serving(load_settings(keys_file="keys"), listener, "tiny-1")
        assert "no keys" not in caplog.text
        cli.log_serving(load_settings(), listener, "tiny-1")
    assert "no keys: every program on this machine may do everything" in caplog.text


ALLOW_FILES = """
import resource, sys
from service.cli import allow_files
resource.setrlimit(resource.RLIMIT_NOFILE, (50, 2000))
allow_files(1100)
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (1100, 2000)
allow_files(500)
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (1100, 2000)
allow_files(5000)
"""


def test_as_many_files_as_connections_may_be_open_or_it_does_not_start() -> None:
    found = subprocess.run([sys.executable, "-c", ALLOW_FILES], capture_output=True, text=True, check=False)
    assert (
        "SRGNN_MAX_CONNECTIONS needs 5000 open files, but this process may have 2000: lower it to 1900" in found.stderr
    )
