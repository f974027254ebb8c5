"""The tables of needles."""

from needle_table import needle_table
from table_parts import origin, origins, read, table

# results of the checkpoint gcattn-12m in results/needle_12m, in books and in other texts
BOOKS = (
    "final_short",
    "final_1m",
    "final_1m_more",
    "final_16m_0",
    "final_16m_1",
    "final_16m_2",
)
OTHER_TEXTS = (
    "other_short",
    "other_1m",
    *(f"other_16m_{seed}" for seed in range(3)),
    "math_short",
    "math_1m",
    *(f"math_16m_{seed}" for seed in range(3)),
    "code2_short",
    "code2_1m",
    *(f"code2_16m_{seed}" for seed in range(3)),
    "code_short",
    "code_256k",
    "code_1m",
    *(f"code_16m_{seed}" for seed in range(3)),
)
# results/sink: logits of the sink, and what was asked with each
SINKS = ("none", "2", "4", "6", "8", "10")
SINK_TASKS = ("single", "two-hop", "two-hop-direct", "multi-key")
# results/groups: number of retrieval groups, and the files of the seeds
GROUPS = {
    "1": ("g1s0_2", "g1s1_2", "g1s2_2"),
    "2": ("g2s0_2", "g2s1_2", "g2s2_2"),
    "2, the last layer of each group reads": ("h2s0", "h2s1"),
    "3": ("g3s0_2", "g3s1_2", "g3s2_2"),
    "3, twice the steps": ("l3s0", "l3s1"),
}
# runs of results/sizes: size, which layers read, and the runs of each
SIZES = {
    ("`drt_12m`", "all 3"): ("w_drt_12m_all0", "w_drt_12m_all1"),
    ("`drt_34m`", "all 3"): ("w_drt_34m_all0", "34m_all2"),
    ("`drt_34m`", "the last"): ("w_drt_34m_one0", "w_drt_34m_one1"),
    ("`drt_128m`", "all 6"): ("w_big_all0", "w_big_all1", "big_all2"),
    ("`drt_128m`", "the last"): ("w_big_one0", "big_one1", "big_one2"),
}
# runs of results/two_hop, of three stages each, and what was particular in them
TWO_HOP = {
    "old0": "books",
    "old1": "books",
    "oldhop0": "books; first group at full scale",
    "oldhop1": "books; first group at full scale",
    "oldnoise0": "books, a quarter of the rows spoiled",
    "cur0": "books; first group at full scale, stage 2 longer; then text of all kinds, numbers",
    "cur1": "books; first group at full scale, stage 2 longer; then text of all kinds, numbers",
    "heavy0": "as above in text of all kinds, two thirds chains",
    "newhop0": "text of all kinds, spoiled rows, numbers; first group at full scale",
    "taps0": "text of all kinds; first group at full scale, keys know eight slots",
}
# what was made of the second stage of `old0`, and the third stage that made it
CONTINUED = {
    "two_hop/q_cbig0_3": "`single` 3, `number` 2: what `gcattn-12m` went on from",
    "two_hop/q_cmix0_3": "`single` 2, `number` 1",
    "two_hop/q_clow0_3": "… at 4e-4, a tenth of the rows spoiled",
    "two_hop/q_cheavy0_3": "… with twice the chains",
}
# runs of results/two_hop/dense, of two stages, by what begins the second
DENSE_STARTS = {
    "base": "8 chunks from the first step",
    "dense": "every chunk for 110 of 221 steps, then 8",
    "short": "every chunk for 160 of 221 steps in rows of 2,016 tokens, then 8",
    "sharp": "every chunk for 110 steps; scores start at 16 times the cosine",
}


def needle_texts() -> str:
    """Return scores of the checkpoint gcattn-12m in texts of other kinds."""
    return _needles(*(f"needle_12m/{part}" for part in OTHER_TEXTS))


def sink() -> str:
    """Return right answers of gcattn-12m with sinks of its cross-attention."""
    rows = []
    for logit in SINKS:
        books, code = (
            right_answers(f"sink/{text}_4k_{logit}", 4096) for text in ("books", "code3")
        )
        scores = [code["single"], *(books[task] for task in SINK_TASKS)]
        rows.append(f"| {logit} | {' | '.join(scores)} |")
    header = " | ".join(
        ["sink's logit", "code, single", *(f"books, {task}" for task in SINK_TASKS)]
    )
    return table(header, rows) + "".join(
        origin(read(f"sink/{text}_4k_6")) for text in ("code3", "books")
    )


def sink_elsewhere() -> str:
    """Return what the chosen sink does to needles and losses in text that did not choose it."""
    rows = []
    for logit in ("none", "6"):
        right = right_answers(f"sink/tests_4k_{logit}", 4096)["single"]
        losses = []
        for text in ("books_test", "math"):
            (length,) = read(f"sink/perplexity_{text}_{logit}")["metrics"]["lengths"]
            losses.append(f"{length['loss']['mean']:.3f}")
        rows.append(f"| {logit} | {right} | {' | '.join(losses)} |")
    header = "sink's logit | tests of packages, single | loss, more books | loss, mathematics"
    names = ("tests_4k_6", "perplexity_books_test_6", "perplexity_math_6")
    return table(header, rows) + "".join(origin(read(f"sink/{name}")) for name in names)


def two_hop() -> str:
    """Return chains of two and numbers, run by run, after the second and the third stage."""
    tasks = ("single", "two-hop", "number")
    rows = []
    for name, what in TWO_HOP.items():
        stages = [right_answers(f"two_hop/q_{name}_{stage}", 4096) for stage in (2, 3)]
        cells = [" → ".join(stage[task] for stage in stages) for task in tasks]
        rows.append(f"| {what} | {name[-1]} | {' | '.join(cells)} |")
    header = " | ".join(["rows", "seed", *tasks])
    return table(header, rows) + origin(read("two_hop/q_old0_3"))


