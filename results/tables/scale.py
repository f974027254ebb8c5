"""What a memory of a billion, a hundred billion and a trillion tokens costs, from measured parts.

Sizes follow from the configuration, times from what one GPU was measured to take (`results/`), and
prices are stated here. See docs/scale.md for what stands behind each column.
"""

from gcattn.models import DRTConfig, drt_128m
from results.collect import Line
from results.tables.study import Table, scores, source, table

LENGTHS = {"1 B": 10**9, "100 B": 10**11, "1 T": 10**12}
# stated, not measured: dollars of a GPU and hour, and of a terabyte and month
GPU_HOUR, TERABYTE_MONTH = 2.5, 20.0
# stated, not measured: bytes of a GPU that landmarks may take, and seconds of an exchange of ranks
LANDMARK_ROOM, EXCHANGE_SECONDS = 64e9, 1e-4
ID_BYTES = 2
# tokens of a question and of an answer
QUESTION, ANSWER = 30, 60


def scale() -> str:
    """Return sizes, building, and time per question by length, for `drt_128m`."""
    config = drt_128m()
    tokens_per_second = max(scores("prefill", method="gcattn"), key=lambda line: line["length"])[
        "tokens_per_second"
    ]
    rows = []
    for name, tokens in LENGTHS.items():
        size = config.memory_bytes_per_token()
        landmarks, pool = tokens * size["landmarks"], tokens * size["keys_values"]
        small = landmarks + tokens * ID_BYTES
        ranks = -(-int(landmarks) // int(LANDMARK_ROOM))
        gpu_hours = tokens / tokens_per_second / 3600
        rows.append(
            [
                f"{name} tokens",
                f"{tokens / (config.chunk_size - 1) / 1e6:,.0f} M",
                _bytes(landmarks),
                _bytes(small),
                _bytes(landmarks + pool),
                f"{ranks:,}",
                f"{gpu_hours:,.1f}",
                f"${gpu_hours * GPU_HOUR:,.2f}",
                f"${small / 1e12 * TERABYTE_MONTH:,.2f}",
                f"${(landmarks + pool) / 1e12 * TERABYTE_MONTH:,.0f}",
                f"{1e3 * _scan_seconds(config, tokens, ranks):,.0f}",
                f"{_question_seconds(config, tokens, ranks):.2f}",
            ]
        )
    columns = [
        "memory",
        "chunks",
        "landmarks",
        "with token ids",
        "with keys and values",
        "GPUs for the landmarks",
        "GPU hours to build",
        "cost to build",
        "per month, token ids",
        "per month, keys and values",
        "scan (ms)",
        "question (s)",
    ]
    lines = [*scores("prefill", method="gcattn"), *_scans(), *_tokens()]
    return table(columns, rows) + source("prefill", lines)


def assumptions() -> str:
    """Return what is stated rather than measured."""
    rows = [
        ["a GPU, per hour", f"${GPU_HOUR:.2f}"],
        ["a terabyte of storage, per month", f"${TERABYTE_MONTH:.0f}"],
        ["GPU memory available to landmarks", _bytes(LANDMARK_ROOM)],
        ["one exchange between ranks", f"{EXCHANGE_SECONDS * 1e3:.1f} ms"],
        ["a question and its answer", f"{QUESTION} and {ANSWER} tokens"],
        ["a token id", f"{ID_BYTES} bytes"],
    ]
    return table(["assumption", "value"], rows)


def _scan_seconds(config: DRTConfig, tokens: int, ranks: int) -> float:
    """Return the time of scoring all landmarks for one query, each rank its own share."""
    slowest = max(_scans(), key=lambda line: line["length"])
    # of the width that was measured; a scan is bound by the bytes that it reads
    bytes_per_second = slowest["length"] * drt_128m().hidden_size * 2 / (slowest["score"] / 1e3)
    own = tokens / (config.chunk_size - 1) * config.hidden_size * 2 / ranks
    return own / bytes_per_second


def _question_seconds(config: DRTConfig, tokens: int, ranks: int) -> float:
    """Return the time of a question and its answer."""
    # the mean counts tokens that close a chunk
    per_token = 1 / max(_tokens(), key=lambda line: line["length"])["mean_tokens_per_second"]
    # a prompt closes two chunks, the last of which the answer is served by
    retrievals = (2 + ANSWER / (config.chunk_size - 1)) * config.num_retrieval_groups
    # candidates come together, then the chunks themselves
    exchanges = 2 * EXCHANGE_SECONDS if ranks > 1 else 0.0
    scans = retrievals * (_scan_seconds(config, tokens, ranks) + exchanges)
    # the question is read in one call, which takes no longer than a token by much
    return scans + (1 + ANSWER) * per_token


def _scans() -> list[Line]:
    return scores("extremes", task="scan", queries=1)


def _tokens() -> list[Line]:
    return scores("decoding", comparison="decoding", method="gcattn, host memory")


def _bytes(number: float) -> str:
    return f"{number / 1e9:,.0f} GB" if number < 1e12 else f"{number / 1e12:,.1f} TB"


TABLES: dict[str, tuple[str, Table]] = {
    "scale": ("prefill", scale),
    "scale-assumptions": ("", assumptions),
}
