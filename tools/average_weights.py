"""Average the weights of models that were trained on from the same one.

`python tools/average_weights.py OUT MODEL MODEL …` writes OUT as `gcattn train` would, in float32.
Each may have a `retrieval_temperature` of its own: it goes into the weights of the retrievers'
norms, and OUT has a temperature of 1. `--sink-logit` gives OUT a sink that they were trained
without.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

from torch import Tensor

from gcattn.evals.model_loading import load_causal_lm
from gcattn.nn.retriever import Retriever


def main() -> None:
    """Read the arguments and write the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder of the average, which must not exist")
    parser.add_argument("models", nargs="+", help="folders of saved models")
    parser.add_argument("--sink-logit", type=float, help="sink of the cross-attention")
    arguments = parser.parse_args()
    if arguments.out.exists():
        parser.error(f"{arguments.out} exists already.")
    model = average(arguments.models)
    if arguments.sink_logit is not None:
        model.config.softmax_off_by_one = True
        model.config.sink_logit = arguments.sink_logit
    model.save_pretrained(arguments.out)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(arguments.models[0]) / name, arguments.out / name)
    print(arguments.out)


def average(folders: list[str]) -> Any:
    """Return a model with the mean of the weights.

    Raises:
        ValueError: The models differ in more than their temperature.
    """
    models: list[Any] = [
        load_causal_lm(folder, device="cpu", dtype="float32") for folder in folders
    ]
    weights = [_weights(model) for model in models]
    kinds = {model.config.to_json_string(use_diff=False) for model in models}
    if len(kinds) > 1:
        raise ValueError(f"{', '.join(folders)} must be of one configuration, temperature aside.")
    mean = {name: sum(own[name] for own in weights) / len(weights) for name in weights[0]}
    models[0].load_state_dict(mean)
    return models[0]


def _weights(model: Any) -> dict[str, Tensor]:
    """Return the weights at a temperature of 1, which the configuration has from then on."""
    for module in model.modules():
        if isinstance(module, Retriever):
            module.norm.weight.data /= model.config.retrieval_temperature
            module.score_scale = 1.0
    model.config.retrieval_temperature = 1.0
    model.config._name_or_path = ""
    return {name: weight.clone() for name, weight in model.state_dict().items()}


if __name__ == "__main__":
    main()
