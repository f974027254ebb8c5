"""What stories tell of people: relations, with the words of training and those of evaluation.

A relation is stated in a sentence and asked for in a question; the answer is the value alone. No
run of four words of an evaluation sentence is in a training one.
"""

from __future__ import annotations

from dataclasses import dataclass

from gcattn.data.synthetic_facts import Split


@dataclass(frozen=True)
class Telling:
    """How one split words a relation.

    Attributes:
        statements: Hold {name} and {value}.
        questions: Hold {name}.
        of: The value as "the … of" somebody, for questions over two people; {name} stands for
            whose.
    """

    statements: tuple[str, ...]
    questions: tuple[str, ...]
    of: str


@dataclass(frozen=True)
class Relation:
    """One thing that can be said of somebody.

    Attributes:
        name: Names it in results.
        value: Which kind of value it has: a key of `gcattn.data.stories.values.VALUES`.
        training: Words of training.
        evaluation: Words of evaluation.
    """

    name: str
    value: str
    training: Telling
    evaluation: Telling

    def telling(self, split: Split) -> Telling:
        """Return the words of a split."""
        return self.training if split == "train" else self.evaluation


# fmt: off
RELATIONS: tuple[Relation, ...] = (
    Relation(
        "home", "place",
        Telling(
            ("{name} lived in {value} at that time.", "The house of {name} stood in {value}.", "For many years {name} had been at home in {value}."),
            ("Where did {name} live?", "In which town was the house of {name}?"),
            "the town where {name} lived",
        ),
        Telling(
            ("It was {value} that {name} called home.", "Everyone in {value} knew {name}, whose family had settled there."),
            ("Which place did {name} call home?", "Where had the family of {name} settled?"),
            "the place that {name} called home",
        ),
    ),
    Relation(
        "trade", "trade",
        Telling(
            ("{name} earned a living as a {value}.", "By trade {name} was a {value}.", "The sign over the door said that {name} was a {value}."),
            ("What was the trade of {name}?", "How did {name} earn a living?"),
            "the trade of {name}",
        ),
        Telling(
            ("{name} had learned the work of a {value} young and never left it.", "If one needed a {value}, one sent for {name}."),
            ("What kind of work did {name} do?", "For what work would one send for {name}?"),
            "the work that {name} did",
        ),
    ),
    Relation(
        "birth year", "year",
        Telling(
            ("{name} was born in {value}.", "In the year {value} {name} came into the world.", "The church book gave {value} as the year of birth of {name}."),
            ("When was {name} born?", "What was the year of birth of {name}?"),
            "the year of birth of {name}",
        ),
        Telling(
            ("A cradle carved with {value} showed how old {name} must be.", "{name}, a child of {value}, felt the cold more each winter."),
            ("How does one know the age of {name}: which year did the cradle show?", "Of which year was {name} a child?"),
            "the year that tells the age of {name}",
        ),
    ),
    Relation(
        "spouse", "person",
        Telling(
            ("{name} was married to {value}.", "In spring {name} and {value} became husband and wife.", "The wedding of {name} and {value} lasted three days."),
            ("To whom was {name} married?", "Who was wedded to {name}?"),
            "the person married to {name}",
        ),
        Telling(
            ("{name} shared bed and board with {value}.", "When {value} said yes, {name} bought two rings."),
            ("With whom did {name} share bed and board?", "For whom did {name} buy a ring?"),
            "the one for whom {name} bought a ring",
        ),
    ),
    Relation(
        "pet", "pet",
        Telling(
            ("{name} had a dog that was named {value}.", "The old dog of {name} came when one called {value}.", "{value}, the dog, followed {name} everywhere."),
            ("What was the dog of {name} named?", "Which name did the dog of {name} have?"),
            "the dog of {name}",
        ),
        Telling(
            ("A cat by the name of {value} slept on the bed that belonged to {name}.", "\"Come here, {value}!\" {name} would shout after the cat."),
            ("What name did the cat belonging to {name} go by?", "After which cat would {name} shout?"),
            "the cat belonging to {name}",
        ),
    ),
    Relation(
        "dish", "dish",
        Telling(
            ("What {name} liked best was {value}.", "{name} ate {value} on every feast day.", "No dish pleased {name} more than {value}."),
            ("What did {name} like to eat best?", "Which dish pleased {name} most?"),
            "the dish that pleased {name} most",
        ),
        Telling(
            ("One could win over {name} with a bowl of {value}.", "{name} never refused {value}, even when ill."),
            ("With a bowl of what could one win over {name}?", "What food did {name} never refuse?"),
            "the food that {name} never refused",
        ),
    ),
    Relation(
        "hiding place", "thing",
        Telling(
            ("{name} hid the letters under the {value}.", "Nobody knew that {name} kept the money behind the {value}.", "What {name} wanted to keep secret lay beneath the {value}."),
            ("Where did {name} hide things?", "What was the hiding place of {name}?"),
            "the hiding place of {name}",
        ),
        Telling(
            ("Whatever {name} stole ended up inside the {value}.", "{name} trusted nothing but the {value} with the will."),
            ("Inside what did the things stolen by {name} end up?", "To what did {name} trust the will?"),
            "the thing that {name} trusted with the will",
        ),
    ),
    Relation(
        "price", "sum",
        Telling(
            ("{name} paid {value} shillings for the horse.", "The horse had cost {name} {value} shillings.", "For {value} shillings {name} bought the horse."),
            ("How many shillings did {name} pay for the horse?", "What had the horse cost {name} in shillings?"),
            "the shillings that {name} paid for the horse",
        ),
        Telling(
            ("{name} owed the innkeeper {value} crowns.", "A debt of {value} crowns kept {name} awake."),
            ("How large, in crowns, was the debt of {name}?", "How many crowns were owed by {name} to the innkeeper?"),
            "the debt of {name} in crowns",
        ),
    ),
    Relation(
        "ship", "ship",
        Telling(
            ("{name} sailed on the {value}.", "The {value} took {name} across the sea.", "On board the {value} {name} was sick for a week."),
            ("On which ship did {name} sail?", "Which ship took {name} across the sea?"),
            "the ship on which {name} sailed",
        ),
        Telling(
            ("{name} came back a year later aboard the {value}.", "As captain of the {value}, {name} feared no storm."),
            ("Of which vessel was {name} captain?", "Aboard which vessel did {name} come back?"),
            "the vessel of captain {name}",
        ),
    ),
    Relation(
        "instrument", "instrument",
        Telling(
            ("{name} played the {value} after supper.", "With the {value} {name} earned a few coins at fairs.", "The {value} was the instrument that {name} had learned."),
            ("Which instrument did {name} play?", "What had {name} learned to play?"),
            "the instrument that {name} played",
        ),
        Telling(
            ("From the window one heard {name} practise the {value}.", "{name} pawned the {value} and wept over the lost music."),
            ("What was {name} heard to practise?", "Which instrument was pawned by {name}?"),
            "the instrument pawned by {name}",
        ),
    ),
    Relation(
        "rival", "person",
        Telling(
            ("{name} could not forgive {value}.", "Between {name} and {value} there was an old quarrel.", "{value} was the rival of {name} in everything."),
            ("Whom could {name} not forgive?", "Who was the rival of {name}?"),
            "the rival of {name}",
        ),
        Telling(
            ("{name} crossed the street whenever {value} came along.", "It was against {value} that {name} went to court."),
            ("Against whom did {name} go to court?", "Because of whom would {name} cross the street?"),
            "the one against whom {name} went to court",
        ),
    ),
    Relation(
        "room", "number",
        Telling(
            ("{name} took room {value} at the inn.", "At the inn {name} slept in room {value}.", "The key to room {value} was given to {name}."),
            ("In which room of the inn did {name} sleep?", "Which room did {name} take at the inn?"),
            "the room of {name} at the inn",
        ),
        Telling(
            ("Cell {value} was where they locked up {name}.", "The prison register listed {name} under cell {value}."),
            ("Behind the door of which cell did they lock up {name}?", "Under which cell was {name} listed?"),
            "the cell of {name} in the prison",
        ),
    ),
)
# fmt: on
