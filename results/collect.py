"""Puts what commands measured into a study: `python -m results.collect STUDY METHOD FILE ...`.

A study is a JSON Lines file. Each line is one score: of a method, a seed, a task and a length, with
the command that measured it, where and when. Commands write whole records to `runs/results`; this
takes the scores out of them.
"""

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gcattn.results import read_result
from gcattn.storage.whole import new_file

FOLDER = Path(__file__).parent
Line = dict[str, Any]
KEPT_OF_TOKENS = (
    *("p90_ms", "closing_median_ms", "tokens_per_second", "mean_tokens_per_second"),
    *("peak_mib", "unavailable"),
)
FIRST_TOKENS = tuple(
    f"{name}_{what}"
    for name in ("first_token", "uncached_first_token")
    for what in ("ms", "p20_ms", "p90_ms")
)
KEPT_OF_MEMORIES = (*KEPT_OF_TOKENS, "p99_ms", *FIRST_TOKENS, "opens", "fetch_ms")


def main() -> None:
    """Read the arguments and add the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", help="name of results/STUDY.jsonl")
    parser.add_argument(
        "method", help="name of the model or method; for benchmarks, of the comparison"
    )
    parser.add_argument("files", type=Path, nargs="+", help="result files of commands")
    parser.add_argument("--replace", action="store_true", help="first drop the lines of METHOD")
    parser.add_argument("--seed", type=int, help="seed of the training (default: of the command)")
    arguments = parser.parse_args()
    file = FOLDER / f"{arguments.study}.jsonl"
    lines = read_lines(file) if file.exists() else []
    if arguments.replace:
        lines = [x for x in lines if x.get("comparison", x["method"]) != arguments.method]
    for result_file in arguments.files:
        result = read_result(result_file)
        lines += lines_of(result, arguments.method, arguments.seed)
    write_lines(file, lines)
    print(f"{file}: {len(lines)} scores")


def read_lines(file: Path) -> list[Line]:
    """Return the scores of a study."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def write_lines(file: Path, lines: list[Line]) -> None:
    """Write a study, one score a line."""
    with new_file(file) as stream:
        stream.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def lines_of(result: dict[str, Any], method: str, seed: int | None = None) -> list[Line]:
    """Return the scores of a result file.

    Args:
        result: What `write_result` wrote.
        method: What was measured.
        seed: Of the training; that of the command without it.

    Raises:
        ValueError: No command of this repository writes such metrics.
    """
    metrics = result["metrics"]
    kinds = {
        "by_length": _needles,
        "cells": _ruler,
        "mean_tokens": _questions,
        "lengths": _losses,
        "methods": _retrieval,
        "with_gca": _short_sequences,
        "shapes": _operator,
        "scan": _extremes,
        "models": _comparison,
        "presets": _training,
    }
    found = next((lines for key, lines in kinds.items() if key in metrics), None)
    if found is None and all("first_step_seconds" in of for of in metrics.values()):
        found = _compilation
    if found is None and all("whole_s" in of for of in metrics.values()):
        found = _devices
    if found is None and all("tiers" in of for of in metrics.values()):
        found = _memories
    if found is None:
        found = _recipes if _is_recipes(metrics) else _by_preset
    origin = _origin(result)
    own = result["seed"] if seed is None else seed
    lines = []
    for line in found(result):
        # what measures several methods at once names them itself
        named = {"comparison": method} if "method" in line else {}
        lines.append(named | {"method": method, "seed": own} | line | origin)
    return lines


def _origin(result: dict[str, Any]) -> Line:
    hardware = result["hardware"]
    return {
        # where results and memories go is no part of what was measured
        "command": re.sub(r" --(out|folder)[= ]\S+", "", result["command"]),
        "trials": result["trials"],
        "hardware": hardware.get("gpu") or f"{hardware['cpu']}, {hardware['cores']} cores",
        "torch": result["software"]["torch"],
        "commit": result["source"].get("commit"),
        "date": result["date"][:10],
    }


def _needles(result: dict[str, Any]) -> Iterator[Line]:
    config = result["config"]
    for row in result["metrics"]["by_length"]:
        yield {
            "text": config["haystack"],
            "task": row["task"],
            "length": row["length"],
            "score": row["accuracy"],
            "right": row["exact"],
            "asked": row["trials"],
            "first_token": row["teacher_forced_first_token"],
            "failures": row["failures"],
            "seconds": row["seconds"],
            "device_bytes": row.get("device_bytes"),
            "host_bytes": row.get("host_bytes"),
            "parameters": config["parameters"],
        } | (_reading(result, row) if config.get("read_once") else {})


def _reading(result: dict[str, Any], row: dict[str, Any]) -> Line:
    """Return what reading one context for all questions took."""
    return {
        "reading_seconds": row["prefill_seconds"],
        "disk_bytes": row["disk_bytes"],
        "gpus": result["hardware"].get("gpus", 0),
    }


