import random
from collections.abc import Sequence

import pytest

from template.gateway.text import Detokenizer
from template.inference.models import LoadedModel
from tests.support.inference import tiny_model

TEXTS = (
    "plain ASCII, line\nby line",
    "Žluťoučký kůň — „příliš“",
    "日本語のテキスト、漢字とかな",
    "👩‍👩‍👧‍👦 family, 🏳️‍🌈 flag, 😀😀😀",
    "a" * 100 + "é" * 100 + "🚀" * 100,
)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


def pieces(loaded: LoadedModel, ids: Sequence[int], sizes: random.Random) -> list[str]:
    text = Detokenizer(loaded.decode)
    found, at = [], 0
    while at < len(ids):
        size = sizes.randint(1, 3)
        found.append(text.push(ids[at : at + size]))
        at += size
    return [*found, text.finish()]


@pytest.mark.parametrize("text", TEXTS)
def test_a_character_is_never_shown_in_halves(loaded: LoadedModel, text: str) -> None:
    """The tokenizer has one token for each byte, so that every character beyond ASCII is spread over several."""
    ids = loaded.tokenizer(text)["input_ids"]
    assert len(ids) == len(text.encode())
    for seed in range(5):
        found = pieces(loaded, ids, random.Random(seed))
        assert "".join(found) == text
        assert not any("\ufffd" in piece for piece in found)


def test_bytes_that_are_no_text_come_out_as_the_decoder_says(loaded: LoadedModel) -> None:
    draw = random.Random(1)
    for _ in range(200):
        ids = [draw.randrange(0, 257) for _ in range(draw.randrange(0, 120))]
        assert "".join(pieces(loaded, ids, draw)) == loaded.decode(ids)


def test_a_stream_shows_text_as_it_comes(loaded: LoadedModel) -> None:
    text = Detokenizer(loaded.decode)
    ids = loaded.tokenizer("abcé")["input_ids"]
    assert [text.push([token]) for token in ids] == ["a", "b", "c", "", "é"]


@pytest.mark.model
@pytest.mark.parametrize("text", TEXTS)
def test_with_the_real_tokenizer(text: str) -> None:
    from tests.support.inference import real_model

    loaded = real_model()
    ids = loaded.tokenizer(text)["input_ids"]
    found = pieces(loaded, ids, random.Random(0))
    assert "".join(found) == loaded.decode(ids) == text
    assert not any("\ufffd" in piece for piece in found)
