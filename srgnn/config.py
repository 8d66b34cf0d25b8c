"""The model's switches. Apart from the model, so that reading a recipe does not load torch."""

from dataclasses import dataclass
from typing import Literal

from .errors import ConfigError


@dataclass(frozen=True)
class SRGNNConfig:
    """Switches of the model; saved in the artifact. The defaults are the published SR-GNN (AAAI 2019)."""

    hidden_size: int = 100
    """d, the width of item embeddings and of every hidden state."""
    steps: int = 1
    """Gated propagation steps."""
    hybrid: bool = True
    """Last click and attention together; False: attention alone."""
    scoring: Literal["dot", "cosine"] = "dot"
    """cosine: item and session vectors of length one, times ``scale`` (NISER, Gupta et al. 2019)."""
    scale: float = 16.0
    """Temperature of the cosine softmax; unused by dot."""
    dropout: float = 0.0
    """Share of item-embedding entries dropped in training (NISER+)."""
    reversed_positions: bool = False
    """Add an embedding of the distance from the last click before the read-out (NISER+)."""

    def __post_init__(self) -> None:
        checks = {
            "hidden_size": (1 <= self.hidden_size <= 4096, "1 to 4096"),
            "steps": (1 <= self.steps <= 16, "1 to 16"),
            "scoring": (self.scoring in ("dot", "cosine"), "'dot' or 'cosine'"),
            "scale": (0 < self.scale <= 1000, "more than 0, at most 1000"),
            "dropout": (0 <= self.dropout < 1, "0 to below 1"),
        }
        for name, (good, expected) in checks.items():
            if not good:
                raise ConfigError(f"model.{name} is {getattr(self, name)!r}: expected {expected}")
