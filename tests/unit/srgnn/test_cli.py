import json
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from srgnn import cli
from srgnn.errors import DataError


def test_help_lists_every_command_and_imports_none_of_them():
    code = (
        "import sys; from click.testing import CliRunner; from srgnn.cli import main, COMMANDS;"
        "out = CliRunner().invoke(main, ['--help']).output;"
        "assert all(name in out for name in COMMANDS), out;"
        "assert not {'torch', 'training', 'service', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_command_exists_and_has_help(name):
    result = CliRunner().invoke(cli.main, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage" in result.output


def test_our_errors_are_one_line_with_exit_code_2(monkeypatch):
    @click.command()
    def broken():
        raise DataError("the file is empty")

    monkeypatch.setattr(cli.LazyGroup, "get_command", lambda *args: broken)
    result = CliRunner().invoke(cli.main, ["inspect"])
    assert result.exit_code == 2
    assert result.stderr == "error: the file is empty\n"
    assert result.stdout == ""


def test_an_unknown_command_is_refused():
    assert CliRunner().invoke(cli.main, ["fly"]).exit_code == 2


def test_a_missing_extra_says_what_to_install(monkeypatch):
    monkeypatch.setitem(cli.COMMANDS, "serve", ("service.no_such_module", ""))
    result = CliRunner().invoke(cli.main, ["serve"])
    assert result.exit_code == 1
    assert "pip install 'srgnn[serve]'" in result.stderr


def test_emit_prints_one_line_of_json(capsys):
    cli.emit({"name": "Müsli", "n": 1})
    assert json.loads(capsys.readouterr().out) == {"name": "Müsli", "n": 1}
    with pytest.raises(ValueError, match="Out of range float"):
        cli.emit({"bad": float("nan")})
