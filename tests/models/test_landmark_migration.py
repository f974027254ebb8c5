"""A model saved while the landmark was an id is rewritten without a change of its logits."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from gcattn.data import load_tokenizer
from gcattn.models import DRTForCausalLM
from gcattn.models.landmark_migration import LANDMARK, main, migrate_checkpoint
from gcattn.testing import random_config, random_model, random_tokens


def save_as_before(model, folder, **options):
    """Save a model with the landmark's row behind the text's."""
    model.save_pretrained(folder, **options)
    config = json.loads((folder / "config.json").read_text())
    config |= {"vocab_size": 62, "landmark_token_id": 61}
    (folder / "config.json").write_text(json.dumps(config))
    landmark = model.model.embed_landmark.weight.detach()
    for file in folder.glob("*.safetensors"):
        tensors = load_file(file)
        tensors.pop("model.embed_landmark.weight", None)
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            if name in tensors:
                tensors[name] = torch.cat([tensors[name], landmark])
        save_file(tensors, file, {"format": "pt"})
    return folder


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shard_size", ["10MB", "20KB"])
def test_a_migrated_model_has_the_same_weights_bitwise_and_gives_the_same_logits(
    tied, shard_size, tmp_path
):
    model = random_model(random_config(5, tie_word_embeddings=tied))
    with torch.no_grad():
        model.model.embed_landmark.weight.normal_()
    old = save_as_before(model, tmp_path / "old", max_shard_size=shard_size)
    with pytest.raises(ValueError, match="landmark_migration"):
        DRTForCausalLM.from_pretrained(old)
    migrate_checkpoint(old, tmp_path / "new")
    migrated = DRTForCausalLM.from_pretrained(tmp_path / "new", dtype=torch.float64).eval()
    for name, weight in model.state_dict().items():
        assert torch.equal(migrated.state_dict()[name], weight), name
    ids = random_tokens(model.config, 2, 40)
    with torch.no_grad():
        torch.testing.assert_close(migrated(ids).logits, model(ids).logits, rtol=0, atol=1e-12)


def test_the_tokenizer_loses_the_landmark_and_nothing_else(tmp_path):
    tokenizer = load_tokenizer()
    old = save_as_before(random_model(random_config(5)), tmp_path / "old")
    tokenizer.save_pretrained(old)
    state = json.loads((old / "tokenizer.json").read_text())
    state["model"]["vocab"][LANDMARK] = len(tokenizer)
    special = {**state["added_tokens"][0], "id": len(tokenizer), "content": LANDMARK}
    state["added_tokens"].append(special)
    (old / "tokenizer.json").write_text(json.dumps(state))
    config = json.loads((old / "tokenizer_config.json").read_text())
    config["extra_special_tokens"] = [LANDMARK]
    (old / "tokenizer_config.json").write_text(json.dumps(config))
    assert len(load_tokenizer(old)) == len(tokenizer) + 1
    migrate_checkpoint(old, tmp_path / "new")
    assert load_tokenizer(tmp_path / "new").get_vocab() == tokenizer.get_vocab()


def test_what_cannot_be_migrated_is_one_line(tmp_path, monkeypatch, capsys):
    model = random_model(random_config(5))
    old = save_as_before(model, tmp_path / "old")
    (tmp_path / "taken").mkdir()
    model.save_pretrained(tmp_path / "today")
    other = save_as_before(model, tmp_path / "other")
    config = json.loads((other / "config.json").read_text()) | {"landmark_token_id": 5}
    (other / "config.json").write_text(json.dumps(config))
    capsys.readouterr()
    for folder, new, message in (
        (tmp_path / "nowhere", "new", "holds no saved model"),
        (old, "taken", "exists already"),
        (tmp_path / "today", "new", "is up to date"),
        (other, "new", "is id 5; only the last one, 61"),
    ):
        monkeypatch.setattr("sys.argv", ["migrate", str(folder), str(tmp_path / new)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr().err
        assert ended.value.code == 1 and message in said and said.count("\n") == 1
    assert not (tmp_path / "new").exists()
