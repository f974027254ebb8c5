"""Peers on the library's own parts: what holds for a DRT holds for them (float64 on the CPU)."""

import pytest
import torch
from transformers import BertConfig, BertModel

from gcattn.data.tokenizer_loading import load_tokenizer
from gcattn.memory.cache import DRTCache
from gcattn.models.baselines import TextEncoder, attach_text_encoder
from gcattn.testing import random_config, random_model, random_tokens

EXACT = {"rtol": 0, "atol": 1e-10}
PEERS = {
    "window": {},
    "full attention": {"window_size": 1000},
    "landmark": {"self_attention": "landmark"},
    "block-recurrent": {"num_recurrent_states": 5, "retrieval_serves": "next_chunk"},
    "fixed retriever": {"retrieval_method": "fixed"},
    "landmark, two blocks": {"self_attention": "landmark", "landmark_top_k": 2},
}
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 4))]


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def bag_of_tokens(chunks):
    """Stand in for an encoder of text: chunks that share tokens are alike, [n, S - 1] → [n, P]."""
    table = torch.randn(62, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    table[0] = 0  # of -1, behind a short chunk
    return torch.nn.functional.normalize(table[chunks + 1].sum(1), dim=-1)


@pytest.fixture(params=PEERS)
def peer(request):
    def make(seed):
        config = random_config(seed, **({"retrieval_method": "none"} | PEERS[request.param]))
        model = random_model(config)
        model.model.chunk_embedder = bag_of_tokens
        return model

    return make


def segmented(model, ids, sizes, **kwargs):
    cache, logits, at = DRTCache(model.config), [], 0
    for size in sizes:
        here = {name: x[:, at : at + size] for name, x in kwargs.items()}
        logits.append(model(ids[:, at : at + size], past_key_values=cache, **here).logits)
        at += size
    return torch.cat(logits, dim=1)


@pytest.mark.parametrize("seed", SEEDS)
def test_segmented_forward_equals_full_forward(peer, seed):
    model = peer(seed)
    ids = random_tokens(model.config, 2, 97, seed)
    breaks = torch.rand(2, 97, generator=torch.Generator().manual_seed(seed)) < 0.1
    full = model(ids, use_cache=False, chunk_breaks=breaks).logits
    for sizes in ([1, 40, 3, 53], [64, 33]):
        torch.testing.assert_close(segmented(model, ids, sizes, chunk_breaks=breaks), full, **EXACT)


@pytest.mark.parametrize("seed", SEEDS)
def test_token_by_token_equals_full_forward(peer, seed):
    model = peer(seed)
    ids = random_tokens(model.config, 2, 40, seed)
    full = model(ids, use_cache=False).logits
    torch.testing.assert_close(segmented(model, ids, [1] * 40), full, **EXACT)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_last_logits_are_those_of_the_full_forward(peer, seed):
    # the upper decoder is cut to what it can see: for landmarks that is everything
    model = peer(seed)
    ids = random_tokens(model.config, 2, 150, seed)
    full = model(ids, use_cache=False).logits
    torch.testing.assert_close(model(ids, logits_to_keep=1).logits, full[:, -1:], **EXACT)


@pytest.mark.parametrize("seed", SEEDS)
def test_batch_row_equals_row_alone(peer, seed):
    model = peer(seed)
    ids = random_tokens(model.config, 2, 50, seed)
    mask = torch.ones_like(ids)
    mask[1, :21] = 0
    batched = model(ids, attention_mask=mask).logits
    torch.testing.assert_close(batched[1:, 21:], model(ids[1:, 21:]).logits, **EXACT)
    torch.testing.assert_close(batched[:1], model(ids[:1]).logits, **EXACT)


@pytest.mark.parametrize("seed", SEEDS)
def test_padding_stays_out_of_the_cache(peer, seed):
    model = peer(seed)
    ids = random_tokens(model.config, 2, 60, seed)
    mask = torch.ones_like(ids)
    mask[1, :13] = 0
    cache = DRTCache(model.config)
    model(ids[:, :40], attention_mask=mask[:, :40], past_key_values=cache)
    after = model(ids[:, 40:], attention_mask=mask, past_key_values=cache).logits
    alone = model(ids[1:, 13:]).logits[:, -20:]
    torch.testing.assert_close(after[1:], alone, **EXACT)


@pytest.mark.parametrize("seed", SEEDS)
def test_packed_documents_equal_separate_documents(peer, seed):
    model = peer(seed)
    ids = random_tokens(model.config, 1, 80, seed)
    documents = (torch.arange(80) >= 33).long()[None]
    packed = model(ids, document_ids=documents).logits
    for part in (slice(0, 33), slice(33, 80)):
        torch.testing.assert_close(packed[:, part], model(ids[:, part]).logits, **EXACT)


@pytest.mark.parametrize("seed", SEEDS)
def test_future_tokens_cannot_change_past_logits(peer, seed):
    model = peer(seed)
    ids = random_tokens(model.config, 1, 70, seed)
    changed = ids.clone()
    changed[:, 45:] = (changed[:, 45:] + 1) % model.config.vocab_size
    torch.testing.assert_close(
        model(changed).logits[:, :45], model(ids).logits[:, :45], rtol=0, atol=0
    )


@pytest.mark.parametrize("name", ["landmark", "block-recurrent"])
def test_a_peer_reaches_beyond_the_window(name):
    # chunks of 5 and a window of 4: the first token is far out of the window's reach
    model = random_model(random_config(0, retrieval_method="none", window_size=4, **PEERS[name]))
    ids = random_tokens(model.config, 1, 120)
    changed = ids.clone()
    changed[0, 0] = (ids[0, 0] + 1) % model.config.vocab_size
    assert (model(ids).logits[0, -1] - model(changed).logits[0, -1]).abs().max() > 1e-9


def test_what_recurs_is_counted_and_learns():
    config = random_config(1, retrieval_method="none", **PEERS["block-recurrent"])
    model = random_model(config)
    assert config.count_parameters() == sum(p.numel() for p in model.parameters())
    plain = random_config(1, retrieval_method="none")
    assert config.flops_per_token() > plain.flops_per_token()
    ids = random_tokens(config, 2, 90)
    with torch.enable_grad():
        model(ids, labels=ids).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_a_fixed_retriever_finds_the_chunk_that_shares_most_tokens():
    config = random_config(0, retrieval_method="fixed", chunk_size=6, retrieval_top_k=2)
    model = random_model(config)
    ids = torch.tensor([[*range(1, 6), *range(11, 16), *range(21, 26), *range(11, 16)]])
    with pytest.raises(ValueError, match=r"attach one with .*attach_text_encoder"):
        model(ids)
    model.model.chunk_embedder = bag_of_tokens
    retrieved = model(ids, output_retrieval=True).retrieval[0]
    assert retrieved.indices[0, 3, 0] == 1  # the last chunk repeats the second
    assert retrieved.weights[0, 3, 0] > 0.5
    with pytest.raises(ValueError, match="needs input_ids"):
        model(inputs_embeds=model.get_input_embeddings()(ids))


def test_a_text_encoder_embeds_what_a_chunk_says(tmp_path):
    tokenizer = load_tokenizer()
    encoder = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
    )
    BertModel(encoder).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    embed = TextEncoder(tokenizer, str(tmp_path))
    texts = ["the key of the garden", "a ship", "the key of the garden"]
    chunks = torch.full((3, 9), -1)
    for row, text in enumerate(texts):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        chunks[row, : len(ids)] = torch.tensor(ids)
    one, other, again = embed(chunks)
    torch.testing.assert_close(one, again)
    assert one.norm().item() == pytest.approx(1) and not torch.allclose(one, other)
    torch.testing.assert_close(embed(chunks[1:2])[0], other)  # padding changes nothing
    assert embed(chunks[:0]).shape == (0, 8)
    config = random_config(0, retrieval_method="fixed", fixed_retriever=str(tmp_path))
    model = random_model(config)
    attach_text_encoder(model, tokenizer)
    assert isinstance(model.model.chunk_embedder, TextEncoder)
    with pytest.raises(ValueError, match="needs fixed_retriever"):
        attach_text_encoder(random_model(random_config(0, retrieval_method="fixed")), tokenizer)


def test_peers_of_retrieval_and_retrieval_exclude_each_other():
    with pytest.raises(ValueError, match="is a peer of retrieval"):
        random_config(0, self_attention="landmark")
    with pytest.raises(ValueError, match="num_recurrent_states is a peer of retrieval: it needs"):
        random_config(0, num_recurrent_states=4)
    with pytest.raises(ValueError, match="landmark_top_k must be at least 1"):
        random_config(0, retrieval_method="none", self_attention="landmark", landmark_top_k=0)
