"""Ordinary words that keys and values are made of, whatever tokens a tokenizer makes of them."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ADJECTIVES = _words(
    """
    able abrupt ample ancient angry anxious arctic ashen awkward barren bashful bitter blank
    bleak blind blunt bold bored brave brief bright brisk broad brittle busy calm candid
    careful cheap cheerful chilly civil clean clever cloudy clumsy coarse coastal cold comic
    cosmic cozy crisp crooked cruel cunning curious curly cynical damp daring dazzling deep
    dense distant dizzy double drowsy dull dusty eager early earnest elastic elegant empty
    endless exotic faded fancy fearless festive fierce final flat fluffy foggy forlorn
    formal fragile frantic free fresh frosty frugal funny gaudy gentle giant gifted glad
    glossy graceful grand grateful greedy grim hasty hazy heavy hidden hollow honest hungry
    icy idle jolly jumpy keen kind lame large late lavish lazy lethal level light little
    lively lonely loose loud lowly loyal lucky lunar magic marine mellow merry mighty mild
    modern modest moist muddy murky mystic naive narrow nasty neat nervous nimble noble
    noisy novel odd open ornate patient placid plain polite proper proud quaint quick quiet
    rapid rare rash ready remote rigid ripe robust rough round royal rugged rural rusty safe
    salty savage secret serene shabby shallow sharp shiny shrill shy silent simple sleepy
    slender slim slow smart smooth snug sober soft solar solemn solid sour spare sparse
    stale steady steep stern sticky stiff stout strange strict sturdy subtle sudden sunny
    supreme swift tame tender tense thick thirsty thorny tidy timid tiny tired tough
    tranquil tricky tropical upper urban useful vague vain vast vivid warm wary wasteful
    watery weary wicked wide wild windy wise witty wobbly young zealous
    """
)
NOUNS = _words(
    """
    abbey acorn acre agent alley almond anchor ankle anvil apron arcade armour atlas attic
    autumn avenue bacon badger bakery bamboo banner barge barley barrel basin basket beacon
    beaver beetle belfry bishop blanket blossom border bottle boulder bracket branch bridge
    brook bucket buffalo bugle bundle burrow butter button cabin cactus camel canal candle
    canoe canyon captain caravan carpet castle cavern cedar cellar chapel cherry chestnut
    chimney cider cinema circus citadel cliff clover cobbler coconut collar comet compass
    copper coral cottage cougar courier crane cradle crater cricket crystal cupboard curtain
    dagger daisy dancer desert diamond dolphin donkey dragon drawer dungeon eagle ember
    emperor engine envelope estate falcon feather fern ferry fiddle finger flame flute
    forest fossil fountain freight galaxy gallery garlic garnet gazelle geyser ginger
    glacier goblet granite grape gravel grove guitar hammer hamlet harbour harvest hatchet
    hawk hazel hedge helmet herald hermit heron hill hornet horizon hostel iceberg island
    ivory jacket jaguar jasmine jester jewel journal jungle kernel kettle keyhole kitchen
    kitten knapsack ladder lagoon lantern larch lattice lava ledger lemon leopard library
    lilac linen lizard lobster locket lotus lumber magnet mango mantle maple marble market
    marsh meadow medal melon mermaid meteor mill minnow mirror mitten monk monsoon mosaic
    mountain mulberry museum mustard napkin nectar needle nest nettle nickel notebook nutmeg
    oasis oatmeal obelisk ocean olive onion orchard orchid otter oyster paddle palace
    panther parade parcel parrot pastry pavilion peacock pebble pelican pepper pigeon pillow
    pilgrim pioneer pistol planet plaza plough plum pocket pond poplar poppy port prairie
    prism puddle pumpkin puppet quarry quartz quill quilt rabbit radish raft railway raven
    reef ribbon river robin rocket rooster rose saddle saffron sailor salmon sandal sapphire
    satchel saucer scarf scholar sculptor seal shadow shelf shovel shrine signal skillet
    sled slipper smith spade sparrow spider spindle spruce squirrel stable staircase statue
    stork stream summit sunset swallow tavern temple thicket thistle thunder timber tinker
    tower tractor trumpet tulip tunnel turnip turtle valley vessel village vine violin
    volcano wagon walnut walrus warehouse willow window winter wizard wolf woodland wren
    yacht
    """
)
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
