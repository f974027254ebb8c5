"""Make a checkpoint ready to be handed out: `python -m tools.release_checkpoint RUN NAME`.

Writes checkpoints/NAME: weights in bfloat16 in files of at most 15 MB, tokenizer, the training
configuration, and a model card with the tables that `--tables` names.
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from gcattn.data.needle_tasks.plan import TEXT
from gcattn.evals.model_loading import load_causal_lm
from results.tables.overview import TABLES
from results.tables.study import scores, values

ROOT = Path(__file__).parents[1]
SHARD_SIZE = "15MB"
_NO_TASKS: dict[str, Any] = {"mixture": {}}
# what stands above a table in the card
_WHOLE = "the whole answer, generated greedily; a question may end anywhere in a chunk"
_CAPTIONS = {
    "needle-12m": f"Needles in books. Right is {_WHOLE}. Beside it the lenient score of the first "
    "token under the true text.",
    "needle-texts": "The same in other text.",
    "release-needles": f"Needles in books. Right is {_WHOLE}. `worded-…` and `people` state and "
    "ask in words that training never used.",
    "release-ruler": "RULER's tasks: its score in percent, and in how many samples every reference "
    "was found.",
    "release-losses": "Text that training never saw, by the first tokens of a document.",
}


def main() -> None:
    """Read the arguments and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="output folder of gcattn train")
    parser.add_argument("name", help="name of the checkpoint")
    parser.add_argument("--data", required=True, help="what it was trained on, and the licence")
    parser.add_argument(
        "--averaged", type=int, default=1, help="number of last stages whose mean the weights are"
    )
    parser.add_argument(
        "--processes",
        type=int,
        nargs="+",
        default=[1],
        help="number of processes that trained together, of all stages or of each",
    )
    parser.add_argument(
        "--tables", nargs="+", required=True, choices=_CAPTIONS, help="tables of its scores"
    )
    arguments = parser.parse_args()
    folder = ROOT / "checkpoints" / arguments.name
    if not (folder / "config.json").exists():
        save_weights(arguments.run, folder)
    card = model_card(
        arguments.name,
        folder,
        arguments.data,
        arguments.tables,
        averaged=arguments.averaged,
        processes=arguments.processes,
    )
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


def model_card(
    name: str,
    folder: Path,
    data: str,
    tables: list[str],
    *,
    averaged: int = 1,
    processes: Sequence[int] = (1,),
) -> str:
    """Return the card: what the model is, how it was made, what it can do."""
    model = load_causal_lm(str(folder), device="cpu", dtype="float32")
    stages = sorted(folder.glob("training*.yaml"))
    configs = [yaml.safe_load(stage.read_text(encoding="utf-8")) for stage in stages]
    together = list(processes) * (len(configs) if len(processes) == 1 else 1)
    tokens = sum(n * _tokens(config) for n, config in zip(together, configs, strict=True))
    tasks = {name: None for config in configs for name in (config["tasks"] or _NO_TASKS)["mixture"]}
    tasks.pop(TEXT, None)
    commands = ", ".join(
        f"`gcattn train {stage.name}`" + (f" in {n} processes" if n > 1 else "")
        for n, stage in zip(together, stages, strict=True)
    )
    if averaged > 1:
        commands += f", and `python tools/average_weights.py` of the last {averaged} models"
        if model.config.softmax_off_by_one:
            commands += f" with `--sink-logit {model.config.sink_logit:g}`"
    lines = [
        "---",
        "license: apache-2.0",
        "library_name: gcattn",
        "---",
        "",
        f"# {name}",
        "",
        f"A Differentiable Retrieval-based Transformer of {model.num_parameters():,} parameters, "
        f"trained on {tokens / 1e6:.1f}M tokens in rows of at most "
        f"{max(config['data']['sequence_length'] for config in configs):,}.",
        "",
        f"- **Data:** {data}",
        f"- **Needles:** {', '.join(tasks)}; keys and values of evaluation are never those of "
        "training",
        f"- **Commands:** {commands}, with the data prepared to the paths in the files"
        f"{_commit(TABLES[tables[0]][0])}",
        "- **Licence of the weights:** Apache-2.0",
        "",
        "## Scores",
    ]
    for name_of_table in tables:
        lines += ["", _CAPTIONS[name_of_table], "", TABLES[name_of_table][1]().rstrip("\n")]
    commands_of_scores = values([x for t in tables for x in scores(TABLES[t][0])], "command")
    lines += ["", "By these commands:", "", "```sh", *commands_of_scores, "```"]
    return "\n".join(lines) + "\n"


def _commit(study: str) -> str:
    """Return the commit that the weights were made and first asked with, if a score names it."""
    commits = [commit for commit in values(scores(study), "commit") if commit is not None]
    return f"; rows with needles are those of commit {commits[0][:10]}" if commits else ""


def _tokens(config: dict[str, Any]) -> int:
    section = config["training"]
    rows = section["batch_size"] * section["gradient_accumulation"]
    return int(section["steps"] * rows * config["data"]["sequence_length"])


if __name__ == "__main__":
    main()
