"""Names and LATEST; that damage is found is in test_artifact.py."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from srgnn import directory
from srgnn.errors import ArtifactError, ConfigError


@pytest.fixture
def folder(tiny_artifact, tmp_path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(tiny_artifact, tmp_path / "artifacts"))


def test_no_torch_is_needed():
    code = "import sys, srgnn.directory\nassert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})


def test_the_name_is_dataset_date_and_manifest_hash(tiny_artifact):
    path, manifest = directory.verify(tiny_artifact)
    digest = directory._sha256(path / "manifest.json")[:8]
    assert path.name == f"tiny-{manifest['created'][:10].replace('-', '')}-{digest}"
    assert (tiny_artifact / "LATEST").read_text() == f"{path.name}\n"
    assert sorted(file.name for file in path.iterdir()) == sorted([*directory.FILES, "manifest.json"])
    assert sorted(file.name for file in tiny_artifact.iterdir()) == sorted(["LATEST", path.name])


@pytest.mark.parametrize("dataset", ["", "my shop", "a/b", "..", "é", "x" * 65])
def test_a_dataset_name_that_is_no_file_name_is_refused(tmp_path, dataset):
    with pytest.raises(ConfigError, match="dataset name"):
        directory.publish(tmp_path, {"dataset": dataset}, lambda path: None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../elsewhere", "", "/etc", "gone-20260101-00000000"])
def test_latest_must_name_a_neighbour(folder, name):
    (folder / "LATEST").write_text(name)
    with pytest.raises(ArtifactError, match="LATEST names no artifact"):
        directory.resolve(folder)


def test_an_empty_folder_says_what_to_do(tmp_path):
    with pytest.raises(ArtifactError, match="srgnn train"):
        directory.resolve(tmp_path)


def test_a_name_finds_what_lies_in_the_folder(folder):
    name = (folder / "LATEST").read_text().strip()
    assert directory.artifact_named(folder, name) == directory.resolve(folder) == directory.resolve(folder / name)


@pytest.mark.parametrize("name", ["", ".", "..", "../artifacts/{}", "{}/", "./{}", "/{}", "{}\n", "LATEST"])
def test_what_is_not_the_plain_name_of_an_artifact_is_refused(folder, name):
    name = name.format((folder / "LATEST").read_text().strip())
    with pytest.raises(ArtifactError):
        directory.artifact_named(folder, name)
