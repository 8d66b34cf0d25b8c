"""How ``srgnn serve`` starts and refuses to; tests/integration/test_http.py stops a running one."""

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
from service.settings import load_settings
from srgnn.cli import main
from srgnn.errors import ConfigError, StoreUnavailable
from srgnn.recommender import Recommender
from tests.redis_server import free_port


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


def test_unreachable_redis_is_told_without_its_password(tiny_artifact: Path) -> None:
    url = f"redis://:secret@127.0.0.1:{free_port()}/0"
    code, message = run("--artifact", str(tiny_artifact), "--port", "0", "--redis-url", url)
    assert code == 2
    assert "Check that Redis runs there" in message
    assert "or leave out --redis-url" in message
    assert "secret" not in message


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (["--port", "70000"], {}, "SRGNN_PORT is 70000"),
        (["--redis-url", "http://x"], {}, "SRGNN_REDIS_URL"),
        ([], {"SRGNN_QUEU_SIZE": "5"}, "did you mean SRGNN_QUEUE_SIZE?"),
        ([], {"SRGNN_DEADLINE_MS": "soon"}, "SRGNN_DEADLINE_MS is 'soon'"),
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
        cli.open_listener(load_settings(host="no.such.host.invalid", port=0))


def test_a_free_port_can_be_left_to_the_system() -> None:
    with cli.open_listener(load_settings(port=0)) as listener:
        assert listener.getsockname()[1] > 0


async def test_the_store_is_asked_once_before_serving(redis_url: str) -> None:
    await cli.check_store(load_settings())
    await cli.check_store(load_settings(redis_url=redis_url))
    with pytest.raises(StoreUnavailable):
        await cli.check_store(load_settings(redis_url=f"redis://127.0.0.1:{free_port()}/0"))
