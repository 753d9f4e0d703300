"""The list: every cheat with what it does, what its owner hopes for, and what becomes of it.

`Fate` is a claim. `touchstone challenge-bench` measures it with the real model, tests/adversary/test_cheats.py holds it
over the real protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from tests.adversary.cheats import answers, drafts, models
from tests.adversary.cheats.answers import Answering, Handler
from tests.adversary.cheats.kitchen import Kitchen, ModelChange

CAUGHT_BELOW = 0.05  # share of an honest miner's reward; a cheat that keeps more counts as not caught


class Fate(str, Enum):
    """What becomes of a cheat that goes on cheating."""

    CAUGHT = "caught"  # rejected; keeps less than CAUGHT_BELOW of an honest miner's reward
    UNPAID = "unpaid"  # gives no usable answer, so there is nothing to reject and nothing to pay
    HARMLESS = "harmless"  # not caught, because what it delivers is honest work; the lie gains nothing
    MISSED = "missed"  # not caught: keeps more than CAUGHT_BELOW

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Cheat:
    """One dishonest miner. Exactly one of `answering` (an answer in one piece) and `serving` (frames) is set.

    `steady`: it cheats at every token alike, so the beginning of an answer is the answer to a shorter request.
    `model`: what its engine runs instead of the right model. `upstream`: whose seeds the miner behind it answers with.
    """

    name: str
    what: str
    gain: str
    answering: Answering | None = None
    serving: Callable[[Kitchen], Handler] | None = None
    model: ModelChange | None = None
    upstream: Literal["", "its own", "the relay's"] = ""
    steady: bool = True
    fate: Fate = Fate.CAUGHT

    def handler(self, kitchen: Kitchen) -> Handler:
        """A stream handler `(request, caller) -> frames`."""
        if self.serving is not None:
            return self.serving(kitchen)
        assert self.answering is not None
        return answers.whole(self.answering, kitchen)


def _model(name: str, change: ModelChange, what: str, gain: str, **more: Fate) -> Cheat:
    return Cheat(name, what, gain, answers.plain, model=change, **more)


def _sampler(name: str, change: Callable[..., object], what: str, gain: str) -> Cheat:
    return Cheat(name, what, gain, answers.sampling(change))  # type: ignore[arg-type]


def _edit(name: str, answering: Answering, what: str, gain: str) -> Cheat:
    return Cheat(name, what, gain, answering, steady=False)


MEMORY = "less memory, faster decoding"
NOTHING_MADE = "no work at all"

_LIBRARY = (
    _model("layer_skip", models.skip_layer, "leaves one layer of the model out", "a thirtieth of the work"),
    _model("smaller", models.smaller, "serves every second layer only", "half of the work"),
    _model("int8", models.int8, "rounds weights to 8 bits per output channel", MEMORY),
    _model("int4", models.int4, "rounds weights to 4 bits in groups of 32", MEMORY),
    _model("float16", models.float16, "rounds weights to float16", MEMORY),
    _model("bfloat16", models.bfloat16, "rounds weights to bfloat16", MEMORY),
    _model("noise_0.5", models.noise_half_percent, "weights with 0.5 % normal noise", "another model passes"),
    _model("noise_1", models.noise_one_percent, "weights with 1 % normal noise", "another model passes"),
    _model("noise_2", models.noise_two_percent, "weights with 2 % normal noise", "another model passes"),
    _model("edited", models.edited, "a rank-1 edit of 2 % norm in every sixth matrix", "the model says what it likes"),
    _model("tuned", models.tuned, "another revision: one small training step away", "no need to fetch the right one"),
    Cheat("other_prompt", "drops the system prompt", "a shorter prompt", answers.other_prompt),
    Cheat("altered_system", "puts a system prompt of its own", "advertising", answers.altered_system),
    Cheat("short_context", "drops the oldest quarter of the prompt", "a shorter prompt", answers.short_context),
    _sampler("hotter", answers.temperature(+0.3, 0.5), "temperature 0.3 higher", "one sampler for all"),
    _sampler("warmer", answers.temperature(+0.1, 0.1), "temperature 0.1 higher", "one sampler for all"),
    _sampler("colder", answers.temperature(-0.2, 0.1), "temperature 0.2 lower", "one sampler for all"),
    _sampler("greedy", answers.always_greedy, "always the likeliest token", "no sampler"),
    _sampler("no_top_p", answers.no_top_p, "ignores top-p", "a simpler sampler"),
    _sampler("no_top_k", answers.no_top_k, "ignores top-k", "a simpler sampler"),
    Cheat("wrong_seed", "samples with a seed of its own", "chooses its text, batches alike", answers.wrong_seed),
    Cheat("borrowed", "gives the answer that another hotkey owes", "two hotkeys, one answer", answers.borrowed),
    Cheat("other_validator", "answers another validator's nonce", "one answer for two", answers.other_validator),
    _edit("replay", answers.replay, "repeats its earlier answer to the same prompt", NOTHING_MADE),
    _edit("canned", answers.canned, "one stored text for every request", NOTHING_MADE),
    _edit("one_token", drafts.one_token, "one token of its own choice, the rest honest", "a word put in"),
    _edit("runner_up", drafts.runner_up, "one token replaced by the one that came second", "a word put in"),
    _edit("tampered", answers.tampered, "every eighth token of an honest answer replaced", "words put in"),
    _edit("fake_eos", answers.fake_eos, "ends half-way with an end token that did not win", "half of the work"),
    _edit("padded", answers.padded, "half an answer, then its last token repeated", "half of the work"),
    _edit("after_eos", answers.after_eos, "half an answer, then end tokens up to max_tokens", "half of the work"),
    _edit("truncated", answers.truncated, "stops half-way without an end", "half of the work"),
    Cheat("draft_int8", "tokens from int8, one true prefill as proof", "decoding", drafts.drafted, model=models.int8),
    Cheat(
        "draft_half",
        "tokens from half of the layers, one true prefill",
        "decoding",
        drafts.drafted,
        model=models.smaller,
    ),
    Cheat("draft_int4", "tokens from int4, one true prefill as proof", "decoding", drafts.drafted, model=models.int4),
    *(
        Cheat(
            f"lossy_{tolerance:g}",
            f"speculates with int4 and keeps tokens that lose by less than {tolerance:g}",
            "more drafted tokens kept",
            drafts.lossy(tolerance),
            model=models.int4,
            fate=fate,
        )
        for tolerance, fate in ((0.5, Fate.CAUGHT), (0.1, Fate.CAUGHT), (0.02, Fate.MISSED))
    ),
    Cheat(
        "relay",
        "forwards to another miner, which answers with its own seed",
        NOTHING_MADE,
        serving=answers.relay,
        upstream="its own",
    ),
    Cheat(
        "relay_home",
        "forwards to a machine of its own that uses the right seed",
        "none: the work is done, elsewhere and later",
        serving=answers.relay,
        upstream="the relay's",
        fate=Fate.HARMLESS,
    ),
    Cheat(
        "false_timings",
        "honest answers, a thousandth of the time claimed",
        "none: what counts is what the validator measured",
        serving=answers.false_timings,
        fate=Fate.HARMLESS,
    ),
    Cheat(
        "two_faced",
        "streams junk at once and closes with the honest answer",
        "looks fast",
        serving=answers.two_faced,
        steady=False,
    ),
    Cheat("late", "an honest answer after the deadline", "slow hardware", serving=answers.late, fate=Fate.UNPAID),
    Cheat("silent", "takes requests and never answers", NOTHING_MADE, serving=answers.silent, fate=Fate.UNPAID),
)

CHEATS: Mapping[str, Cheat] = {cheat.name: cheat for cheat in _LIBRARY}