def _questions(result: dict[str, Any]) -> Iterator[Line]:
    metrics = result["metrics"]
    yield {
        "text": result["config"]["data"],
        "task": "questions",
        # documents differ a little in length
        "length": 1024 * round(metrics["mean_tokens"] / 1024),
        "score": metrics["accuracy"],
        "right": metrics["exact"],
        "asked": metrics["trials"],
        "documents": metrics["documents"],
    }


def _ruler(result: dict[str, Any]) -> Iterator[Line]:
    config = result["config"]
    for row in result["metrics"]["cells"]:
        yield {
            "text": config["haystack"],
            "task": row["task"],
            "length": row["length"],
            "score": row["score"],
            "right": row["all_found"],
            "asked": row["trials"],
            "begins_right": row["begins_right"],
            "seconds": row["seconds"],
            "parameters": config["parameters"],
        }


def _losses(result: dict[str, Any]) -> Iterator[Line]:
    config = result["config"]
    for row in result["metrics"]["lengths"]:
        common = {"text": config["data"], "task": "loss", "length": row["length"]}
        yield common | {
            "score": row["loss"]["mean"],
            "standard_error": row["loss"]["standard_error"],
            "perplexity": row["perplexity"],
            "bits_per_byte": row["bits_per_byte"]["mean"],
            "documents": row["num_documents"],
            "unigram_entropy": result["metrics"]["unigram_entropy"],
            "parameters": config["parameters"],
        }
        for part in row["positions"]:
            yield common | {
                "start": part["start"],
                "stop": part["stop"],
                "score": part["loss"]["mean"],
                "standard_error": part["loss"]["standard_error"],
            }


def _retrieval(result: dict[str, Any]) -> Iterator[Line]:
    for name, measured in result["metrics"]["methods"].items():
        for length, losses in measured["lengths"].items():
            for task, loss in losses.items():
                for seed, score in enumerate(loss["seeds"]):
                    line = {"method": name, "seed": seed, "task": task, "length": int(length)}
                    yield line | {"score": score}


def _short_sequences(result: dict[str, Any]) -> Iterator[Line]:
    for name, measured in result["metrics"].items():
        tasks = {
            "first training loss": measured["first_training_loss"],
            "last training loss": measured["last_training_loss"],
            "validation loss": measured["validation_loss"]["seeds"],
        }
        for task, seeds in tasks.items():
            for seed, score in enumerate(seeds):
                yield {"method": name.replace("_", " "), "seed": seed, "task": task, "score": score}


def _is_recipes(metrics: dict[str, Any]) -> bool:
    return all(isinstance(of, dict) and "what" in of for of in metrics.values())


def _recipes(result: dict[str, Any]) -> Iterator[Line]:
    for name, measured in result["metrics"].items():
        what = {"method": name, "what": measured["what"]}
        for length, score in measured["lengths"].items():
            asked = {"task": "single", "length": int(length), "asked": score["trials_per_seed"]}
            for seed, exact in enumerate(score["exact"]["seeds"]):
                yield what | {"seed": seed} | asked | {"score": exact}
        for task in ("validation_loss", "tokens_per_second"):
            for seed, score in enumerate(measured.get(task, {}).get("seeds", ())):
                yield what | {"seed": seed, "task": task.replace("_", " "), "score": score}


def _operator(result: dict[str, Any]) -> Iterator[Line]:
    for measured in result["metrics"]["shapes"]:
        for name, row in measured["contestants"].items():
            line = {"method": name, "shape": measured["label"]}
            line |= {"length": measured["shape"]["length"]}
            if "unavailable" in row:
                yield line | {"task": "forward + backward", "unavailable": row["unavailable"]}
            for task in ("forward", "forward_backward"):
                if task in row:
                    peak = {} if task == "forward" else {"peak_mib": row["peak_mib"]}
                    yield line | {"task": task.replace("_", " + ")} | _time(row[task]) | peak


def _extremes(result: dict[str, Any]) -> Iterator[Line]:
    metrics = result["metrics"]
    for row in metrics["scan"]:
        line = {"method": "gcattn", "task": "scan", "length": row["landmarks"]}
        line |= {"queries": row["queries"], "read_ms": row.get("read_ms")}
        yield line | (_time(row) if "median_ms" in row else {"unavailable": row["unavailable"]})
    for row in metrics["few_queries"]:
        for way, timing in row["ways"].items():
            line = {"method": way, "task": "few queries", "length": row["slots"]}
            yield line | {"pool": row["pool"]} | _time(timing)
    for row in metrics["popularity"]:
        both = _time(row["forward_backward"])
        yield {"method": "gcattn", "task": "forward + backward", "readers": row["readers"]} | both


