"""Auto classes know DRTs after `import gcattn`, or from the model's own folder."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import gcattn
from gcattn.auto_classes import register_lazily
from gcattn.models import DRTConfig, DRTForCausalLM
from gcattn.testing import random_config, random_model

ROOT = Path(__file__).parents[2]
CHECKPOINTS = ROOT / "checkpoints"


def run(code, *arguments, **environment):
    """Run Python code in a fresh interpreter; returns what it printed."""
    environment = {"PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"} | environment
    ended = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout.split()


@pytest.fixture
def folder(tmp_path):
    random_model(random_config(5)).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.slow
@pytest.mark.parametrize(
    "first", ["gcattn", "transformers", "transformers.models.auto.modeling_auto"]
)
def test_importing_gcattn_is_light_and_enough(folder, first):
    code = f"""
import sys
import {first}
import gcattn
if "{first}" == "gcattn":
    print("torch" in sys.modules or "transformers" in sys.modules)
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers import AutoModelForSequenceClassification
print("gcattn.models" in sys.modules)
for auto in (AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification):
    print(type(auto.from_pretrained(sys.argv[1])).__name__)
"""
    printed = run(code, folder)
    assert printed[-5:] == [
        "False",
        "DRTConfig",
        "DRTModel",
        "DRTForCausalLM",
        "DRTForSequenceClassification",
    ]
    assert printed[0] == "False"


def test_auto_classes_that_are_imported_after_gcattn_load_it_when_asked(folder, monkeypatch):
    """`import gcattn` itself loads nothing: see tests/test_repository.py."""
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    package = sys.modules["transformers.models.auto"]
    for name in ("configuration_auto", "modeling_auto"):
        monkeypatch.delitem(sys.modules, f"{package.__name__}.{name}")
        monkeypatch.setattr(package, name, getattr(package, name))  # put back afterwards
    asked = []

    class Package(ModuleType):
        def __getattr__(self, name):
            asked.append(name)
            return getattr(gcattn, name)

    register_lazily(Package("gcattn"))
    auto = importlib.import_module("transformers.models.auto.modeling_auto")
    config_auto = importlib.import_module("transformers.models.auto.configuration_auto")
    assert asked == []
    assert type(config_auto.AutoConfig.from_pretrained(folder)) is DRTConfig
    for name in ("", "ForCausalLM", "ForSequenceClassification"):
        model = getattr(auto, f"AutoModel{name}").from_pretrained(folder)
        assert type(model) is getattr(gcattn, f"DRT{name or 'Model'}")
    assert set(asked) >= {"DRTConfig", "DRTModel", "DRTForCausalLM", "DRTForSequenceClassification"}


@pytest.mark.slow
def test_a_folder_brings_what_trust_remote_code_runs(folder):
    code = """
import sys
from transformers import AutoConfig, AutoModelForCausalLM
assert "gcattn" not in sys.modules
config = AutoConfig.from_pretrained(sys.argv[1], trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
print(type(config).__module__, type(model).__module__)
model.save_pretrained(sys.argv[2])
again = AutoModelForCausalLM.from_pretrained(sys.argv[2], trust_remote_code=True)
print(type(again).__module__)
"""
    copy = folder.parent / "copy"
    names = ["gcattn.models.configuration_drt", *["gcattn.models.causal_lm"] * 2]
    assert run(code, folder, copy, HF_MODULES_CACHE=str(folder.parent / "modules")) == names
    # no copy of the package's source, only what says where it is
    assert [file.name for file in copy.glob("*.py")] == ["modeling_gcattn.py"]
    auto_map = json.loads((copy / "config.json").read_text())["auto_map"]
    assert auto_map["AutoModelForCausalLM"] == "modeling_gcattn.DRTForCausalLM"


def test_without_gcattn_the_folder_says_what_is_missing(folder):
    code = """
import sys
sys.modules["gcattn"] = None
sys.path.insert(0, sys.argv[1])
try:
    import modeling_gcattn
except ImportError as error:
    print(error)
"""
    assert " ".join(run(code, folder)).startswith("This model needs the package gcattn: run `pip")


@pytest.mark.skipif(not CHECKPOINTS.exists(), reason="the source distribution holds no checkpoint")
@pytest.mark.parametrize("name", ["gcattn-tiny", "gcattn-12m"])
def test_released_checkpoints_hold_the_file_that_models_are_saved_with_today(name, folder):
    released, saved = CHECKPOINTS / name, folder
    file = "modeling_gcattn.py"
    assert (released / file).read_text() == (saved / file).read_text()
    configs = [json.loads((f / "config.json").read_text()) for f in (released, saved)]
    assert configs[0]["auto_map"] == configs[1]["auto_map"]


@pytest.mark.parametrize("attention", ["sdpa", "eager", None])
def test_any_attention_that_pytorch_has_may_be_asked_for(folder, attention):
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention)
    assert isinstance(model, DRTForCausalLM)
    assert isinstance(DRTConfig.from_pretrained(folder, attn_implementation=attention), DRTConfig)


def test_keys_of_others_in_a_file_are_kept(folder):
    file = folder / "config.json"
    notes = {
        "max_position_embeddings": 4096,
        "max_length": 20,
        "my_note": {"by": "me"},
        "auto_map": {"AutoConfig": "elsewhere.Config"},
    }
    file.write_text(json.dumps(json.loads(file.read_text()) | notes))
    config = AutoConfig.from_pretrained(folder)
    assert config.my_note == {"by": "me"} and config.max_position_embeddings == 4096
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.config.another = [1, 2]
    model.save_pretrained(folder.parent / "copy")
    again = AutoConfig.from_pretrained(folder.parent / "copy")
    assert (again.my_note, again.another) == ({"by": "me"}, [1, 2])
    assert again.auto_map["AutoConfig"] == "modeling_gcattn.DRTConfig"


def test_misspelt_fields_are_caught_in_python_and_warned_of_in_a_file(folder, caplog):
    with pytest.raises(ValueError, match="no field 'chunk_sise'; did you mean chunk_size"):
        DRTConfig(chunk_sise=8)
    with pytest.raises(ValueError, match="no field 'my_note'"):
        DRTConfig(my_note=1)
    with pytest.raises(ValueError, match="no field 'chunk_sise'; did you mean chunk_size"):
        DRTConfig.from_pretrained(folder, chunk_sise=8)
    with caplog.at_level("WARNING", "gcattn.models.configuration_drt"):
        loaded = DRTConfig.from_dict({"hidden_sise": 96})
    assert loaded.hidden_size == 768


def test_a_saved_configuration_is_the_configuration(tmp_path):
    for seed in range(3):
        config = random_config(seed, eos_token_id=3)
        config.save_pretrained(tmp_path)
        loaded = AutoConfig.from_pretrained(tmp_path).to_dict()
        assert loaded | {"_name_or_path": ""} == config.to_dict()


def test_the_harness_wrapper_says_what_is_missing():
    code = """
import runpy, sys
sys.modules["lm_eval"] = None
sys.argv = ["lm_eval"]
try:
    runpy.run_module("gcattn.lm_eval", run_name="__main__")
except SystemExit as ended:
    print(ended)
"""
    assert "pip install lm-eval" in " ".join(run(code))


def test_loading_in_another_dtype_keeps_the_file_beside_the_weights(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model.save_pretrained(folder.parent / "half")
    assert (folder.parent / "half" / "modeling_gcattn.py").is_file()
