"""Make a checkpoint ready to be handed out: `python tools/release_checkpoint.py RUN NAME`.

Writes checkpoints/NAME: weights in bfloat16 in files of at most 15 MB, tokenizer, the training
configuration, and a model card whose numbers come from the result files given with `--result`.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml

from gcattn.evals.lengths import format_length
from gcattn.evals.model_loading import load_causal_lm

ROOT = Path(__file__).parents[1]
SHARD_SIZE = "15MB"


def main() -> None:
    """Read the arguments and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="output folder of gcattn train")
    parser.add_argument("name", help="name of the checkpoint")
    parser.add_argument("--data", required=True, help="what it was trained on, and the licence")
    parser.add_argument("--result", type=Path, nargs="*", default=[], help="needle result files")
    arguments = parser.parse_args()
    folder = ROOT / "checkpoints" / arguments.name
    if not (folder / "config.json").exists():
        save_weights(arguments.run, folder)
    card = model_card(arguments.name, folder, arguments.data, arguments.result)
    (folder / "README.md").write_text(card, encoding="utf-8")
    print(folder)


def save_weights(run: Path, folder: Path) -> None:
    """Save the model of a run in bfloat16, with its tokenizer and configuration."""
    model: Any = load_causal_lm(str(run / "model"), device="cpu", dtype="float32")
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size=SHARD_SIZE)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(run / "model" / name, folder / name)
    shutil.copy(run / "config.yaml", folder / "training.yaml")
    for file in folder.iterdir():
        file.chmod(0o644)


def model_card(name: str, folder: Path, data: str, results: list[Path]) -> str:
    """Return the card: what the model is, how it was made, what it can do."""
    model = load_causal_lm(str(folder), device="cpu", dtype="float32")
    training = yaml.safe_load((folder / "training.yaml").read_text(encoding="utf-8"))
    section = training["training"]
    rows = section["batch_size"] * section["gradient_accumulation"]
    tokens = section["steps"] * rows * training["data"]["sequence_length"]
    lines = [
        "---",
        "license: apache-2.0",
        "library_name: gcattn",
        "---",
        "",
        f"# {name}",
        "",
        f"A Differentiable Retrieval-based Transformer of {model.num_parameters():,} parameters, "
        f"trained on {tokens / 1e6:.1f}M tokens in rows of {training['data']['sequence_length']}.",
        "",
        f"- **Data:** {data}",
        f"- **Needles:** {', '.join((training['tasks'] or {'mixture': {}})['mixture'])}; keys and "
        "values of evaluation are never those of training",
        "- **Command:** `gcattn train training.yaml`, with the data prepared to the paths in it",
        "- **Licence of the weights:** Apache-2.0",
        "",
        "```sh",
        f"gcattn eval needle checkpoints/{name} --lengths 1k,64k,1m",
        "```",
        "",
        "## Scores",
        "",
        "Exact match of the whole answer, generated greedily; a question may end anywhere in a "
        "chunk. Beside it the lenient score of the first token under the true text.",
    ]
    for result in results:
        lines += ["", *_scores(json.loads(result.read_text(encoding="utf-8")))]
    return "\n".join(lines) + "\n"


def _scores(result: dict[str, Any]) -> list[str]:
    lines = [
        "| task | length | exact | 95 % interval | teacher-forced first token | s per sample |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["metrics"]["by_length"]:
        low, high = row["interval"]
        lines.append(
            f"| {row['task']} | {format_length(row['length'])} | {row['exact']} of {row['trials']} "
            f"| {100 * low:.1f}–{100 * high:.1f} % | "
            f"{100 * row['teacher_forced_first_token']:.1f} % | {row['seconds']:.2f} |"
        )
    hardware = result["hardware"]
    return [
        *lines,
        "",
        f"`{result['command']}` · {hardware.get('gpu', hardware['cpu'])} · "
        f"torch {result['software']['torch']} · {result['date'][:10]}",
    ]


if __name__ == "__main__":
    main()
