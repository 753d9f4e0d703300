"""Prompts for challenges: synthetic, varied, never twice.

A prompt is built from word lists by a replayable `Draw`: a system line, one of several task shapes with several
independent slots, and for the longer classes a block of made-up facts that the task refers to. The shortest class alone
has more than 10^9 texts, and every challenge also has its own nonce, so stored answers are worth nothing.

    write_messages(draw, "short")    about 40-70 tokens with SmolLM2's tokenizer
    write_messages(draw, "medium")   about 100-180
    write_messages(draw, "long")     about 250-400
"""

from __future__ import annotations

from protocol.draw import Draw
from protocol.generation import ChatMessage

LENGTH_CLASSES = ("short", "medium", "long")
FACTS = {"short": (0, 0), "medium": (2, 4), "long": (8, 12)}  # how many facts precede the task, inclusive

SYSTEMS = (
    "You are a careful assistant. Answer in plain English.",
    "You answer briefly and stay with what is asked.",
    "You are a patient teacher who explains with examples.",
    "You write clearly, in complete sentences.",
    "You are an editor. Be precise and friendly.",
    "You help people plan their day and their work.",
    "Answer as a well-read librarian would.",
    "You are a guide who knows the town and its stories.",
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


def write_messages(draw: Draw, length: str) -> tuple[ChatMessage, ...]:
    """A system line and one user message of the given length class. Raises KeyError for an unknown class."""
    fewest, most = FACTS[length]
    system = ChatMessage(role="system", content=draw.pick(SYSTEMS))
    lines = [
        f"Note {i + 1}: {_fill(draw, draw.pick(FACT_SHAPES))}" for i in range(fewest + draw.below(most - fewest + 1))
    ]
    task = _fill(draw, draw.pick(TASKS))
    if lines:
        task = "\n".join([*lines, "", f"{task} {draw.pick(CLOSINGS)}"])
    return (system, ChatMessage(role="user", content=task))


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
