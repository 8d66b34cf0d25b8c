import subprocess
import sys

import pytest

from srgnn.config import SRGNNConfig
from srgnn.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_size", 0),
        ("steps", 0),
        ("scoring", "euclid"),
        ("scale", 0.0),
        ("dropout", 1.0),
        ("dropout", -0.1),
    ],
)
def test_a_config_out_of_bounds_is_refused(name, value):
    with pytest.raises(ConfigError, match=f"model.{name} is {value!r}"):
        SRGNNConfig(**{name: value})


def test_reading_a_recipe_does_not_load_torch():
    code = "import sys, training.config, training.prepare; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
