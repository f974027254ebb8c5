"""What a saved memory costs is measured for every tier."""

import torch

from benchmarks.memory import bench_memory
from benchmarks.tables import memory_table
from gcattn.models import drt_tiny

TIERS = ["device", "host-int8", "disk", "recompute"]


def test_every_tier_has_times_and_bytes_and_nothing_is_left_on_the_disk(tmp_path):
    metrics = bench_memory(
        drt_tiny(vocab_size=61),
        [150],
        torch.device("cpu"),
        torch.float32,
        tiers=TIERS,
        folder=tmp_path,
        num_tokens=2,
        build_tokens=64,
        segment_length=64,
    )
    assert list(metrics["tiers"]) == TIERS
    rows = [metrics["tiers"][tier]["150"] for tier in TIERS]
    for row in rows:
        assert min(row["first_token_ms"], row["median_ms"], row["p99_ms"], row["fetch_ms"]) > 0
    # a memory of token ids is a fraction of one that holds keys and values
    assert rows[-1]["bytes"]["disk"] < rows[-2]["bytes"]["disk"] / 2
    assert rows[0]["bytes"]["device"] > rows[-2]["bytes"]["device"]
    assert metrics["building"]["tokens_per_second"] > 0
    assert not list(tmp_path.iterdir())
    assert memory_table({"drt_tiny": metrics}).row_count == len(TIERS) + 1