def continued() -> str:
    """Return what third stages make of a model whose second hop has begun."""
    tasks = ("single", "two-hop", "number", "multi-key")
    rows = []
    for name, what in CONTINUED.items():
        lengths = [right_answers(name, length) for length in (4096, 65_536)]
        cells = [", ".join(length[task] for length in lengths) for task in tasks]
        rows.append(f"| {what} | {' | '.join(cells)} |")
    header = " | ".join(["third stage", *tasks])
    return table(header, rows) + origin(read(next(iter(CONTINUED))))


def right_answers(name: str, length: int) -> dict[str, str]:
    """Return the right answers of a length, by task."""
    entries = read(name)["metrics"]["by_length"]
    return {entry["task"]: str(entry["exact"]) for entry in entries if entry["length"] == length}


def needle_seeds() -> str:
    """Return scores of one and two retrieval groups, seed by seed."""
    rows = []
    for groups in (1, 2):
        for seed in range(3):
            entries = read(f"needle_mixed/needle_r{groups}s{seed}")["metrics"]["by_length"]
            cells = [
                f"{entry['exact']} of {entry['trials']}"
                for length in (4096, 65_536)
                for task in ("single", "two-hop")
                for entry in entries
                if (entry["task"], entry["length"]) == (task, length)
            ]
            rows.append(f"| {groups} | {seed} | {' | '.join(cells)} |")
    header = "R | seed | single, 4k | two-hop, 4k | single, 64k | two-hop, 64k"
    return table(header, rows) + origin(read("needle_mixed/needle_r2s0"))


def needle_tiny() -> str:
    """Return scores of the tiny checkpoint by task and length."""
    return _needles("needle_tiny", "needle_tiny_1m")


def needle_12m() -> str:
    """Return scores of the checkpoint gcattn-12m in books, by task and length."""
    return _needles(*(f"needle_12m/{part}" for part in BOOKS))


def _needles(*names: str) -> str:
    results = [read(name) for name in names]
    return needle_table(results) + origins(results)


def dense_start() -> str:
    """Return chains of two where the second stage begins with every chunk read."""
    rows = []
    for kind, what in DENSE_STARTS.items():
        seeds = range(2 if kind == "sharp" else 3)
        scores = [right_answers(f"two_hop/dense/hop_{kind}{seed}", 4096) for seed in seeds]
        cells = [", ".join(score[task] for score in scores) for task in ("single", "two-hop")]
        rows.append(f"| {what} | {' | '.join(cells)} |")
    made_by = origin(read("two_hop/dense/hop_base0"))
    return table("second stage | single | two-hop", rows) + made_by


def groups() -> str:
    """Return chains by the number of retrieval groups, seed by seed."""
    tasks = ("single", "two-hop-direct", "three-hop-direct")
    rows = []
    for what, files in GROUPS.items():
        scores = [right_answers(f"groups/{file}", 4096) for file in files]
        cells = [", ".join(score[task] for score in scores) for task in tasks]
        rows.append(f"| {what} | {' | '.join(cells)} |")
    header = " | ".join(["R", *(f"{task}, 4k" for task in tasks)])
    return table(header, rows) + origin(read("groups/g2s0_2")) + origin(read("groups/l3s0"))


def groups_1m() -> str:
    """Return direct chains of two in a million tokens by the number of groups, seed by seed."""
    rows = []
    for count in (1, 2):
        files = [f"groups/r{count}s{seed}_1m" for seed in range(2)]
        right = ", ".join(right_answers(file, 2**20)["two-hop-direct"] for file in files)
        rows.append(f"| {count} | {right} |")
    return table("R | two-hop-direct, 1m", rows) + origin(read("groups/r2s0_1m"))


def groups_after() -> str:
    """Return the same models after a third stage with longer links, in longer text."""
    tasks = ("single", "two-hop-direct", "three-hop-direct", "two-hop", "three-hop")
    rows = []
    for count in (1, 2, 3):
        scores = [right_answers(f"groups/g{count}s{seed}_3", 65_536) for seed in range(3)]
        cells = [", ".join(score[task] for score in scores) for task in tasks]
        rows.append(f"| {count} | {' | '.join(cells)} |")
    header = " | ".join(["R", *(f"{task}, 64k" for task in tasks)])
    return table(header, rows) + origin(read("groups/g2s0_3"))


def sizes() -> str:
    """Return needles and losses by size and by which layers read, seed by seed."""
    tasks = ("single", "number", "multi-key", "multi-query")
    rows = []
    for (size, readers), runs in SIZES.items():
        results = [read(f"sizes/{run}") for run in runs]
        right = [right_answers(f"sizes/{run}", 65_536) for run in runs]
        cells = [", ".join(score[task] for score in right) for task in tasks]
        for text in ("books_test", "math_test"):
            cells.append(", ".join(f"{far_loss(f'sizes/{run}_{text}'):.3f}" for run in runs))
        millions = results[0]["config"]["parameters"] / 1e6
        rows.append(f"| {size} | {readers} | {millions:.0f} | {' | '.join(cells)} |")
    losses = ("loss, books", "loss, mathematics")
    header = " | ".join(["size", "readers", "M parameters", *tasks, *losses])
    made_by = origin(read("sizes/big_one1")) + origin(read("sizes/big_one1_books_test"))
    return table(header, rows) + made_by


def far_loss(name: str) -> float:
    """Return the loss at positions 8,192 to 16,383."""
    (length,) = read(name)["metrics"]["lengths"]
    return next(p["loss"]["mean"] for p in length["positions"] if p["start"] == 8192)
