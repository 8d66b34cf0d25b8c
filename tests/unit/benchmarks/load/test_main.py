import pytest
from click.testing import CliRunner

from benchmarks.load.__main__ import main
from srgnn.errors import InputError


def run(*arguments):
    return CliRunner().invoke(main, ["--corpus", "c", *arguments], catch_exceptions=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to serve"),
        (("--url", "http://example.org"), "not on this machine"),
        (("--artifact", "a", "--redis-url", "redis://example.org"), "not on this machine"),
        (("--url", "http://localhost", "--workers", "2"), "leave out"),
        (("--model", "markov", "--artifact", "a"), "no --artifact"),
        (("--artifact", "a", "--rate", "100000", "--seconds", "100"), "lower --rate"),
        (("--artifact", "a", "--plot", "nowhere/x.png"), "does not exist"),
        (("--artifact", "a", "--mix", "click=2"), "--mix"),
        (("--artifact", "a"), "holds no corpus"),
    ],
)
def test_what_cannot_be_run_is_told_before_anything_starts(arguments, message):
    with pytest.raises(Exception, match=message) as caught:
        run(*arguments)
    assert caught.type is InputError or caught.type.__name__ == "DataError"


def test_help_explains_itself():
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    assert "whether or not answers come back (open loop)" in " ".join(result.output.split())
