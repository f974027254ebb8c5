"""Wordings of training needles; those of evaluation are in a file of their own.

A row is style, noun, statement and one question or more. The first question repeats the words
before the value where the statement allows it; others ask in words of their own.
"""

# fmt: off
TRAINING_WORDINGS: tuple[tuple[str, ...], ...] = (
    # plain statements
    ("plain", "code", "The code of {key} is {value}.", "What is the code of {key}? The code of {key} is"),
    ("plain", "number", "The number that belongs to {key} is {value}.", "Which number belongs to {key}? The number that belongs to {key} is", "Give the number of {key}. It is"),
    ("plain", "password", "{key} has the password {value}.", "What password does {key} have? {key} has the password", "Password of {key}:"),
    ("plain", "label", "On the lid of {key} somebody wrote the label {value}.", "Which label was written on the lid of {key}? On the lid of {key} somebody wrote the label"),
    ("plain", "nickname", "Everyone calls {key} by the nickname {value}.", "By which nickname does everyone call {key}? Everyone calls {key} by the nickname"),
    ("plain", "answer", "The answer to {key} turned out to be {value}.", "What did the answer to {key} turn out to be? It turned out to be", "The answer to {key} turned out to be"),
    ("plain", "word", "Remember that the word for {key} is {value}.", "What is the word for {key}? The word for {key} is"),
    ("plain", "price", "One must pay {value} for {key}.", "What must one pay for {key}? One must pay", "The price of {key} is"),
    # news
    ("news", "tally", "Officials confirmed on Tuesday that the final tally for {key} stood at {value}.", "What was the final tally for {key}, as officials confirmed? The final tally for {key} stood at", "At how much did {key} stand? At"),
    ("news", "flight", "Flight {value} was diverted after an alarm near {key}, the airline reported.", "Which flight was diverted after an alarm near {key}? Flight"),
    ("news", "bid", "The highest bid for {key} reached {value} when the hammer fell.", "What did the highest bid for {key} reach? The highest bid for {key} reached"),
    ("news", "winner", "The jury named {value} the winner of the {key} prize.", "Whom did the jury name the winner of the {key} prize? The jury named"),
    ("news", "headline", "Yesterday's headline about {key} read: {value}.", "What did yesterday's headline about {key} read? Yesterday's headline about {key} read:"),
    ("news", "score", "Fans of {key} celebrated a score of {value} last night.", "Which score did fans of {key} celebrate last night? A score of"),
    ("news", "spokesman", "A spokesman for {key}, {value}, declined to comment.", "Who is the spokesman for {key} that declined to comment? A spokesman for {key},"),
    ("news", "road", "Police closed {value} because of the works at {key}.", "What did the police close because of the works at {key}? Police closed"),
    # letters and mails
    ("letter", "place", "My dear friend, you may write to {key} at {value} until the end of the month.", "Where may one write to {key}? You may write to {key} at"),
    ("letter", "key", "I left the spare key for {key} under {value}, as we agreed.", "Under what was the spare key for {key} left? I left the spare key for {key} under"),
    ("letter", "guest", "Your cousin tells me that {value} will stay at {key} over Christmas.", "Who will stay at {key} over Christmas? Your cousin tells me that it is"),
    ("letter", "secret", "Burn this letter once you have read that {key} hides {value}.", "What does {key} hide, according to the letter? You have read that {key} hides"),
    ("mail", "ticket", "Hi all, the ticket for {key} is {value}, please use it in the subject line.", "Which ticket should be used in the subject line for {key}? The ticket for {key} is", "Ticket for {key}:"),
    ("mail", "room", "Reminder: the meeting about {key} has moved to room {value}.", "To which room has the meeting about {key} moved? The meeting about {key} has moved to room"),
    ("mail", "extension", "If you need {key}, dial extension {value} before noon.", "Which extension should one dial for {key}? If you need {key}, dial extension"),
    ("mail", "deadline", "Please note the new deadline for {key}: {value}.", "What is the new deadline for {key}? Please note the new deadline for {key}:"),
    # code, configuration and comments
    ("code", "constant", "# the offset of {key} must stay {value}, see the manual", "# what must the offset of {key} stay? it must stay", "# the offset of {key} must stay"),
    ("code", "setting", 'settings["{key}"] = {value}', 'print(settings["{key}"])  # prints', 'assert settings["{key}"] =='),
    ("code", "default", "// {key} defaults to {value} unless overridden", "// what does {key} default to? {key} defaults to"),
    ("code", "return value", 'if name == "{key}": return "{value}"', 'lookup("{key}") returns'),
    ("code", "alias", "alias {key}={value}", "Which command is the alias {key} for? It is the alias for"),
    ("code", "flag", "Usage: run with --{key} {value} to reproduce the failure.", "What must follow --{key} to reproduce the failure? Run with --{key}"),
    ("configuration", "value", "{key}: {value}", "What is the value of {key} in the configuration? {key}:"),
    ("configuration", "value", "{key} = {value}", "Which value is {key} set to? {key} ="),
    ("configuration", "field", '{"id": "{key}", "content": "{value}"}', 'Which content does the object with id "{key}" have? Its content is', 'content of "{key}":'),
    ("configuration", "element", "<entry name='{key}'>{value}</entry>", "What stands in the entry named {key}? The entry named {key} holds"),
    # tables
    ("table", "cell", "| {key} | {value} |", "What stands in the table beside {key}? Beside {key} stands", "| {key} |"),
    ("table", "total", "{key}\t{value}\ttotal", "Which total does the row {key} have? The total of {key} is"),
    ("table", "stock", "Item: {key}; in stock: {value}; reorder: no", "How much of the item {key} is in stock? Item: {key}; in stock:"),
    ("table", "platform", "{key} ........ platform {value}", "From which platform does {key} depart? {key} departs from platform"),
    ("table", "record", "No. {key}, entered as {value} in the register", "As what is No. {key} entered in the register? No. {key}, entered as"),
    ("table", "grade", "Pupil: {key}. Grade: {value}. Absent: never.", "Which grade did the pupil {key} get? Pupil: {key}. Grade:"),
    # logs
    ("log", "session", "[INFO] opened session {value} for user {key}", "Which session was opened for user {key}? opened session", "Session of user {key}:"),
    ("log", "checksum", "12:04:51 checksum of {key} verified as {value}", "As what was the checksum of {key} verified? checksum of {key} verified as"),
    ("log", "result", "GET /{key} -> {value}", "What came back for GET /{key}? GET /{key} ->"),
    ("log", "error", "ERROR in module {key}: unexpected token {value}", "Which unexpected token did the module {key} report? ERROR in module {key}: unexpected token"),
    ("log", "port", "listening for {key} on port {value}", "On which port does the server listen for {key}? listening for {key} on port"),
    ("log", "build", "Build of {key} finished, artifact {value} uploaded.", "Which artifact did the build of {key} upload? Build of {key} finished, artifact"),
    # dialogues
    ("dialogue", "answer", '"What do they keep in {key}?" - "{value}, nothing else."', "What did they say is kept in {key}? They keep"),
    ("dialogue", "phone number", "A: How do I reach {key}? B: Ring {value} and wait.", "Which phone number reaches {key}? To reach {key}, ring"),
    ("dialogue", "name", '"I am told," said the captain, "that {key} was once named {value}."', "What was {key} once named, as the captain was told? {key} was once named"),
    ("dialogue", "request", "Asked what {key} wanted, the boy shrugged: {value}.", "What did {key} want, by what the boy said? {key} wanted"),
    ("dialogue", "order", "WAITER: Table {key}? GUEST: We ordered {value}.", "What did the guest at table {key} order? Table {key} ordered"),
    ("dialogue", "reply", "Q: capital letters of {key}? A: {value}", "Q: capital letters of {key}? A:"),
    # lists, notes and recipes
    ("list", "item", "- {key}: {value} (checked)", "What is noted in the list for {key}? - {key}:"),
    ("list", "step", "Step for {key}: turn the dial to {value}.", "To what does one turn the dial in the step for {key}? Step for {key}: turn the dial to"),
    ("list", "chapter", "Chapter {value} deals with {key} alone.", "Which chapter deals with {key} alone? Chapter"),
    ("list", "due book", "Borrowed from the library by {key}: {value}.", "What did {key} borrow from the library? Borrowed from the library by {key}:"),
    ("note", "reminder", "N.B. {key} goes with {value}, never the other way round.", "What does {key} go with? {key} goes with", "N.B. {key} goes with"),
    ("note", "combination", "(combination for {key}, do not lose: {value})", "What is the combination for {key}? The combination for {key} is"),
    ("recipe", "ingredient", "For {key} add {value} and stir until smooth.", "What does one add for {key}? For {key} add"),
    ("recipe", "time", "Leave {key} in the oven for {value} minutes.", "How many minutes does {key} stay in the oven? Leave {key} in the oven for"),
    # law, science, history and places
    ("law", "section", "Disputes over {key} are governed by section {value} of this act.", "Which section of this act governs disputes over {key}? Disputes over {key} are governed by section"),
    ("law", "fine", "Whoever damages {key} shall pay a fine of {value}.", "Which fine shall whoever damages {key} pay? A fine of"),
    ("science", "measurement", "Sample {key} was measured at {value} under the microscope.", "At what was sample {key} measured under the microscope? Sample {key} was measured at"),
    ("science", "constant", "We denote by {value} the constant of {key} in what follows.", "By what do we denote the constant of {key}? We denote it by"),
    ("history", "founder", "It was {value} who founded {key} after the great fire.", "Who founded {key} after the great fire? It was"),
    ("history", "year", "Records show that {key} first appeared in {value}.", "When did {key} first appear, by the records? Records show that {key} first appeared in"),
    ("place", "inn", "Travellers to {key} rest at {value} before they cross the pass.", "Where do travellers to {key} rest before they cross the pass? Travellers to {key} rest at"),
    ("place", "gate", "Enter {key} through the gate marked {value}.", "Through the gate with which mark does one enter {key}? Enter {key} through the gate marked"),
    ("medicine", "dose", "Patient {key} receives a dose of {value} each morning.", "Which dose does patient {key} receive each morning? Patient {key} receives a dose of"),
    ("sport", "lane", "{key} starts from lane {value} in the next heat.", "From which lane does {key} start in the next heat? {key} starts from lane"),
    ("riddle", "solution", "Whoever says {value} before the door of {key} may pass.", "What must one say before the door of {key} to pass? One must say"),
    ("diary", "remark", "Monday. Saw {key} again; wrote down {value} so that I will not forget.", "What did I write down when I saw {key} again? I wrote down"),
)

