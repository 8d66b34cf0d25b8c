import json

import pytest
import torch
from safetensors.torch import save_file

from srgnn.errors import DataError
from training import checkpoint


def test_what_is_saved_is_read_again(tmp_path):
    tensors = {"a": torch.arange(6).view(2, 3).T, "random": torch.get_rng_state()}
    state = {"epoch": 3, "loss_sum": 0.1 + 0.2, "history": [{"score": 1 / 3}]}
    checkpoint.save(tmp_path, tensors, state)
    found = checkpoint.load(tmp_path)
    assert found.state == state
    assert found.tensors.keys() == tensors.keys()
    assert all(torch.equal(found.tensors[name], tensors[name]) for name in tensors)


def test_a_new_one_replaces_the_old_and_leaves_nothing_else(tmp_path):
    for epoch in (1, 2):
        checkpoint.save(tmp_path, {"a": torch.zeros(1)}, {"epoch": epoch})
    assert checkpoint.load(tmp_path).state == {"epoch": 2}
    assert [file.name for file in tmp_path.iterdir()] == [checkpoint.NAME]
    checkpoint.delete(tmp_path)
    checkpoint.delete(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_left_half_written_goes_when_the_training_ends(tmp_path):
    (tmp_path / f".{checkpoint.NAME}.0f.partial").write_bytes(b"half")
    checkpoint.delete(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_one_says_train_without_resume(tmp_path):
    with pytest.raises(DataError, match="without --resume"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x80\x04pickle"])
def test_a_damaged_one_says_delete(tmp_path, content):
    (tmp_path / checkpoint.NAME).write_bytes(content)
    with pytest.raises(DataError, match="Delete it"):
        checkpoint.load(tmp_path)


def test_another_version_is_refused(tmp_path):
    metadata = {"srgnn": json.dumps({"version": checkpoint.VERSION + 1})}
    save_file({"a": torch.zeros(1)}, tmp_path / checkpoint.NAME, metadata=metadata)
    with pytest.raises(DataError, match="another version"):
        checkpoint.load(tmp_path)
