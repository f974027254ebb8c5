"""The tables of comparisons on natural text."""

from typing import Any

from table_parts import origin, read, table

TEXTS = {"books": -1, "math": -1, "articles": -2}  # which range of positions is the last measured


def natural_12m() -> str:
    """Return losses at the start and far into texts, and what retrieval is worth there."""
    result = read("compare-natural-12m")
    models = result["metrics"]["models"]
    order = sorted(models, key=lambda name: _last(models[name], "math"))
    rows = [
        f"| {name} | {models[name]['learning_rate'] * 1e3:g} | "
        + " | ".join(_cell(models[name]["texts"][text], last) for text, last in TEXTS.items())
        + " |"
        for name in order
    ]
    return table("model | rate · 1000 | books | mathematics | articles", rows) + origin(result)


def _last(model: dict[str, Any], text: str) -> float:
    return model["texts"][text]["loss"]["mean"][TEXTS[text]]


def _cell(text: dict[str, Any], last: int) -> str:
    losses = text["loss"]["mean"]
    cell = f"{losses[0]:.3f} → {losses[last]:.3f}, {text['long_range_gain']['mean']:+.3f}"
    if "off" in text:
        cell += f"; {text['off']['mean'][last]:.2f}, {text['random']['mean'][last]:.2f}"
    return cell
