"""What a saved memory costs is measured for every tier."""

import re

import torch

from benchmarks.memory import bench_memory
from benchmarks.page_cache import drop_cached_files
from benchmarks.tables import memory_table
from gcattn import open_memory
from gcattn.models import drt_tiny
from gcattn.results import read_result, write_result
from results.collect import lines_of

TIERS = ["device", "host-int8", "disk", "recompute"]


def measure(folder, tiers, num_opens):
    folder.mkdir(exist_ok=True)
    return bench_memory(
        drt_tiny(vocab_size=61),
        [150],
        torch.device("cpu"),
        torch.float32,
        tiers=tiers,
        folder=folder,
        num_tokens=2,
        num_opens=num_opens,
        build_tokens=64,
        segment_length=64,
    )


def test_every_tier_has_times_and_bytes_and_nothing_is_left_on_the_disk(tmp_path):
    can_drop = drop_cached_files(tmp_path)
    metrics = measure(tmp_path, TIERS, num_opens=2)
    assert list(metrics["tiers"]) == TIERS
    rows = [metrics["tiers"][tier]["150"] for tier in TIERS]
    for row in rows:
        assert min(row["median_ms"], row["p99_ms"], row["fetch_ms"]) > 0
        ends = (row[f"first_token{part}_ms"] for part in ("_p20", "", "_p90"))
        assert 0 < next(ends) <= next(ends) <= next(ends)
        assert row["opens"] == 2
    # a memory of token ids is a fraction of one that holds keys and values
    assert rows[-1]["bytes"]["disk"] < rows[-2]["bytes"]["disk"] / 2
    assert rows[0]["bytes"]["device"] > rows[-2]["bytes"]["device"]
    assert metrics["building"]["tokens_per_second"] > 0
    assert not list(tmp_path.iterdir())
    # only what stays on the disk is timed without the system's cache
    assert ["uncached_first_token_ms" in row for row in rows] == [False, False, can_drop, False]
    table = memory_table({"drt_tiny": metrics})
    assert table.row_count == len(TIERS) + 1
    first = next(column for column in table.columns if "first token" in str(column.header))
    assert re.fullmatch(r"[\d,]+ \([\d,]+-[\d,]+\)", next(iter(first.cells)))


def test_each_first_token_is_that_of_a_memory_opened_for_it(tmp_path, monkeypatch):
    opened = []

    def open_and_count(folder, tier):
        opened.append(memory := open_memory(folder, tier))
        return memory

    dropped = []
    monkeypatch.setattr("benchmarks.memory.open_memory", open_and_count)
    monkeypatch.setattr(
        "benchmarks.memory.drop_cached_files",
        lambda folder: dropped.append(len(opened)) or True,
    )
    measure(tmp_path, ["host", "disk"], num_opens=3)
    assert [memory.tier for memory in opened] == ["host"] * 3 + ["disk"] * 6
    assert len({id(memory) for memory in opened}) == len(opened)
    # the cache is dropped before each of the first three, and then no more
    assert dropped == [3, 4, 5]


def test_the_study_keeps_the_spread_of_first_tokens(tmp_path):
    metrics = {"drt_tiny": measure(tmp_path / "memories", ["disk"], num_opens=2)}
    file = write_result("memory", {}, metrics, folder=tmp_path, seed=0, trials=2, command="x")
    _, line = lines_of(read_result(file), "cpu")
    row = metrics["drt_tiny"]["tiers"]["disk"]["150"]
    kept = {key: x for key, x in row.items() if "first_token" in key or key == "opens"}
    assert kept.items() <= line.items()
    assert (line["comparison"], line["method"]) == ("cpu", "disk")
