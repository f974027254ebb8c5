"""Other libraries: quantized loading, prompt tuning, training by TRL, several processes."""

import math

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

from gcattn.models import DRTForCausalLM, drt_tiny
from gcattn.testing import random_config, random_model, random_tokens


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    model = DRTForCausalLM(drt_tiny(vocab_size=61, landmark_pooling=True, landmark_overlap=2))
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def quantization(name):
    if name == "torchao":
        torchao = pytest.importorskip("torchao.quantization")
        from transformers import TorchAoConfig

        return TorchAoConfig(torchao.Int8WeightOnlyConfig())
    pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(**{name: True})


@pytest.mark.parametrize("name", ["torchao", "load_in_8bit", "load_in_4bit"])
def test_a_model_loads_quantised_and_stays_near_itself(folder, name):
    config = quantization(name)
    ids = random_tokens(drt_tiny(vocab_size=61), 2, 70)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model, report = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=config, dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    with torch.no_grad():
        expected, output = plain(ids, labels=ids), model.eval()(ids, labels=ids)
    assert output.loss.item() == pytest.approx(expected.loss.item(), rel=0.05)
    near = F.cosine_similarity(output.logits.float(), expected.logits, dim=-1)
    assert near.mean() > 0.9
    assert model.generate(ids, do_sample=False, max_new_tokens=3, pad_token_id=0).shape == (2, 73)


def test_no_linear_layer_is_given_more_than_three_dimensions():
    model = random_model(random_config(1, landmark_pooling=True, landmark_overlap=1))
    dimensions = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(
                lambda _, args, name=name: dimensions.update({name: args[0].dim()})
            )
    model(random_tokens(model.config, 2, 80))
    assert dimensions and max(dimensions.values()) <= 3


@pytest.mark.parametrize("kind", ["PromptTuningConfig", "PromptEncoderConfig"])
@pytest.mark.parametrize("length", [12, 40])
def test_virtual_tokens_of_peft_are_read_before_the_prompt(kind, length):
    peft = pytest.importorskip("peft")
    model = random_model(random_config(3, chunk_size=6))
    options = {"encoder_hidden_size": 16} if kind == "PromptEncoderConfig" else {}
    config = getattr(peft, kind)(task_type="CAUSAL_LM", num_virtual_tokens=7, **options)
    tuned = peft.get_peft_model(model, config).double().eval()
    ids = random_tokens(model.config, 2, length)
    greedy = {"do_sample": False, "max_new_tokens": 9, "pad_token_id": 0}
    found = tuned.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **greedy)
    virtual = tuned.get_prompt(batch_size=2)
    embeds = torch.cat([virtual, model.get_input_embeddings()(ids)], dim=1)
    expected = model.generate(inputs_embeds=embeds, **greedy)
    assert torch.equal(found[:, length:], expected)
    tuned(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss.backward()
    assert any(p.grad is not None and p.grad.any() for p in tuned.parameters())


@pytest.mark.parametrize(
    "options",
    [{}, {"packing": True}, {"padding_free": True, "max_length": None}],
    ids=["padded", "bfd", "flat"],
)
def test_trl_tunes_an_adapter(folder, options, tmp_path):
    trl, peft = pytest.importorskip("trl"), pytest.importorskip("peft")
    from datasets import Dataset

    from gcattn.data import load_tokenizer

    tokenizer = load_tokenizer()
    rows = [{"input_ids": [2 + (i + j) % 50 for j in range(9 + i % 7)]} for i in range(32)]
    arguments = trl.SFTConfig(
        str(tmp_path / "run"),
        max_steps=3,
        per_device_train_batch_size=4,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        logging_steps=1,
        **({"max_length": 64} | options),
    )
    trainer = trl.SFTTrainer(
        str(folder),
        arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=peft.LoraConfig(target_modules=["q_proj"]),
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 3 and all(math.isfinite(loss) and loss > 0 for loss in losses)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_rows_shorter_than_a_chunk_train_in_several_processes(checkpointing, tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        model = DRTForCausalLM(drt_tiny(vocab_size=61)).train()
        if checkpointing:
            new = getattr(model, "activation_checkpointing_enable", None)
            (new or model.gradient_checkpointing_enable)()
        wrapped = torch.nn.parallel.DistributedDataParallel(model)
        for length in (5, 40, 5, 15, 16, 1 + 5):
            ids = random_tokens(model.config, 2, length)
            wrapped(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    finally:
        torch.distributed.destroy_process_group()


def test_continuous_batching_is_refused_in_one_line():
    model = random_model(random_config(3))
    for method in ("generate_batch", "init_continuous_batching"):
        with pytest.raises(ValueError, match="pass generate\\(\\) a batch"):
            getattr(model, method)([[1, 2]])
