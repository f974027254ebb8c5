"""lm-evaluation-harness's own needle tasks run unchanged through `python -m gcattn.lm_eval`."""

import json
import os
import subprocess
import sys

import pytest
import torch

from gcattn.data import load_tokenizer
from gcattn.models import DRTForCausalLM, drt_tiny

pytest.importorskip("lm_eval")
pytest.importorskip("wonderwords")


@pytest.mark.slow
def test_needle_tasks_of_the_harness_run_unchanged(tmp_path):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
    DRTForCausalLM(drt_tiny(vocab_size=16_384, **sizes)).save_pretrained(tmp_path / "model")
    load_tokenizer().save_pretrained(tmp_path / "model")
    tasks = "niah_single_1,niah_multikey_2,niah_multikey_3"
    command = [sys.executable, "-m", "gcattn.lm_eval", "--model", "hf", "--device", "cpu"]
    command += ["--model_args", f"pretrained={tmp_path / 'model'},max_length=2048"]
    command += ["--tasks", tasks, "--limit", "1", "--output_path", str(tmp_path / "out")]
    command += ["--metadata", '{"max_seq_lengths":[1024]}']
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (file,) = (tmp_path / "out").rglob("results_*.json")
    results = json.loads(file.read_text())["results"]
    assert set(results) == set(tasks.split(","))
    assert all(0 <= result["1024,none"] <= 1 for result in results.values())
