"""What stories tell of people: relations, with the words of training and those of evaluation.

A relation is stated in a sentence and asked for in a question; the answer is the value alone. No
run of four words of an evaluation sentence is in a training one.
"""

from __future__ import annotations

from dataclasses import dataclass

from gcattn.data.words.split import Split


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
            ("{name} lived in {value} at that time.", "The house of {name} stood in {value}.", "For many years {name} had been at home in {value}.", "{name} moved to {value} as a child and stayed.", "You could find {name} in {value}, in the house with the green door."),
            ("Where did {name} live?", "In which town was the house of {name}?", "What was the home of {name}?", "Name the town that {name} moved to."),
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
            ("{name} earned a living as a {value}.", "By trade {name} was a {value}.", "The sign over the door said that {name} was a {value}.", "As a {value}, {name} was known for honest work.", "{name} worked as a {value} from morning until night."),
            ("What was the trade of {name}?", "How did {name} earn a living?", "As what did {name} work?", "What was {name}, by trade?"),
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
            ("{name} was born in {value}.", "In the year {value} {name} came into the world.", "The church book gave {value} as the year of birth of {name}.", "{name}, born in {value}, was the youngest of seven.", "The birth of {name} in {value} was a surprise to everybody."),
            ("When was {name} born?", "What was the year of birth of {name}?", "In which year was {name} born?", "What year saw the birth of {name}?"),
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
            ("{name} was married to {value}.", "In spring {name} and {value} became husband and wife.", "The wedding of {name} and {value} lasted three days.", "{value} was the wife or husband of {name}.", "{name} had married {value} in secret."),
            ("To whom was {name} married?", "Who was wedded to {name}?", "Whom had {name} married?", "Who was the wife or husband of {name}?"),
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
            ("{name} had a dog that was named {value}.", "The old dog of {name} came when one called {value}.", "{value}, the dog, followed {name} everywhere.", "{name} fed the dog {value} before anybody else.", "No dog was as faithful as {value}, which belonged to {name}."),
            ("What was the dog of {name} named?", "Which name had the dog of {name}?", "How did {name} call the dog?", "Which dog did {name} feed before anybody else?"),
            "the dog of {name}",
        ),
        Telling(
            ("A dog by the name of {value} slept on the bed that belonged to {name}.", "\"Come here, {value}!\" {name} would shout after the dog."),
            ("What name did the dog belonging to {name} go by?", "After which dog would {name} shout?"),
            "the dog belonging to {name}",
        ),
    ),
    Relation(
        "dish", "dish",
        Telling(
            ("What {name} liked best was {value}.", "{name} ate {value} on every feast day.", "No dish pleased {name} more than {value}.", "{name} asked for {value} again and again.", "The favourite food of {name} was {value}."),
            ("What did {name} like to eat best?", "Which dish pleased {name} most?", "What was the favourite food of {name}?", "For which food did {name} ask again and again?"),
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
            ("{name} hid the letters under the {value}.", "Nobody knew that {name} kept the money behind the {value}.", "What {name} wanted to keep secret lay beneath the {value}.", "Under the {value} {name} had hidden a key.", "{name} pushed the bag behind the {value}."),
            ("Where did {name} hide things?", "What was the hiding place of {name}?", "Under what had {name} hidden a key?", "What did {name} use as a hiding place?"),
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
            ("{name} paid {value} shillings for the horse.", "The horse had cost {name} {value} shillings.", "For {value} shillings {name} bought the horse.", "The horse that {name} bought was sold for {value} shillings.", "{name} gave the dealer {value} shillings and took the horse."),
            ("How many shillings did {name} pay for the horse?", "What had the horse cost {name} in shillings?", "For how many shillings did {name} buy the horse?", "What price did {name} pay for the horse, in shillings?"),
            "the shillings that {name} paid for the horse",
        ),
        Telling(
            ("{name} spent {value} shillings at the market and rode home.", "A horse worth {value} shillings carried {name} home."),
            ("What sum in shillings was spent by {name} at the market?", "How much, in shillings, was the horse worth that carried {name} home?"),
            "the sum spent by {name} at the market",
        ),
    ),
    Relation(
        "ship", "ship",
        Telling(
            ("{name} sailed on the {value}.", "The {value} took {name} across the sea.", "On board the {value} {name} was sick for a week.", "{name} went on board the {value} in the dark.", "The name of the ship that brought {name} home was the {value}."),
            ("On which ship did {name} sail?", "Which ship took {name} across the sea?", "What was the name of the ship that brought {name} home?", "On board which ship did {name} go?"),
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
            ("{name} played the {value} after supper.", "With the {value} {name} earned a few coins at fairs.", "The {value} was the instrument that {name} had learned.", "{name} could play the {value} better than anyone.", "{name} carried the {value} in a case of leather."),
            ("Which instrument did {name} play?", "What had {name} learned to play?", "Which instrument could {name} play?", "What was in the case that {name} carried?"),
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
            ("{name} could not forgive {value}.", "Between {name} and {value} there was an old quarrel.", "{value} was the rival of {name} in everything.", "{name} hated nobody as much as {value}.", "{value} had once cheated {name} at cards."),
            ("Whom could {name} not forgive?", "Who was the rival of {name}?", "Whom did {name} hate?", "Who had once cheated {name} at cards?"),
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
            ("{name} took room {value} at the inn.", "At the inn {name} slept in room {value}.", "The key to room {value} was given to {name}.", "They gave {name} room {value} at the inn.", "{name} waited in room {value} until the evening."),
            ("In which room of the inn did {name} sleep?", "Which room did {name} take at the inn?", "What was the number of the room of {name}?", "In which room did {name} wait until the evening?"),
            "the room of {name} at the inn",
        ),
        Telling(
            ("Room {value} was kept for {name} by the innkeeper.", "The innkeeper put {name} into room {value}."),
            ("What number was on the door of the room kept for {name}?", "Into which room did the innkeeper put {name}?"),
            "the room into which they put {name}",
        ),
    ),
)
# fmt: on