TRAINING_VALUE_LISTS: tuple[str, ...] = (
    "Which are the {nouns} of {key}? The {nouns} of {key} are",
    "List every {noun} stated for {key}, in order:",
    "Which {nouns} were mentioned together with {key}? They were",
    "{key} was mentioned with several {nouns}. Name them all:",
    "Write down each {noun} that goes with {key}:",
)
TRAINING_KEY_LISTS: tuple[str, ...] = (
    "What are the {nouns} of {keys}? The {nouns} of {keys} are",
    "For {keys}, give the {nouns} one after the other:",
    "Name the {nouns} that belong to {keys}. They are",
    "Look up {keys}. Their {nouns} are",
)
TRAINING_ASSIGNMENTS: tuple[tuple[str, str, str], ...] = (
    ("let {name} = {value};", "let {name} = {other};", "// names that now hold {value}:"),
    ("{name} := {value}", "{name} := {other}", "All names assigned {value} above, directly or by way of others, are"),
    ("SET {name} TO {value}", "SET {name} TO THE SAME AS {other}", "WHICH NAMES WERE SET TO {value}? THEY ARE"),
    ("{name} was given {value}.", "{name} was given whatever {other} had.", "Who ended up with {value}? In order:"),
    ("Box {name} holds {value}.", "Box {name} holds the same as box {other}.", "Which boxes hold {value}? The boxes are"),
    ("export {name}={value}", "export {name}=${other}", "# echo prints {value} for each of"),
    ("Register {name} <- {value}", "Register {name} <- register {other}", "Registers that contain {value}, in order:"),
    ("The parcel {name} weighs {value}.", "The parcel {name} weighs as much as the parcel {other}.", "Parcels that weigh {value}:"),
)
# fmt: on
