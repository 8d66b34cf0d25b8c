import os

import numpy as np
import pytest

from srgnn.engine import plan_of
from srgnn.loops.engine import Box, answer, attend
from srgnn.loops.layout import LANES
from srgnn.model import SRGNN, SRGNNConfig
from srgnn.scan import CompiledInt8Scan, quantise
from srgnn.scorer import SRGNNScorer

SEQUENCES = [np.array([3, 1, 3]), np.array([7])]
K = 4


@pytest.fixture(scope="module")
def scorer():
    model = SRGNN(SRGNNConfig(hidden_size=LANES), 50, max_length=10)
    made = SRGNNScorer.of_model(model, np.ones(50, dtype=bool))
    made.catalogue.scan = CompiledInt8Scan(made.catalogue.matrix, quantise(made.catalogue.matrix))
    return made


@pytest.fixture
def box():
    clicked, lengths = np.concatenate(SEQUENCES), np.array([len(each) for each in SEQUENCES])
    sizes, nothing = np.array([len(lengths), len(clicked), K, 0]), np.zeros(0, np.int64)
    return Box(sizes, clicked, lengths, nothing, nothing, np.zeros((2, K), np.int64), np.zeros((2, K)))


def test_an_answer_is_the_scorers(scorer, box):
    answer(plan_of(scorer), box)
    wanted = scorer.top_k(SEQUENCES, K)
    assert box.rows.tolist() == wanted.rows.tolist()
    assert box.scores.astype(np.float32).tolist() == wanted.scores.tolist()


def test_each_byte_is_a_question_and_a_closed_pipe_the_end(scorer, box):
    questions, asking = os.pipe()
    answers, answering = os.pipe()
    os.write(asking, b"???")
    os.close(asking)
    attend(plan_of(scorer), box, questions, answering)
    os.close(answering)
    assert len(os.read(answers, 10)) == 3
    assert os.read(answers, 10) == b""
    os.close(questions)
    os.close(answers)
