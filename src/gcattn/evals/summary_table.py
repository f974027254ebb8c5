"""The table of a summarization study: a row per model, ROUGE-1, -2 and -L of each data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gcattn.evals.summaries import ROUGE

_HEADS = {"rouge1": "R-1", "rouge2": "R-2", "rougeL": "R-L"}


def summary_table(results: Sequence[dict[str, Any]]) -> str:
    """Lay out results of `gcattn eval summarization` as a Markdown table.

    The best mean of each column is in bold; half the width of its interval follows each mean.
    The first row is the baseline: the first sentences of the documents.

    Args:
        results: Contents of result files; `config.label` names the rows, `config.data_label` the
            data sets.

    Raises:
        ValueError: There are none, two have the same label and data, or one is of another kind.
    """
    if not results:
        raise ValueError("A table needs at least one result.")
    cells: dict[str, dict[str, dict[str, Any]]] = {}
    leads: dict[str, dict[str, Any]] = {}
    for result in results:
        config, found = result["config"], result["metrics"]
        if "label" not in config or "lead_scores" not in found:
            raise ValueError(f"{result['name']} is no result of gcattn eval summarization.")
        row = cells.setdefault(config["label"], {})
        if config["data_label"] in row:
            raise ValueError(
                f"Two results are of {config['label']!r} on {config['data_label']!r}; give one "
                "another --label."
            )
        row[config["data_label"]] = found["scores"]
        leads[config["data_label"]] = found["lead_scores"]
    data = list(leads)
    rows = {"lead 3": leads, **cells}
    best = {
        (name, kind): max(row[name][kind]["mean"] for row in cells.values() if name in row)
        for name in data
        for kind in ROUGE
    }
    heads = [f"{name} {_HEADS[kind]}" for name in data for kind in ROUGE]
    lines = [f"| model | {' | '.join(heads)} |", f"| --- |{' ---: |' * len(heads)}"]
    for label, row in rows.items():
        written = []
        for name in data:
            for kind in ROUGE:
                if name not in row:
                    written.append("")
                    continue
                score = row[name][kind]
                text = f"{score['mean']:.2f}"
                is_best = label in cells and score["mean"] == best[name, kind]
                text = f"**{text}**" if is_best else text
                written.append(f"{text} ± {(score['high'] - score['low']) / 2:.2f}")
        lines.append(f"| {label} | {' | '.join(written)} |")
    return "\n".join(lines) + "\n"
