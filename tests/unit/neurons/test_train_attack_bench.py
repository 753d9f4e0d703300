"""`touchstone train attack-bench` with a tiny model on a tiny dataset."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from neurons.cli import app
from neurons.train_attack_runs import DRAWN, HONEST, UNDRAWN, Options, run_name
from protocol.training.judging import Reason
from template.training.building import Aim, build
from template.training.texts import mixed
from template.training.tokens import train
from tests.adversary.trainers import ATTACKS, Attack
from tests.adversary.trainers.making import working

runner = CliRunner()
WORDS = [first + rest for first in "bghlmrst" for rest in ("ain", "ed", "old")]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(WORDS, 60)) + "." for _ in range(200)]
    aim = Aim(name="words", tokenizer=train(texts, 300), shard_tokens=1024, validation=0.1)
    asyncio.run(build(aim, mixed(texts), folder / "words", lambda text: None))
    return folder


def bench(home: Path, *options: str):
    given = ["train", "attack-bench", "--dataset", str(home / "words"), "--hidden", "16", "--layers", "1"]
    given += ["--steps", "4", "--batch", "2", "--length", "16", "--windows", "2", "--honest", "3"]
    return runner.invoke(app, [*given, *options])


def test_it_measures_writes_and_goes_on_where_it_was(home: Path) -> None:
    out, table = home / "attacks.json", home / "attacks.md"
    files = ["--out", str(out), "--table", str(table)]
    done = bench(home, "--attacks", "zero update,half the steps,late", *files)
    assert done.exit_code == 0, done.output
    result = json.loads(out.read_text())
    assert result["as_claimed"] and result["honest_rejected"] == 0 and result["conditions"]["dataset"] == "words"
    assert result["honest"]["loss"] < result["honest"]["first_loss"]

    rows = result["attacks"]
    assert list(rows) == ["zero update", "late", "half the steps"], "in the library's order"
    assert {share: seen[DRAWN]["attackers"] for share, seen in rows["late"]["shares"].items()} == {"0.25": 1, "0.4": 2}
    half = rows["half the steps"]["shares"]["0.4"]
    assert half[DRAWN]["ends"].keys() <= {"replay", "useless"} and half[DRAWN]["audited"] >= 0.5
    assert half[DRAWN]["drawn_out"] and half[DRAWN]["entered"] == 0.0
    assert half[DRAWN]["harm"] == 0.0 and half[DRAWN]["kept"] == 0.0, "the model is what honest miners made of it"
    assert half[UNDRAWN]["entered"] >= 0.5 and half[UNDRAWN]["harm"] != 0.0
    for name, end in (("zero update", "empty"), ("late", "absent")):
        seen = rows[name]["shares"]["0.25"]
        assert seen[DRAWN]["ends"] == {end: 2} and seen[UNDRAWN] == seen[DRAWN] and not seen[DRAWN]["drawn_out"]

    lines = table.read_text().splitlines()
    assert lines[0].startswith("| attack |") and [line.split("|")[1].strip() for line in lines[2:5]] == list(rows)
    assert lines[2].endswith("| same |  |  |")
    assert "and 0 of all honest contributions were rejected" in table.read_text()

    more = bench(home, "--attacks", "zero update,backdoor", *files)
    assert more.exit_code == 0, more.output
    assert "backdoor x 1" in more.output and "zero update x" not in more.output, (
        "what is finished is not measured again"
    )
    again = json.loads(out.read_text())["attacks"]
    assert again["zero update"] == rows["zero update"]
    seen = again["backdoor"]["shares"]["0.4"]
    assert seen[DRAWN]["backdoor"] == result["honest"]["backdoor"] != seen[UNDRAWN]["backdoor"]
    assert "Backdoor:" in table.read_text()


def test_a_journal_of_other_conditions_or_a_broken_one_is_refused(home: Path) -> None:
    journal = home / "journal.jsonl"
    journal.write_text(json.dumps({"windows": 7}) + "\n")
    refused = bench(home, "--attacks", "late", "--journal", str(journal))
    assert refused.exit_code == 1 and "measured with another" in refused.output
    journal.write_text("nonsense\nmore\n")
    refused = bench(home, "--attacks", "late", "--journal", str(journal))
    assert refused.exit_code == 1 and "no journal" in refused.output


def test_a_line_cut_off_by_a_kill_is_measured_again(home: Path) -> None:
    journal = home / "killed.jsonl"
    assert bench(home, "--attacks", "late", "--shares", "0.25", "--journal", str(journal)).exit_code == 0
    whole = journal.read_text()
    journal.write_text(whole[:-40])
    done = bench(home, "--attacks", "late", "--shares", "0.25", "--journal", str(journal))
    assert done.exit_code == 0 and run_name("late", 1, DRAWN) in done.output
    assert run_name(HONEST, 0, DRAWN) not in done.output and journal.read_text() == whole


def test_what_it_cannot_do_it_says(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for options, told in (
        (("--attacks", "copied"), "no attack 'copied'"),
        (("--shares", "0.25,1"), "between 0 and 1"),
        (("--shares", "many"), "--shares takes numbers"),
        (("--out", str(home / "missing" / "out.json")), "there is no folder"),
        (("--hidden", "20"), "heads divide the hidden size"),
        (("--dataset", str(home / "nowhere")), "touchstone dataset build"),
    ):
        refused = bench(home, *options)
        assert refused.exit_code == 1 and told in refused.output, refused.output
    monkeypatch.setattr("neurons.train_attack_bench.CHECKOUT", home)
    installed = bench(home)
    assert installed.exit_code == 1 and "clone the repository" in installed.output


def test_an_attack_that_pays_fails_the_command(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    harmless = Attack("late", "works, and claims to cheat", working, Reason.REPLAY)
    monkeypatch.setitem(ATTACKS, "late", harmless)
    done = bench(home, "--attacks", "late", "--shares", "0.4", "--windows", "5", "--json")
    assert done.exit_code == 1
    result = json.loads(done.stdout)
    seen = result["attacks"]["late"]["shares"]["0.4"][DRAWN]
    assert not result["as_claimed"] and seen["entered"] > 0.8 and seen["kept"] > 0.5


def test_shares_are_of_all_miners() -> None:
    options = Options(Path("x"), honest=6)
    assert [options.attackers(share) for share in (0.25, 0.4, 0.01)] == [2, 4, 1]
    assert replace(options, honest=9).attackers(0.4) == 6