def _training(result: dict[str, Any]) -> Iterator[Line]:
    for preset, measured in result["metrics"]["presets"].items():
        for length, by_length in measured["lengths"].items():
            rows = {key: by_length[key] for key in ("rows", "tokens_per_row")}
            for name, row in by_length["models"].items():
                line = {"method": name, "preset": preset, "task": "training step"}
                line |= {"length": int(length)} | rows
                keys = ("tokens_per_second", "mfu_of_data_sheet", "peak_mib", "unavailable")
                kept = {key: row[key] for key in keys if key in row}
                yield line | (_time(row) if "median_ms" in row else {}) | kept


def _compilation(result: dict[str, Any]) -> Iterator[Line]:
    config = result["config"]
    shape = {"preset": config["preset"], "rows": config["batch"], "length": config["tokens"]}
    for way, measured in result["metrics"].items():
        line = {"method": way, **shape, "task": "first step"}
        kept = {key: measured[key] for key in ("graphs", "graph_breaks", "tokens_per_second")}
        kept["first_evaluation_seconds"] = measured["first_evaluation_seconds"]
        yield line | {"score": measured["first_step_seconds"]} | kept


def _devices(result: dict[str, Any]) -> Iterator[Line]:
    config = result["config"]
    shape = {"preset": config["preset"], "rows": config["batch"], "length": config["tokens"]}
    keys = ("devices", "times_one", "first_step_s", "unavailable")
    for way, measured in result["metrics"].items():
        line = {"method": way, **shape, "task": "training on several GPUs", "set": config["set"]}
        kept = {key: measured[key] for key in keys if key in measured}
        speeds = {key: n for key, n in measured.items() if key.endswith("tokens_per_second")}
        yield line | {"score": speeds.get("tokens_per_second")} | kept | speeds


def _by_preset(result: dict[str, Any]) -> Iterator[Line]:
    """Yield the times of prefill and of decoding, which have a table for each preset."""
    for preset, models in result["metrics"].items():
        for name, measured in models.items():
            for length, row in measured.get("lengths", measured).items():
                task = "prefill" if "lengths" in measured else "decoded token"
                line = {"method": name, "preset": preset, "task": task, "length": int(length)}
                held = {f"{place}_bytes": n for place, n in row.get("bytes", {}).items()}
                kept = {key: row[key] for key in KEPT_OF_TOKENS if key in row}
                yield line | (_time(row) if "median_ms" in row else {}) | kept | held


def _memories(result: dict[str, Any]) -> Iterator[Line]:
    for preset, measured in result["metrics"].items():
        built = measured["building"]
        line = {"method": "building", "preset": preset, "task": "building"}
        yield line | {"length": built["tokens"], "score": built["tokens_per_second"]}
        for tier, by_length in measured["tiers"].items():
            for length, row in by_length.items():
                line = {"method": tier, "preset": preset, "task": "decoded token"}
                held = {f"{place}_bytes": n for place, n in row.get("bytes", {}).items()}
                kept = {key: row[key] for key in KEPT_OF_MEMORIES if key in row}
                times = _time(row) if "median_ms" in row else {}
                yield line | {"length": int(length)} | times | kept | held


def _comparison(result: dict[str, Any]) -> Iterator[Line]:
    ends = result["metrics"]["positions"]
    for name, model in result["metrics"]["models"].items():
        line = {"method": name, "learning_rate": model["learning_rate"], "task": "loss"}
        line["seeds"] = len(model["seeds"])
        for text, measured in model["texts"].items():
            grows = measured.get("long_range_gain", {})
            gain = {"task": "long-range gain", "score": grows.get("mean")} | _deviation(grows)
            yield line | {"text": text, "length": ends[-1]} | gain
            for i, loss in enumerate(measured["loss"]["mean"]):
                if loss is None:
                    continue
                ways = {w: measured[w]["mean"][i] for w in ("off", "random") if w in measured}
                place = {"start": ends[i - 1] if i else 0, "stop": ends[i]}
                spread = _deviation(measured["loss"], i)
                row = line | {"text": text, "length": ends[-1]} | place | {"score": loss}
                yield row | spread | ways


def _deviation(measured: dict[str, Any], position: int | None = None) -> Line:
    """Return the standard deviation over seeds, where there are several."""
    found = measured.get("standard_deviation")
    if found is not None and position is not None:
        found = found[position]
    return {} if found is None else {"standard_deviation": found}


def _time(timing: dict[str, Any]) -> Line:
    keys = ("p20_ms", "p80_ms", "wall_ms", "host_ms")
    found = {"score": timing["median_ms"]} | {key: timing.get(key) for key in keys}
    return {key: value for key, value in found.items() if value is not None}


if __name__ == "__main__":
    main()
