"""The table of results/README.md: which table is made of which file, and by which command."""

from results.tables import costs, front_page, learning, needles, release, scale
from results.tables.study import Table, scores, table, values

# tables by the name that documents call them with, each with its study; "" for what is counted
TABLES: dict[str, tuple[str, Table]] = (
    front_page.TABLES
    | release.TABLES
    | needles.TABLES
    | learning.TABLES
    | costs.TABLES
    | scale.TABLES
)
# what a study asks
STUDIES = {
    "release": "Does the released model answer in anybody's words, and how well does it write?",
    "needle_12m": "Does the small checkpoint find needles, by task, length and kind of text?",
    "needle_once": "Does it find them in a billion tokens that were read once into a memory?",
    "needle_tiers": "Does it find them with a memory in eight bits?",
    "needle_tiny": "Does the tiny checkpoint?",
    "retrieval_groups": "How many hops does each number of retrieval groups follow?",
    "two_hops": "What makes a second hop begin, and what keeps it?",
    "model_sizes": "What do size and the number of reading layers do for needles and losses?",
    "sink": "Which logit of the sink keeps retrieved chunks out that hold nothing?",
    "retrieval_methods": "Is retrieval learned: against random chunks and against none?",
    "short_sequences": "Does cross-attention lower the loss of short rows?",
    "recipes": "Which parts of the recipe make retrieval begin?",
    "chunk_sizes": "How large should a chunk be, and how many should be retrieved?",
    "long_range": "Does the loss go on falling with the position, against a sliding window?",
    "natural_text": "What is retrieval worth in text where nothing was planted?",
    "books_perplexity": "What does a model reach that two CPU cores train in minutes?",
    "operator": "How fast is the operator, beside what users would run instead?",
    "extremes": "How fast is it where no training row takes it?",
    "prefill": "How fast is a prompt read, by its length?",
    "training_steps": "What does a training step cost beside a sliding window's?",
    "decoding": "What does a generated token cost, by the length of the context?",
    "memory": "How fast are memories built, and what does a token cost on them, by tier?",
}


def studies() -> str:
    """Return a row for each study: its question, tables, and the command of its first score."""
    rows = []
    for study, question in STUDIES.items():
        made = ", ".join(f"`{name}`" for name, (of, _) in TABLES.items() if of == study)
        lines = scores(study)
        commands = values(lines, "command")
        more = f" and {len(commands) - 1} more in the file" if len(commands) > 1 else ""
        link = f"[{study}.jsonl]({study}.jsonl)"
        rows.append([link, question, len(lines), made, f"`{commands[0]}`{more}"])
    return table(["file", "question", "scores", "tables", "command"], rows)
