"""The loss that tells retrievers where answers are: which chunks it wants, and what it teaches."""

import pytest
import torch

from gcattn.chunking import RegularLayout
from gcattn.memory.chunk_source import EncodedChunks
from gcattn.models import DRTForCausalLM, drt_tiny
from gcattn.nn.evidence import MOST_QUESTIONS, Evidence
from gcattn.nn.retriever import Retrieval, Retriever

SIZE, CHUNKS = 4, 6  # chunks of three tokens


@pytest.fixture
def layout():
    return RegularLayout(SIZE, 1, CHUNKS * (SIZE - 1), torch.device("cpu"))


def marks(places):
    """Marks of a row by token: {token: mark}."""
    made = torch.zeros(1, CHUNKS * (SIZE - 1), dtype=torch.long)
    for token, mark in places.items():
        made[0, token] = mark
    return made


def wanted(evidence, layout):
    return {(f, n) for _, f, n in evidence.chunks(layout).nonzero().tolist()}


def test_the_landmark_before_the_answer_wants_every_chunk_that_holds_the_needle(layout):
    # question 1: a needle across chunks 0 and 1, answered in chunk 4 and on into chunk 5
    places = {2: 1, 3: 1, 14: -1, 15: -1}
    # question 2: a needle in chunk 3, answered in chunk 4 too
    places |= {9: 2, 13: -2}
    assert wanted(Evidence(marks(places)), layout) == {(3, 0), (3, 1), (4, 0), (4, 1), (3, 3)}


def test_nothing_is_wanted_before_the_first_landmark_or_without_an_answer(layout):
    assert wanted(Evidence(marks({0: 1, 1: -1})), layout) == set()
    assert wanted(Evidence(marks({0: 1, 5: 2, 9: -3})), layout) == set()
    beyond = MOST_QUESTIONS + 1
    assert wanted(Evidence(marks({0: beyond, 9: -beyond})), layout) == set()


def test_the_loss_is_the_mean_negative_logarithm_of_the_wanted_weights(layout):
    torch.manual_seed(0)
    queries, landmarks = torch.randn(2, 1, CHUNKS, 8).unbind()
    evidence = Evidence(marks({2: 1, 3: 1, 9: 2, 14: -1, 16: -2, 17: -1}))
    visible = torch.ones(CHUNKS, CHUNKS).tril(-1).bool()[None]
    evidence.add(queries, landmarks, layout, visible)
    weights = {
        f: torch.softmax(landmarks[0, :f] @ queries[0, f] / 8**0.5, dim=0).log() for f in (3, 4)
    }
    # chunk 4 answers question 1, chunk 5 both
    of_landmarks = [-weights[3][[0, 1]].mean(), -weights[4][[0, 1, 3]].mean()]
    torch.testing.assert_close(evidence.mean(), torch.stack(of_landmarks).mean())
    assert evidence.mean() == 0, "a mean is given once"


def test_rows_without_questions_have_no_loss_and_finite_gradients(layout):
    queries = torch.randn(1, CHUNKS, 8, requires_grad=True)
    evidence = Evidence(marks({}))
    visible = torch.ones(CHUNKS, CHUNKS).tril(-1).bool()[None]
    evidence.add(queries, torch.randn(1, CHUNKS, 8), layout, visible)
    loss = evidence.mean()
    loss.backward()
    assert loss == 0 and queries.grad.eq(0).all()


def test_chunks_that_were_not_chosen_learn_that_they_are_wanted():
    torch.manual_seed(0)
    config = drt_tiny()
    retriever, size = Retriever(config), config.chunk_size
    layout = RegularLayout(size, 1, CHUNKS * (size - 1), torch.device("cpu"))
    landmarks = torch.randn(1, CHUNKS, config.hidden_size, requires_grad=True)
    nothing = torch.zeros(0)
    memory = EncodedChunks(landmarks, None, nothing, nothing, nothing)
    hidden = torch.randn(1, CHUNKS * size, config.hidden_size)
    plain = retriever(hidden, layout, memory, Retrieval(1))
    missed = next(n for n in range(4) if n != plain.indices[0, 4, 0])
    row = torch.zeros(1, CHUNKS * (size - 1), dtype=torch.long)
    row[0, missed * (size - 1)], row[0, 5 * (size - 1)] = 1, -1
    evidence = Evidence(row)
    chosen = retriever(hidden, layout, memory, Retrieval(1, evidence=evidence))
    assert torch.equal(chosen.indices, plain.indices) and torch.equal(chosen.weights, plain.weights)
    evidence.mean().backward()
    query = retriever.norm(layout.at_landmarks(hidden))[0, 4]
    assert landmarks.grad[0, missed] @ query < 0, "a step down the gradient raises its score"


def test_every_group_of_a_model_takes_part_and_predictions_stay():
    torch.manual_seed(0)
    config = drt_tiny(num_retrieval_groups=2)
    model = DRTForCausalLM(config).train()
    ids = torch.randint(0, config.vocab_size, (2, 5 * config.chunk_size))
    row = torch.zeros_like(ids)
    row[:, 3], row[:, -4:] = 1, -1
    evidence = Evidence(row)
    told = model(ids, labels=ids, retrieval=Retrieval(2, evidence=evidence)).loss
    assert torch.equal(told, model(ids, labels=ids, retrieval=Retrieval(2)).loss)
    model.zero_grad()
    evidence.mean().backward()
    for group in model.model.retrieval_groups:
        assert group.retriever.norm.weight.grad.abs().sum() > 0


def test_a_call_with_a_cache_is_refused():
    config = drt_tiny()
    model = DRTForCausalLM(config)
    ids = torch.randint(0, config.vocab_size, (1, 3 * config.chunk_size))
    retrieval = Retrieval(2, evidence=Evidence(torch.zeros_like(ids)))
    with pytest.raises(ValueError, match="evidence needs a call without a cache"):
        model(ids, use_cache=True, retrieval=retrieval)
