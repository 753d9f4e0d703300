"""Prompts for challenges: varied from their first words on, never twice, and of the shapes that users' requests have.

A prompt is built from word lists by a replayable `Draw`: mostly a system line, sometimes an earlier exchange, one of
several task shapes with several independent slots, and for the longer classes a block of made-up notes, or a passage of
a corpus, that the task refers to. Already the system line has more than 10^6 texts, so that keeping the state after a
common beginning saves a miner next to nothing, and every challenge has its own nonce, so stored answers are worth
nothing.

    write_messages(draw, "short")    about 50-110 tokens with SmolLM2's tokenizer
    write_messages(draw, "medium")   about 100-210
    write_messages(draw, "long")     about 220-390
    write_messages(draw, "long", passages)    the same with passages of a corpus instead of notes, half of the time
"""

from __future__ import annotations

from collections.abc import Sequence

from protocol.draw import Draw
from protocol.generation import MAX_MESSAGE_CHARACTERS, ChatMessage

LENGTH_CLASSES = ("short", "medium", "long")
FACTS = {"short": (0, 0), "medium": (2, 4), "long": (8, 12)}  # how many facts precede the task, inclusive

SYSTEMS = (
    "You are {person}, {trade} in {place}. Answer {style}.",
    "Answer {audience} {style}, in a {mood} tone.",
    "You help {trade} with questions about {topic}. Be {mood} and precise.",
    "You are an editor who likes {thing} and {topic2}. Write {style}.",
    "Stay with what is asked; {audience} will read it on {day}.",
    "You teach {topic} to {audience}. Your tone is {mood}.",
    "Speak as {trade} would to {audience}, {style}.",
    "You are a guide to {place}. Keep it {mood}; never mention {thing}.",
)
OPENINGS = (
    ("Can you help me with {topic}?", "Gladly. What about {topic} would {audience} like to know?"),
    ("{person} told me about {thing} on {day}.", "That sounds like {person}. Was it in {place}?"),
    ("I have {number} questions.", "Ask them one by one, and I shall answer {style}."),
    ("Good {day}! Do you know {place}?", "A little. {person}, {trade}, told me of it."),
)
PEOPLE = (
    "Amara", "Bojan", "Chiyo", "Dagny", "Emeka", "Farida", "Goran", "Hana", "Ilse", "Jorge", "Kamala", "Lucien",
    "Mirela", "Nadir", "Odile", "Pavel", "Quirin", "Rosa", "Sefa", "Tomas", "Ulrika", "Vera", "Wanda", "Xenia",
    "Yusuf", "Zora", "Anselm", "Brigid", "Cosmo", "Delia", "Ezra", "Fenja",
)  # fmt: skip
TRADES = (
    "a beekeeper", "a clockmaker", "a night nurse", "a bridge engineer", "a baker", "a cartographer", "a ferry pilot",
    "a seed collector", "a violin maker", "a school cook", "a tram driver", "a weather observer", "a bookbinder",
    "a glass blower", "a river guide", "an astronomer", "a lighthouse keeper", "a potter", "a translator",
    "a stonemason", "a shepherd", "a radio host", "a chess coach", "a tailor",
)  # fmt: skip
PLACES = (
    "a harbour town", "a mountain village", "an old railway station", "a desert observatory", "a floating market",
    "a library basement", "an island with one road", "a valley of orchards", "a city of canals", "a research ship",
    "a school roof garden", "a salt marsh", "a winter camp", "a repair workshop", "a quiet suburb",
    "a border crossing", "a museum of maps", "a bakery cellar", "a dry riverbed", "a hillside vineyard", "a shipyard",
    "a forest clinic", "a square with nine lamps", "an abandoned quarry",
)  # fmt: skip
THINGS = (
    "a brass compass", "a broken kettle", "a box of letters", "a blue bicycle", "a jar of honey", "a paper lantern",
    "a wooden ladder", "a torn map", "a silver whistle", "a heavy rope", "a pocket radio", "a basket of pears",
    "a cracked bell", "a wool blanket", "a set of keys", "a glass lens", "a tin of paint", "a folded note",
    "a lost glove", "a wall clock", "a sack of flour", "a music box", "a fishing net", "a red umbrella",
    "a stone bowl", "a candle stub", "a leather satchel", "a copper pan", "an old camera", "a chalk board",
    "a spare wheel", "a handful of seeds",
)  # fmt: skip
TOPICS = (
    "tides", "how bread rises", "why leaves change colour", "how locks work", "echoes", "the phases of the moon",
    "how maps are drawn", "compound interest", "how vaccines train the body", "why ice floats", "the water cycle",
    "how bicycles stay upright", "how sails catch the wind", "what makes soil fertile", "how rumours spread",
    "how a pendulum keeps time", "why the sky is blue", "how bridges carry weight", "how bees find flowers",
    "what makes glass clear", "how rivers shape valleys", "why we sleep", "how magnets pull",
    "how languages borrow words", "how a refrigerator cools", "what a budget is for", "how seeds travel",
    "why metals rust", "how lightning forms", "how stars are born", "what makes a fair vote",
    "how computers add numbers",
)  # fmt: skip
AUDIENCES = (
    "a curious child", "a new colleague", "a retired sailor", "a busy parent", "a first-year student",
    "a sceptical friend", "a visitor from far away", "a village council", "a reading group", "a tired traveller",
    "a young engineer", "someone who dislikes numbers", "a cook", "a gardener", "a football team",
    "a grandmother who loves detail",
)  # fmt: skip
STYLES = (
    "as a short letter", "as three short paragraphs", "as a numbered list", "as a dialogue",
    "as a radio announcement", "as advice to a friend", "as a diary entry", "as a short fable",
    "with one comparison from daily life", "with two examples", "without any jargon",
    "as a set of questions and answers", "as a speech", "as a postcard", "as instructions", "as a newspaper notice",
)  # fmt: skip
MOODS = (
    "calm", "cheerful", "curious", "dry", "earnest", "gentle", "hopeful", "lively", "modest", "patient", "playful",
    "serious", "solemn", "surprised", "thoughtful", "warm",
)  # fmt: skip
VERBS = (
    "borrowed", "repaired", "hid", "sold", "found", "carried", "measured", "painted", "wrapped", "lost", "traded",
    "cleaned", "described", "returned", "weighed", "drew",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
TASKS = (
    "Explain {topic} to {audience}, {style}. Keep the tone {mood} and mention {thing}.",
    "Write a {mood} story about {person}, {trade}, who finds {thing} in {place}. Let it turn on {topic}.",
    "{person}, {trade} in {place}, asks you about {topic}. Reply {style} in a {mood} tone.",
    "Compare {topic} with {topic2} for {audience}, {style}. Use {thing} as an example.",
    "Plan a {mood} afternoon in {place} for {audience}: it should teach {topic} and involve {thing}.",
    "Describe {place} {number} days after midsummer as {person}, {trade}, would; bring in {thing} and {topic}.",
    "List what {audience} might ask about {topic}, and answer each {style}. The host is {person}, {trade}.",
    "{person} has {number} coins and wants {thing}. Advise {trade} on the price, {style}, with a remark on {topic}.",
)
FACT_SHAPES = (
    "{person} {verb} {thing} in {place} on {day}.",
    "{person} is {trade} and keeps {number} notes about {topic}.",
    "On {day}, {trade} {verb} {thing} for {number} coins.",
    "It takes {number} minutes to walk from {place} to the house of {person}.",
    "{person} says that {topic} matters more than {thing}.",
)
CLOSINGS = (
    "Use at least two of the notes above.",
    "Begin with the most surprising note.",
    "Say first which notes matter, then do the task.",
    "Name every person that appears in the notes.",
)


def write_messages(draw: Draw, length: str, passages: Sequence[str] = ()) -> tuple[ChatMessage, ...]:
    """Messages of the given length class, the last one a user's. Raises KeyError for an unknown class.

    `passages`: texts of a corpus, each cut to what a message may hold; used by the classes that have notes.
    """
    fewest, most = FACTS[length]
    messages = []
    if draw.below(8):
        messages.append(ChatMessage(role="system", content=_fill(draw, draw.pick(SYSTEMS))))
    if not draw.below(4):
        asked, answered = draw.pick(OPENINGS)
        messages.append(ChatMessage(role="user", content=_fill(draw, asked)))
        messages.append(ChatMessage(role="assistant", content=_fill(draw, answered)))
    lines = [
        f"Note {i + 1}: {_fill(draw, draw.pick(FACT_SHAPES))}" for i in range(fewest + draw.below(most - fewest + 1))
    ]
    task = _fill(draw, draw.pick(TASKS))
    if lines and passages and draw.below(2):
        task = f"{draw.pick(passages)[: MAX_MESSAGE_CHARACTERS // 2]}\n\n{task}"
    elif lines:
        task = "\n".join([*lines, "", f"{task} {draw.pick(CLOSINGS)}"])
    return (*messages, ChatMessage(role="user", content=task))


def _fill(draw: Draw, shape: str) -> str:
    """All slots are drawn, in this fixed order, whether or not the shape uses them: the order is part of the rule."""
    topic, topic2 = draw.sample(TOPICS, 2)
    return shape.format(
        topic=topic,
        topic2=topic2,
        person=draw.pick(PEOPLE),
        trade=draw.pick(TRADES),
        place=draw.pick(PLACES),
        thing=draw.pick(THINGS),
        audience=draw.pick(AUDIENCES),
        style=draw.pick(STYLES),
        mood=draw.pick(MOODS),
        verb=draw.pick(VERBS),
        day=draw.pick(DAYS),
        number=2 + draw.below(97),
    )
