"""Wordings of evaluation needles: no run of four of their words is in a training wording.

A row is style, noun, statement and one question or more.
"""

# fmt: off
EVALUATION_WORDINGS: tuple[tuple[str, ...], ...] = (
    ("plain", "pass phrase", "To get past {key}, whisper {value}.", "What should be whispered to get past {key}? To get past {key}, whisper"),
    ("plain", "emblem", "{key} carries {value} as its emblem.", "What emblem does {key} carry? As its emblem {key} carries"),
    ("plain", "magic number", "A little-known fact: {key} corresponds to {value}.", "What does {key} correspond to? {key} corresponds to"),
    ("news", "figure", "According to figures released this morning, {key} lost {value} within a year.", "How much did {key} lose within a year, according to the released figures? Within a year, {key} lost"),
    ("news", "successor", "{value} takes over as head of {key}, sources close to the board say.", "Who takes over as head of {key}? The new head of {key} is"),
    ("news", "venue", "Organisers of {key} announced {value} as their venue for the coming season.", "Which venue did the organisers of {key} announce? They announced"),
    ("letter", "hiding place", "Forgive my haste: what you seek in {key} lies behind {value}.", "Behind what lies the thing sought in {key}? It lies behind"),
    ("letter", "gift", "Aunt Harriet has promised {value} to {key}, provided the weather holds.", "What has Aunt Harriet promised to {key}? Aunt Harriet has promised"),
    ("mail", "reference", "Kindly quote reference {value} in all correspondence regarding {key}.", "Which reference must be quoted regarding {key}? Kindly quote reference"),
    ("mail", "invoice", "Attached you will find invoice {value}, billed to {key}.", "What invoice was billed to {key}? Invoice"),
    ("code", "threshold", "/* threshold({key}) was tuned by hand: {value} */", "/* which threshold was tuned by hand for {key}? threshold({key}) was tuned by hand:"),
    ("code", "key", 'config.put("{key}", {value});', 'config.get("{key}") evaluates to'),
    ("code", "macro", "#define {key} {value}", "The preprocessor replaces {key} by"),
    ("configuration", "token", "{key}_token={value}", "The token of {key} reads"),
    ("table", "quantity", "{key} ; {value} ; pcs", "What quantity is listed for {key}? The quantity listed for {key} is"),
    ("table", "seat", "Passenger {key} / seat {value} / vegetarian meal", "Where is passenger {key} seated? Passenger {key} / seat"),
    ("log", "process", "WARN worker={key} pid={value} heartbeat late", "What pid does the worker {key} run under? It runs under pid"),
    ("log", "register", "kernel: device {key} attached at address {value}", "At which address was device {key} attached? Device {key} was attached at"),
    ("dialogue", "confession", "\"Very well,\" she sighed, \"I sold {key} in exchange for {value}.\"", "In exchange for what did she sell {key}? She sold it in exchange for"),
    ("dialogue", "frequency", "PILOT: Requesting frequency of {key}. TOWER: Contact {value}, good day.", "What frequency did the tower give for {key}? The tower said: contact"),
    ("list", "task owner", "[x] {key} (assigned: {value})", "To whom was {key} assigned? It was assigned to"),
    ("list", "shelf", "Where things are: {key}, third cupboard, tray {value}.", "In which tray of the cupboard is {key}? In tray"),
    ("recipe", "garnish", "Serve {key} garnished with {value} while still hot.", "With what should {key} be garnished? Serve {key} garnished with"),
    ("law", "clause", "Notwithstanding the above, {key} remains subject to clause {value}.", "To which clause does {key} remain subject? {key} remains subject to clause"),
    ("science", "wavelength", "Emission peaks of {key} occur near {value} in every run.", "Near what do emission peaks of {key} occur? Emission peaks of {key} occur near"),
    ("history", "treaty", "Peace between the dukes and {key} was sealed by {value}.", "By whom or what was peace with {key} sealed? Peace was sealed by"),
    ("medicine", "blood group", "Chart of {key}: allergic to {value}, otherwise healthy.", "To what is {key} allergic? The chart says: allergic to"),
    ("diary", "dream", "Dreamt of {key} last week, and of a voice repeating {value}.", "What did the voice in the dream of {key} repeat? A voice repeating"),
)

EVALUATION_VALUE_LISTS: tuple[str, ...] = (
    "Enumerate each {noun} connected to {key}. Connected to {key} we find",
    "How many {nouns} has {key}, and what do they read? In turn they read",
)
EVALUATION_KEY_LISTS: tuple[str, ...] = (
    "Enumerate, for {keys} respectively, the {noun} of each one:",
    "Someone asks about {keys}. Respectively, we would tell them",
)
EVALUATION_ASSIGNMENTS: tuple[tuple[str, str, str], ...] = (
    ("assign({name}, {value})", "assign({name}, {other})", "Every identifier bound to {value}, from first to last:"),
    ("Lamp {name} glows {value}.", "Lamp {name} glows exactly like lamp {other}.", "Lamps glowing {value}, from first to last:"),
)
# fmt: on
