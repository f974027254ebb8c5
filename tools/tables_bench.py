"""The tables of times and memory."""

from table_parts import origin, read, table

# contestants of the table of the operator by length
BY_LENGTH = ("gcattn", "gather + SDPA", "SDPA full causal", "gcattn sliding window")


def bench_extremes() -> str:
    """Return the operators at unusual shapes, each beside what it is held to."""
    result = read("bench_extremes")
    metrics, rows = result["metrics"], []
    for row in metrics["scan"]:
        shape = f"{row['queries']} queries, {row['landmarks']:,} landmarks"
        ratio = row["median_ms"] / row["read_ms"]
        held = f"{row['read_ms']:.3g}, to read them once"
        rows.append(f"| scan | {shape} | {row['median_ms']:.3g} | {held} | {ratio:.2f} |")
    for row in metrics["few_queries"]:
        ours, other = (row["ways"][way]["median_ms"] for way in ("in place", "gathered first"))
        shape = f"{row['slots']} slots, pool on the {row['pool']}"
        held = f"{other:.3g}, copied together first"
        rows.append(f"| few queries | {shape} | {ours:.3g} | {held} | {ours / other:.2f} |")
    even = metrics["popularity"][0]["forward_backward"]["median_ms"]
    for row in metrics["popularity"]:
        both = row["forward_backward"]["median_ms"]
        held = f"{even:.3g}, read uniformly"
        rows.append(
            f"| forward + backward | readers: {row['readers']} | {both:.3g} | {held} | "
            f"{both / even:.2f} |"
        )
    return table("what | shape | ms | beside, ms | ratio", rows) + origin(result)


def bench_op() -> str:
    """Return milliseconds and memory of the operator and its peers at the fixed shapes."""
    result = read("bench_op")
    rows = []
    for measured in result["metrics"]["shapes"][:3]:
        for name, row in measured["contestants"].items():
            if "forward_backward" not in row:
                continue
            rows.append(
                f"| {measured['label']} | {name} | {row['forward']['median_ms']:.3f} | "
                f"{row['forward_backward']['median_ms']:.3f} | {row['peak_mib']:,.0f} |"
            )
    header = "shape | operator | forward, ms | forward + backward, ms | memory beyond inputs, MiB"
    return table(header, rows) + origin(result)


def bench_op_lengths() -> str:
    """Return milliseconds, forward and backward, of the operator and its peers by length."""
    result, rows = read("bench_op_lengths/bench_op"), []
    for measured in result["metrics"]["shapes"][3:]:
        contestants = measured["contestants"]
        times = [f"{contestants[n]['forward_backward']['median_ms']:.3f}" for n in BY_LENGTH]
        memory = f"{contestants['gcattn']['peak_mib']:,.0f}"
        rows.append(f"| {measured['shape']['length']:,} | {' | '.join(times)} | {memory} |")
    header = " | ".join(["length", *BY_LENGTH, "gcattn, MiB beyond inputs"])
    return table(header, rows) + origin(result)


def bench_model() -> str:
    """Return tokens per second of prefill by prompt length."""
    result, rows = read("bench_model"), []
    for preset, models in result["metrics"].items():
        for model, measured in models.items():
            for length, row in measured["lengths"].items():
                rows.append(
                    f"| `{preset}`, {model} | {int(length):,} | {row['median_ms']:,.1f} | "
                    f"{row['tokens_per_second']:,.0f} | {row['peak_mib']:,.0f} |"
                )
    header = "model | prompt, tokens | ms | tokens/s | MiB beyond weights"
    return table(header, rows) + origin(result)


def bench_train() -> str:
    """Return training steps of DRTs beside Transformers without retrieval."""
    return _training_steps("bench_train")


def bench_train_34m() -> str:
    """Return training steps of the smaller preset."""
    return _training_steps("bench_train_34m/bench_train")


def bench_train_growth() -> str:
    """Return what a token costs in short and in long rows."""
    return _training_steps("bench_train_growth/bench_train")


def _training_steps(name: str) -> str:
    result, rows = read(name), []
    for preset, measured in result["metrics"]["presets"].items():
        for by_length in measured["lengths"].values():
            wider = by_length["models"]["sliding window, +2 layers"]["median_ms"]
            for model, row in by_length["models"].items():
                rows.append(
                    f"| `{preset}`, {model} | {by_length['rows']} × "
                    f"{by_length['tokens_per_row']:,} | {row['median_ms']:.1f} | "
                    f"{row['tokens_per_second']:,.0f} | {row['mfu_of_data_sheet']:.1%} | "
                    f"{row['peak_mib'] / 1024:.1f} | {row['median_ms'] / wider:.3f} |"
                )
    header = "model | rows × tokens | ms per step | tokens/s | MFU | peak, GiB | over +2 layers"
    return table(header, rows) + origin(result)


def bench_decode() -> str:
    """Return milliseconds per generated token, and where the past lies."""
    result, rows = read("bench_decode"), []
    for preset, ways in result["metrics"].items():
        for way, by_length in ways.items():
            for length, row in by_length.items():
                held = (f"{row['bytes'][tier] / 2**20:,.0f}" for tier in ("device", "host"))
                closing = row["closing_median_ms"]  # full attention closes no chunks
                rows.append(
                    f"| `{preset}`, {way} | {int(length):,} | {row['median_ms']:.1f} | "
                    f"{'–' if closing is None else format(closing, '.1f')} | {' | '.join(held)} |"
                )
    header = (
        "model | context, tokens | ms per token | ms per token that closes a chunk | "
        "MiB on the device | MiB on the host"
    )
    return table(header, rows) + origin(result)
