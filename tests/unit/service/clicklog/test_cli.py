"""``srgnn export-clicks`` as a user calls it; tests/integration/test_export_clicks.py kills running ones."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from service.clicklog.files import ClickFiles
from srgnn import cli
from srgnn.cli import main
from tests.click_stream import Writer
from tests.redis_server import free_port


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers = handlers
    root.setLevel(level)


def run(*arguments: object, **environment: str) -> Result:
    return CliRunner().invoke(main, ["export-clicks", *map(str, arguments)], env=environment)


def test_help_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from srgnn.cli import main\n"
        "main(['export-clicks', '--help'], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules, 'slow'\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False)
    assert found.returncode == 0, found.stderr
    for option in ("--redis-url", "--output", "--once", "--batch-rows", "--flush-seconds", "--take-over"):
        assert option in found.stdout


def test_the_last_line_is_json_and_progress_goes_to_stderr(writer: Writer, redis_url: str, tmp_path: Path) -> None:
    for item in "abc":
        writer.click("s", item)
    result = run("--redis-url", redis_url, "--output", tmp_path / "clicks", "--once", "--batch-rows", 2)
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    seconds = summary.pop("seconds")
    assert seconds > 0
    assert summary == {
        "files": 2,
        "clicks": 3,
        "duplicates": 0,
        "already_written": 0,
        "malformed": 0,
        "forgotten_sessions": 0,
        "forgotten_clicks": 0,
        "lost": 0,
        "output": str(tmp_path / "clicks"),
    }
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    assert [line["clicks"] for line in lines if line["message"] == "exported"] == [2, 1]


def test_the_url_may_come_from_the_variable_of_the_service(redis_url: str, tmp_path: Path) -> None:
    assert run("--output", tmp_path, "--once", SRGNN_REDIS_URL=redis_url).exit_code == 0
    assert run("--output", tmp_path, "--once").exit_code == 2


def test_an_unreachable_redis_is_told_without_its_password(tmp_path: Path) -> None:
    result = run("--redis-url", f"redis://user:secret@127.0.0.1:{free_port()}/0", "--output", tmp_path)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: click stream srgnn:clicks:1 at redis://127.0.0.1:")
    assert "Check that Redis runs there" in result.stderr
    assert "secret" not in result.output


def test_a_url_of_another_kind_is_told_without_its_password(tmp_path: Path) -> None:
    result = run("--redis-url", "http://user:secret@host", "--output", tmp_path)
    assert result.exit_code == 2
    assert "--redis-url cannot be used" in result.stderr
    assert "secret" not in result.output


def test_a_folder_in_use_is_refused(redis_url: str, tmp_path: Path) -> None:
    with ClickFiles(tmp_path):
        result = run("--redis-url", redis_url, "--output", tmp_path, "--once")
    assert result.exit_code == 2
    assert f"another exporter writes to {tmp_path}" in result.stderr


def test_a_second_folder_is_refused_until_it_takes_over(redis_url: str, tmp_path: Path) -> None:
    def export(folder: str, *more: str) -> Result:
        return run("--redis-url", redis_url, "--output", tmp_path / folder, "--once", *more)

    assert export("a").exit_code == 0
    refused = export("b")
    assert refused.exit_code == 2
    assert f"the clicks of this Redis go to {os.uname().nodename}:{tmp_path / 'a'}" in refused.stderr
    assert export("b", "--take-over").exit_code == 0
    assert export("b").exit_code == 0
    assert export("a").exit_code == 2


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("service.clicklog")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert cli.COMMANDS["export-clicks"][0] in cli.EXTRAS
    result = run("--help")
    assert result.exit_code == 1
    assert "pip install 'srgnn[serve,export]'" in result.stderr
