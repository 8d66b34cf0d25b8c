import logging
import pickle
from pathlib import Path

import pytest

from service.versions import Outcome, SwapConflict, SwapRefused, Versions, Wanted
from srgnn.errors import ArtifactError
from tests.artifacts import folder_with_two, name_latest


@pytest.fixture
def folder(tiny_artifact: Path, tmp_path: Path) -> Path:
    folder_with_two(tiny_artifact, tmp_path / "artifacts")
    return tmp_path / "artifacts"


@pytest.fixture
def other(folder: Path) -> Path:
    [other] = folder.glob("other-*")
    return other


def test_at_the_start_what_latest_names_is_served_and_nothing_was_before(folder: Path) -> None:
    versions = Versions(folder)
    assert versions.current == folder / (folder / "LATEST").read_text().strip()
    assert versions.previous is None
    with pytest.raises(SwapConflict, match="no model before this one"):
        versions.choose(Wanted(rollback=True))


def test_nothing_to_serve_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="srgnn train"):
        Versions(tmp_path)


def test_a_rollback_leads_back_and_another_one_forward_again(folder: Path, other: Path) -> None:
    versions = Versions(folder)
    first = versions.current
    versions.moved_to(other)
    for expected in (first, other, first):
        path = versions.choose(Wanted(rollback=True))
        assert path == expected
        versions.moved_to(path)


def test_wanted_by_name_or_what_latest_names(folder: Path, other: Path) -> None:
    versions = Versions(folder)
    assert versions.choose(Wanted(other.name)) == other
    assert versions.choose(Wanted()) == versions.current
    name_latest(folder, other.name)
    assert versions.choose(Wanted()) == other


@pytest.mark.parametrize("name", ["../artifacts", "gone-20260101-00000000", "LATEST", ""])
def test_a_name_that_is_no_artifact_beside_latest_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(ArtifactError):
        Versions(folder).choose(Wanted(name))


def test_by_name_needs_a_folder(folder: Path, other: Path) -> None:
    versions = Versions(other)
    assert versions.choose(Wanted()) == other
    assert not versions.latest_changed()
    with pytest.raises(SwapConflict, match="start the service with the folder that holds LATEST"):
        versions.choose(Wanted(other.name))


def test_what_cannot_be_read_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = Versions(folder)

    def forbidden(path: Path) -> bool:
        raise PermissionError("Permission denied")

    monkeypatch.setattr(Path, "is_file", forbidden)
    with pytest.raises(SwapRefused, match="cannot be read: Permission denied"):
        versions.choose(Wanted())


def test_a_change_of_latest_is_told_once_and_a_rollback_is_none(folder: Path, other: Path) -> None:
    versions = Versions(folder)
    first = versions.current
    assert not versions.latest_changed()
    name_latest(folder, other.name)
    assert [versions.latest_changed() for _ in range(3)] == [True, False, False]
    versions.moved_to(other)
    versions.moved_to(first)
    assert not versions.latest_changed()
    (folder / "LATEST").unlink()
    assert not versions.latest_changed()
    name_latest(folder, first.name)
    assert versions.latest_changed()


def test_a_worker_may_have_a_copy(folder: Path, other: Path) -> None:
    versions = Versions(folder)
    copy = pickle.loads(pickle.dumps(versions))  # as multiprocessing does
    copy.moved_to(other)
    assert (copy.current, copy.previous) == (other, versions.current)
    assert versions.previous is None


@pytest.mark.parametrize(
    ("outcome", "result", "level", "fields"),
    [
        (Outcome("a", "b"), "swapped", logging.INFO, {"old": "a", "new": "b"}),
        (Outcome("a", "a"), "unchanged", logging.INFO, {"model": "a"}),
        (Outcome("a", "a", "it is damaged"), "refused", logging.ERROR, {"model": "a", "cause": "it is damaged"}),
    ],
)
def test_an_outcome_is_told(
    outcome: Outcome, result: str, level: int, fields: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        outcome.log()
    [record] = caplog.records
    assert outcome.result == result
    assert (record.levelno, record.fields) == (level, fields)  # type: ignore[attr-defined]
