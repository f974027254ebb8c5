"""Words and sentences of the synthetic corpus; nearly every word is one shipped token."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST_NAMES = _words(
    """
    Adam Agnes Albert Alice Amelia Andrew Anna Anne Arthur Beatrice Bertha Caroline Catherine
    Charles Charlotte Clara Daniel David Dinah Dorothy Edith Edmund Edward Eleanor Eliza
    Elizabeth Ellen Emily Emma Ernest Esther Eugene Fanny Frances Francis Frank Frederick George
    Gerald Gilbert Grace Harold Harriet Harry Helen Henry Herbert Hester Horace Hugh Ida Isaac
    Isabel Jack Jacob James Jane Jasper Jenny Joan John Joseph Joshua Judith Julia Kate Kitty
    Laura Leonard Lewis Lionel Louisa Lucy Luke Margaret Maria Marian Marion Martha Martin Mary
    Matthew Maurice Michael Miriam Nathan Nicholas Oliver Paul Peter Philip Phoebe Rachel Ralph
    Rebecca Richard Robert Roger Rosamond Rupert Ruth Samuel Sarah Simon Sophia Stephen Susan
    Sylvia Theodore Thomas Tom Victor Walter William
    """
)
LAST_NAMES = _words(
    """
    Adams Bell Blake Brooke Campbell Carter Clay Clifford Crawford Cross Dale Duncan Fox Garth
    Gibson Gordon Graham Grant Gray Hall Hamilton Harding Harris Hart Harvey Hill Holmes Holt
    Hood Hudson Jackson Johnson Jones Kent King Knight Lane Lee Mason Miller Milton Moore Morgan
    Morris Nelson Norman North Owen Palmer Perry Porter Price Russell Scott Shaw Smith Spencer
    Stone Thornton Ward Watson West Williams Wilson Wood Young
    """
)
PLACES = _words(
    """
    Athens Bath Boston Cambridge Chester Chicago Dublin Edinburgh Florence Glasgow Jerusalem
    Leicester Liverpool London Madrid Manchester Moscow Naples Oxford Paris Petersburg Rochester
    Rome Troy Venice Vienna Windsor York
    """
)
COLOURS = _words(
    """
    black blue brown crimson dark golden green grey pale pink purple red scarlet silver violet
    white yellow orange rosy dusky
    """
)
MATERIALS = _words(
    """
    brass bronze clay copper cotton glass gold iron ivory lead leather linen marble oak paper
    pearl pine silk steel stone straw tin velvet wax wool
    """
)
ITEMS = _words(
    """
    apples arrows bags balls beads beds bells blankets boats books boots bottles boxes bricks
    buttons cakes candles caps cards chains chairs coats cups curtains doors feathers flags
    gates gloves guns hats horns jewels keys knives lamps letters nails pens pictures pipes
    pistols plates pots rings robes ropes sails shells shoes spears swords tables tents toys
    trunks watches weapons wheels
    """
)
TRADES = _words(
    """
    butcher carpenter cook doctor driver farmer fisherman gardener hunter judge lawyer merchant
    nurse painter physician pilot poet porter preacher sailor servant shepherd singer soldier
    surgeon tailor teacher writer
    """
)

# a scene's sentences always come in the same order, so a small model soon predicts most of them
SCENES = (
    (
        "The morning was {weather} and the road was empty.",
        "A boy came down the hill with a {animal} behind him.",
        "He stopped at the gate and looked at the river for a long time.",
        "Then he went on his way, and nobody saw him again that day.",
    ),
    (
        "In the evening the {animal} slept by the fire.",
        "The old woman shut the door and put a little more wood on the coals.",
        "Outside it was {weather}, and the wind went round the house.",
        "She said that it would be better tomorrow.",
    ),
    (
        "There was a small shop at the corner of the street.",
        "The man who kept it had nothing to sell but bread and {food}.",
        "People came in, said that the weather was {weather}, and went out again.",
        "He did not mind, for he liked to hear them talk.",
    ),
    (
        "The ship lay in the harbour all that week.",
        "Every day the captain said that the sea was too {weather}.",
        "The men sat on the deck and ate their {food}.",
        "At last the wind changed, and they were glad.",
    ),
    (
        "At the inn they gave us {food} and a cup of warm milk.",
        "A {animal} sat under the table and waited for its share.",
        "We asked the way to the town, and the host told us.",
        "It was not far, he said, if one kept to the left of the church.",
    ),
    (
        "The garden had a high wall and one narrow door.",
        "In the middle of it stood a tree, and under the tree a bench.",
        "A {animal} used to lie there when the day was {weather}.",
        "Nobody knew whose it was.",
    ),
)
SCENE_WORDS = {
    "weather": ("cold", "warm", "wet", "dark", "rough", "clear"),
    "animal": ("dog", "cat", "goat", "horse", "hen", "pig"),
    "food": ("cheese", "soup", "fish", "apples", "eggs", "meat"),
}
