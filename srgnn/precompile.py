"""``python -m srgnn.precompile`` compiles the loops of :mod:`srgnn.loops` before they are needed, where what is
compiled is kept.

For an image: a container that compiles at its start is ready 10 to 60 s later. Compiled for another processor, or by
another version of numba, they are compiled again; so name processors by NUMBA_CPU_NAME, with NUMBA_CPU_FEATURES empty,
as the Dockerfile does.
"""

import numpy as np

from .blend import BlendScorer, BlendWeights
from .engine import Engine
from .habits import learn
from .loops.layout import LANES
from .model import SRGNN, SRGNNConfig
from .neighbours import Neighbours
from .scan import CompiledInt8Scan, Float32Scan, Int8Scan, quantise
from .scorer import SRGNNScorer
from .session_index import SessionIndex

NUM_ITEMS = 3


def main() -> None:
    """Search and rank in a catalogue of three items, in every way."""
    model = SRGNN(SRGNNConfig(hidden_size=LANES, reversed_positions=True, scoring="cosine"), NUM_ITEMS, max_length=2)
    scorer = SRGNNScorer.of_model(model, np.ones(NUM_ITEMS, dtype=bool))
    past = SessionIndex.build(np.array([0, 1, 0, 2]), np.array([0, 2, 4]), NUM_ITEMS)
    habits = learn(np.array([0]), np.array([1]), np.array([1]))
    blended = BlendScorer(scorer, Neighbours(past), BlendWeights(), habits)
    sequences, matrix = [np.array([0, 1])], scorer.catalogue.matrix
    quantised = quantise(matrix)
    for scan in (Float32Scan(matrix), Int8Scan(matrix, quantised), CompiledInt8Scan(matrix, quantised)):
        scorer.catalogue.scan = scan
        blended.top_k(sequences, 1)
        if engine := Engine.of(blended):  # too narrow for VNNI, so on any processor
            engine.top_k(sequences, 1)
    blended.ranks(sequences, np.array([2]))


if __name__ == "__main__":
    main()
