"""Files of weights, and two epochs side by side."""

from __future__ import annotations

import pytest

from localnet.errors import ConfigError
from localnet.vocabulary import public_key
from localnet.whatif.rules import Change, by_uid, compare, cuts, moved, read_weights, scaled

ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"


@pytest.mark.parametrize(
    "text",
    [
        f'{{"0": 1, "{ALICE}": 0.5, " 7 ": 0}}',
        f"0,1\n{ALICE},0.5\n7,0\n",
        f'\nhotkey, weight\n# mine\n"0", 1e0\n{ALICE} , 5e-1\r\n7,0',
    ],
)
def test_files(text: str) -> None:
    assert read_weights(text) == {"0": 1, ALICE: 0.5, "7": 0}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (" \n", "is empty: weights are JSON"),
        ("{}", "no weight above 0"),
        ('{"1": 0}', "no weight above 0"),
        ('{"1": 1, "1": 2}', "entry 2: 1 has a weight already"),
        ('{"1": true}', "is no number: True"),
        ('{"1": "2"}', "is no number: '2'"),
        ('{"1": {"2": 3}}', "is no number"),
        ('{"1": NaN}', "is nan"),
        ('{"1": 1e999}', "is inf"),
        ('{"1": -1}', "is -1"),
        ('{"1": 1', "is no JSON"),
        ("[1, 2]", "is a list"),
        ("[" * 100_000, "is no JSON"),
        ("1,2\n1,3", "line 2: 1 has a weight already"),
        ("1;2", "line 1: '1;2' is no"),
        ("1,2\nuid,weight", "line 2: the weight 'weight' is no number"),
        ("1,x", "line 1: the weight 'x' is no number"),
        ("1,inf", "is inf"),
        ("0,1\n" * 2**20 + "0,1", "too large"),
    ],
)
def test_files_that_are_none(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_weights(text, "mine")


def test_a_huge_number_is_read_at_once() -> None:
    assert scaled({0: read_weights(f'{{"0": {"9" * 300}, "1": 1}}')["0"], 1: 1}) == [(0, 65535)]


def test_uids_and_hotkeys() -> None:
    hotkeys = [bytes(32), public_key(ALICE)]
    assert by_uid({ALICE: 2.0, "0": 1.0}, hotkeys, public_key) == {1: 2.0, 0: 1.0}
    for given, words in (
        ({"2": 1.0}, "no uid 2"),
        ({"9" * 5000: 1.0}, "no uid 9"),
        ({"x" * 999: 1.0}, "x{80}' is neither a uid nor a hotkey: .{0,80}$"),
    ):
        with pytest.raises(ConfigError, match=words):
            by_uid(given, hotkeys, public_key)


def test_scaling_is_the_sdks() -> None:
    assert scaled({4: 0.2, 2: 0.1, 9: 0.0, 3: 1e-9}) == [(4, 65535), (2, 32768)]
    assert scaled({4: 65535, 2: 1, 1: 40000}) == [(4, 65535), (2, 1), (1, 40000)]


def test_cuts() -> None:
    row = [(0, 100), (1, 300), (2, 100)]
    found = cuts(row, [0, 65535 // 5, 65535], without=0)
    assert [(one.uid, one.share) for one in found] == [(1, 0.75), (2, 0.25)]
    assert [round(one.cut, 4) for one in found] == [0.55, 0.0]
    assert [one.cut for one in cuts(row, [], None)] == [0.2, 0.6, 0.2] and cuts([(0, 5)], [1], without=0) == []


def test_comparing() -> None:
    before, after = {"Incentive": [1, 2, 3], "Trust": [0, 0]}, {"Incentive": [1, 5, 3, 4], "Trust": [0, 0]}
    assert compare(before, after) == [Change(1, {"Incentive": (2, 5)}), Change(3, {"Incentive": (0, 4)})]
    assert compare(before, before) == []
    assert moved([(0, 5), (1, 5)], [(1, 4), (2, 9)]) == [(2, 0, 9), (0, 5, 0), (1, 5, 4)]
