import logging
import os
import re
import stat
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.keys import SCOPES, Keys, make, parse, read, revoke
from srgnn.errors import ConfigError, InputError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def scopes_of(keys: Keys, key: str) -> frozenset[str] | None:
    grant = keys.find(key.encode())
    return grant and grant.scopes


def test_a_key_may_do_what_it_was_made_for(path: Path) -> None:
    shop, reader = make(path, "shop", ["click", "read"]), make(path, "prometheus", ["read"])
    keys = Keys(path)
    assert scopes_of(keys, shop) == {"click", "read"}
    assert scopes_of(keys, reader) == {"read"}


def test_an_admin_may_do_everything(path: Path) -> None:
    key = make(path, "operator", ["admin"])
    assert scopes_of(Keys(path), key) == set(SCOPES)


def test_a_wrong_key_is_nobodys(path: Path) -> None:
    key = make(path, "shop", ["click"])
    keys = Keys(path)
    for wrong in ("", "x", key[:-1], key + "x", key.upper(), sha256(key.encode()).hexdigest()):
        assert keys.find(wrong.encode()) is None
    assert keys.find(b"\xff\x00") is None


def test_the_file_holds_no_key_and_is_for_its_owner(path: Path) -> None:
    key = make(path, "shop", ["click", "read"])
    content = path.read_text()
    assert key not in content
    assert key.removeprefix("srgnn_") not in content
    assert content == f"shop click,read {sha256(key.encode()).hexdigest()}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_every_key_is_another_of_32_random_bytes(path: Path) -> None:
    made = {make(path, f"k{n}", ["read"]) for n in range(20)}
    assert len(made) == 20
    assert all(re.fullmatch(r"srgnn_[A-Za-z0-9_-]{43}", key) for key in made)


def test_a_new_key_leaves_the_mode_and_the_comments(path: Path) -> None:
    path.write_text("# clients\n\nold read " + "0" * 64)  # no line end
    path.chmod(0o644)
    make(path, "new", ["click"])
    assert path.read_text().splitlines()[:3] == ["# clients", "", "old read " + "0" * 64]
    assert [entry.name for entry in parse(read(path), path)] == ["old", "new"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_revoking_takes_away_one_line_and_keeps_the_file(path: Path) -> None:
    first, second = make(path, "first", ["read"]), make(path, "second", ["read"])
    with path.open("a") as file:
        file.write("# first is a comment here\n")
    inode = path.stat().st_ino
    revoke(path, "first")
    keys = Keys(path)
    assert keys.find(first.encode()) is None
    assert scopes_of(keys, second) == {"read"}
    assert "# first is a comment here" in path.read_text()
    assert path.stat().st_ino == inode, "a container may have this very file mounted"


def test_revoking_an_unknown_name_tells_the_known_ones(path: Path) -> None:
    make(path, "shop", ["read"])
    with pytest.raises(InputError, match=r"no key 'shp'.*it holds shop"):
        revoke(path, "shp")


@pytest.mark.parametrize("name", ["shop", "", "a b", "a\nb", "#x", "-x", "x" * 65])
def test_a_name_that_is_taken_or_unfit_is_refused(path: Path, name: str) -> None:
    make(path, "shop", ["read"])
    before = path.read_text()
    with pytest.raises(InputError, match=r"no key"):
        make(path, name, ["read"])
    assert path.read_text() == before


def test_a_folder_that_does_not_exist_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot write .*folder that exists"):
        make(tmp_path / "nothing" / "keys", "shop", ["read"])


DIGEST = "a" * 64


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("shop read", "2 words instead of 3"),
        (f"shop read, click {DIGEST}", "4 words"),
        (f"shop write {DIGEST}", "a scope is none of read, click, admin"),
        (f"shop read, {DIGEST}", "a scope is none of"),
        (f"sh/op read {DIGEST}", "the name is not"),
        ("shop read srgnn_THE-KEY-ITSELF", "no SHA-256"),
        (f"shop read {DIGEST[:-1]}", "no SHA-256"),
        (f"first read {DIGEST}", "there twice"),
        (f"shop read {'b' * 64}", "there twice"),
    ],
)
def test_a_damaged_line_is_told_by_its_number_and_never_shown(path: Path, line: str, expected: str) -> None:
    path.write_text(f"# comment\nfirst read {'b' * 64}\n{line}\n")
    with pytest.raises(ConfigError) as error:
        Keys(path)
    assert f"{path}, line 3: " in str(error.value)
    assert expected in str(error.value)
    assert "THE-KEY-ITSELF" not in str(error.value)
    assert DIGEST not in str(error.value)


def test_a_missing_file_is_told_with_its_remedy(path: Path) -> None:
    with pytest.raises(ConfigError, match=f"cannot read the keys in {path}: No such file.*srgnn keys --file"):
        Keys(path)


@given(st.binary(max_size=300))
def test_any_other_file_is_refused_or_holds_keys(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "keys"
    path.write_bytes(content)
    with suppress(ConfigError):
        Keys(path)


def test_a_changed_file_is_taken_over(path: Path) -> None:
    first = make(path, "first", ["read"])
    keys = Keys(path)
    second = make(path, "second", ["click"])
    keys.refresh()
    assert scopes_of(keys, second) == {"click"}
    revoke(path, "first")
    keys.refresh()
    assert keys.find(first.encode()) is None


def test_a_replaced_file_is_taken_over_as_well(path: Path) -> None:
    keys = (make(path, "first", ["read"]), Keys(path))[1]
    other = path.with_name("other")
    key = make(other, "second", ["click"])
    os.replace(other, path)
    keys.refresh()
    assert scopes_of(keys, key) == {"click"}


@pytest.mark.parametrize("damage", ["garbage\n", None], ids=["garbage", "gone"])
def test_a_damaged_file_keeps_the_old_keys_and_is_logged_once(
    path: Path, damage: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    key = make(path, "shop", ["read"])
    keys = Keys(path)
    if damage is None:
        path.unlink()
    else:
        path.write_text(damage)
    for _ in range(3):
        keys.refresh()
    assert scopes_of(keys, key) == {"read"}
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert str(path) in record.fields["cause"]  # type: ignore[attr-defined]
    path.unlink(missing_ok=True)
    new = make(path, "new", ["click"])
    keys.refresh()
    assert (scopes_of(keys, key), scopes_of(keys, new)) == (None, {"click"})


def test_all_keys_can_be_taken_away(path: Path) -> None:
    key = make(path, "shop", ["read"])
    keys = Keys(path)
    revoke(path, "shop")
    keys.refresh()
    assert keys.find(key.encode()) is None


def test_reading_the_file_again_gives_no_key_new_room(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.bucket.time", SimpleNamespace(monotonic=lambda: 100.0))
    key = make(path, "shop", ["read"])
    keys = Keys(path, rate=3)
    grant = keys.find(key.encode())
    assert grant
    assert [grant.bucket.take() for _ in range(5)] == [True] * 3 + [False] * 2
    make(path, "other", ["read"])
    keys.refresh()
    again = keys.find(key.encode())
    assert again
    assert not again.bucket.take()
