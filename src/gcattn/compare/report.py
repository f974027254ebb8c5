"""From runs to what is compared: gains, shares of the gap, what retrieval is worth.

Differences between models are taken document by document, so that what makes a document hard
cancels; their spread is over documents, and over seeds where there are several.

Shapes: N documents, P ranges of positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from gcattn.compare.suite import Suite, suite_texts
from gcattn.evals.spread import mean_and_spread


def compare(suite: Suite, evaluations: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Put the finished runs of a suite side by side.

    Returns:
        `positions`; `models`: for each model its best learning rate, its size, speed and memory,
        the loss of each text by position with every seed, and, against the window model, the gain
        by position (`gain`), what of it grows with position (`long_range_gain`: gain in the last
        range that the text reaches less gain in the first), the share of the gap to full attention
        (`share_of_gap`; None where full attention is not ahead of the window by two standard errors
        over documents), and what switching retrieval off or making it random costs (`off`,
        `random`); `learning_rates`: the mean loss of every run.
    """
    by_model: dict[str, list[dict[str, Any]]] = {}
    for evaluation in evaluations:
        by_model.setdefault(evaluation["model"], []).append(evaluation)
    selecting = [name for name, text in suite_texts(suite).items() if text.selects]
    best = {name: _best_rate(runs, selecting) for name, runs in by_model.items()}
    chosen = {
        name: sorted(
            (run for run in runs if run["learning_rate"] == best[name]), key=lambda r: r["seed"]
        )
        for name, runs in by_model.items()
    }
    return {
        "positions": suite.positions,
        "models": {name: _model(suite, runs, chosen) for name, runs in chosen.items()},
        "learning_rates": {
            name: {
                f"{run['learning_rate']:g}, seed {run['seed']}": round(_overall(run, selecting), 4)
                for run in runs
            }
            for name, runs in by_model.items()
        },
    }


def _model(
    suite: Suite, runs: list[dict[str, Any]], chosen: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    keys = ("steps", "tokens", "parameters", "flops_per_token")
    peaks = [run["peak_memory_gib"] for run in runs if run["peak_memory_gib"] is not None]
    return {
        "learning_rate": runs[0]["learning_rate"],
        "seeds": [run["seed"] for run in runs],
        **{key: runs[0][key] for key in keys},
        "peak_memory_gib": max(peaks, default=None),
        "devices": max(run.get("devices", 1) for run in runs),
        "tokens_per_second": round(mean(run["tokens_per_second"] for run in runs)),
        "texts": {
            name: _text(name, runs, chosen.get(suite.window, []), chosen.get(suite.full or "", []))
            for name in suite_texts(suite)
        },
    }


def _text(
    name: str,
    runs: list[dict[str, Any]],
    window: list[dict[str, Any]],
    full: list[dict[str, Any]],
) -> dict[str, Any]:
    ours = [_losses(run, name) for run in runs]
    seen = _reached(ours[0])
    text: dict[str, Any] = {
        "num_documents": ours[0].shape[0],
        "loss": _by_position([x.mean(0) for x in ours]),
    }
    for way in ("off", "random"):
        if way in runs[0]["texts"][name]["losses"]:
            lost = [_losses(run, name, way) - x for run, x in zip(runs, ours, strict=True)]
            text[way] = _by_position([x.mean(0) for x in lost])
    if window:
        base = torch.stack([_losses(run, name) for run in window]).mean(0)
        gains = [base - x for x in ours]
        grows = [x[:, seen] - x[:, 0] for x in gains]
        text["gain"] = _by_position([x.mean(0) for x in gains])
        text["long_range_gain"] = mean_and_spread([float(x.mean()) for x in grows])
        if len(base) > 1:
            error = float(torch.stack(grows).mean(0).std()) / math.sqrt(len(base))
            text["long_range_gain"]["standard_error"] = error
        if full:
            gaps = base - torch.stack([_losses(run, name) for run in full]).mean(0)  # [N, P]
            gap = gaps.mean(0)
            # full attention that is not clearly ahead leaves no gap to win a share of
            gap_error = gaps.std(0) / math.sqrt(len(gaps)) if len(gaps) > 1 else torch.zeros(1)
            is_gap = gap > 2 * gap_error
            shares = [(x.mean(0) / gap).masked_fill(~is_gap, math.nan) for x in gains]
            text["gap"] = _numbers(gap)
            text["share_of_gap"] = _by_position(shares)
    return text


def _losses(run: dict[str, Any], text: str, way: str = "learned") -> Tensor:
    """Return the losses of a run, [N, P], NaN where a text does not reach."""
    rows = run["texts"][text]["losses"][way]
    return torch.tensor([[math.nan if x is None else x for x in row] for row in rows]).double()


def _reached(losses: Tensor) -> int:
    """Return the last range of positions that the documents reach."""
    return int((~losses.isnan()).all(0).nonzero().max())


def _overall(run: dict[str, Any], texts: Sequence[str]) -> float:
    """Return the mean over texts of the mean loss, every range of positions alike."""
    return mean(float(_losses(run, text).nanmean()) for text in texts)


def _best_rate(runs: list[dict[str, Any]], texts: Sequence[str]) -> float:
    by_rate: dict[float, list[float]] = {}
    for run in runs:
        by_rate.setdefault(run["learning_rate"], []).append(_overall(run, texts))
    return min(by_rate, key=lambda rate: mean(by_rate[rate]))


def _by_position(seeds: list[Tensor]) -> dict[str, Any]:
    stacked = torch.stack(seeds)
    values: dict[str, Any] = {"mean": _numbers(stacked.mean(0))}
    if len(seeds) > 1:
        values["standard_deviation"] = _numbers(stacked.std(0))
    return values


def _numbers(x: Tensor) -> list[float | None]:
    return [round(value, 5) if math.isfinite(value) else None for value in x.tolist()]
