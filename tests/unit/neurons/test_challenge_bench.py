"""`touchstone challenge-bench` with a tiny model, and the statistics behind its table."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from neurons.cheat_runs import HONEST
from neurons.cli import app
from neurons.detection import Limits, Policy, Seen, detection, own_limits, seen_of, shortened
from protocol.audits import audit_floor
from protocol.fingerprint import CHUNK
from protocol.inference import ChallengePolicy, Outcome, Reason, Sampler
from template.inference import calibrations
from template.inference.engine import ContinuousBatchingEngine
from template.inference.models import LoadedModel
from template.inference.service import GenerateService
from template.inference.verifier import Verifier
from tests.adversary.cheats import CHEATS, Cheat
from tests.support.inference import collect, tiny_model
from tests.support.plans import calibration_of, plan

runner = CliRunner()
POLICY = Policy(audit_floor(1.0, 0.0), rounds=200, seed=0)
LIMITS = {16: Limits(0.001, 0.01), 32: Limits(0.001, 0.01)}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def loaded(home: Path) -> LoadedModel:
    model = tiny_model(home)  # prepared in home/cache
    calibrations.write(home / "calibration.json", calibration_of(model.identity))
    return model


def bench(home: Path, *options: str, calibration: bool = True):
    given = ["challenge-bench", "--model-source", "path", "--model-name", str(home / "origin")]
    given += ["--answers", "2", "--max-tokens", "32", "--honest", "3", "--rounds", "50"]
    given += ["--calibration", str(home / "calibration.json")] if calibration else []
    return runner.invoke(app, [*given, *options], env={"TOUCHSTONE_CACHE": str(home / "cache")})


def test_it_measures_writes_and_goes_on_where_it_was(loaded: LoadedModel, home: Path) -> None:
    out, table = home / "bench.json", home / "bench.md"
    files = ["--out", str(out), "--table", str(table)]
    done = bench(home, "--cheats", "one_token,false_timings,silent", *files)
    assert done.exit_code == 0, done.output
    result = json.loads(out.read_text())
    rows = result["cheats"]
    assert result["as_claimed"] and {name: row["fate"] for name, row in rows.items()} == {
        "one_token": "caught",
        "false_timings": "harmless",
        "silent": "unpaid",
    }
    assert rows["one_token"]["caught"] == {"8": 1.0, "16": 1.0, "32": 1.0}
    assert rows["one_token"]["reasons"] == {"lost_tokens": 2} and rows["one_token"]["kept"] == 0.0
    assert rows["one_token"]["answers_until_caught"] == {"rate_1": 1.0, "floor": pytest.approx(1 / POLICY.floor)}
    assert rows["false_timings"]["kept"] == pytest.approx(1.0) and rows["false_timings"]["hunts_caught"] == 0.0
    assert rows["silent"]["kept"] == 0.0 and rows["silent"]["reasons"] == {"no_answer": 2}
    assert result["honest"]["rejected"] == 0
    lines = table.read_text().splitlines()
    assert lines[0].startswith("| cheat |") and [line.split()[1] for line in lines[2:5]] == list(rows)

    more = bench(home, "--cheats", "one_token,truncated", *files)
    assert more.exit_code == 0, more.output
    assert "truncated:" in more.output and "one_token:" not in more.output, "what is finished is not measured again"
    again = json.loads(out.read_text())["cheats"]
    assert again["one_token"] == rows["one_token"] and again["truncated"]["reasons"] == {"too_short": 2}


def test_a_journal_of_other_conditions_or_a_broken_one_is_refused(loaded: LoadedModel, home: Path) -> None:
    journal = home / "journal.jsonl"
    journal.write_text(json.dumps({"answers": 7}) + "\n")
    refused = bench(home, "--cheats", "truncated", "--journal", str(journal))
    assert refused.exit_code == 1 and "measured with another" in refused.output
    journal.write_text("nonsense\nmore\n")
    refused = bench(home, "--cheats", "truncated", "--journal", str(journal))
    assert refused.exit_code == 1 and "no journal" in refused.output


def test_a_line_cut_off_by_a_kill_is_measured_again(loaded: LoadedModel, home: Path) -> None:
    journal = home / "killed.jsonl"
    assert bench(home, "--cheats", "truncated", "--journal", str(journal)).exit_code == 0
    whole = journal.read_text()
    journal.write_text(whole[:-40])
    done = bench(home, "--cheats", "truncated", "--journal", str(journal))
    assert done.exit_code == 0 and "truncated:" in done.output and f"{HONEST}:" not in done.output
    assert journal.read_text() == whole


def test_what_it_cannot_do_it_says(loaded: LoadedModel, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = bench(home, "--cheats", "int9")
    assert unknown.exit_code == 1 and "no cheat 'int9'" in unknown.output and "int8" in unknown.output
    missing = bench(home, "--cheats", "truncated", calibration=False)
    assert missing.exit_code == 1 and "touchstone calibrate" in missing.output
    nowhere = bench(home, "--out", str(home / "missing" / "out.json"))
    assert nowhere.exit_code == 1 and "there is no folder" in nowhere.output
    monkeypatch.setattr("neurons.challenge_bench.CHECKOUT", home)
    installed = bench(home)
    assert installed.exit_code == 1 and "clone the repository" in installed.output


def test_a_cheat_that_fares_otherwise_fails_the_command(
    loaded: LoadedModel, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = CHEATS["false_timings"]
    wrong = Cheat("truncated", honest.what, honest.gain, serving=honest.serving)  # claims to be caught, and is not
    monkeypatch.setitem(CHEATS, "truncated", wrong)  # type: ignore[arg-type]
    done = bench(home, "--cheats", "truncated", "--json")
    assert done.exit_code == 1
    result = json.loads(done.stdout)
    assert result["as_claimed"] is False and result["cheats"]["truncated"]["fate"] == "missed"


# Statistics


async def test_a_shortened_answer_is_judged_as_a_shorter_one(loaded: LoadedModel) -> None:
    policy = ChallengePolicy(samplers=(Sampler(),), max_tokens=(48,), length_classes=("short",))
    calibration, verifier = calibration_of(loaded.identity), Verifier(loaded)
    async with ContinuousBatchingEngine(loaded) as engine:
        service = GenerateService(engine, loaded.identity, "miner")
        for number in range(3):
            challenge = plan(loaded.identity, loaded.tokenize, round=number, policy=policy)
            response, streamed = await collect(service(challenge.request))
            (recomputed,) = verifier.recompute_now([(challenge, response)])
            whole = seen_of(number, challenge, response, recomputed, calibration, streamed)
            assert (whole.size, whole.outcome, whole.tokens) == (48, Outcome.ACCEPT, len(response.token_ids))
            short = seen_of(number, *shortened(challenge, response, recomputed, 32), calibration, None)
            assert short.outcome is Outcome.ACCEPT and short.size == 32
            assert short.margins == recomputed.margins[:32]
            assert short.distances == recomputed.distances[: len(short.distances)]
            with pytest.raises(ValueError, match="whole chunks"):
                shortened(challenge, response, recomputed, CHUNK + 1)
            bad_form = response.model_copy(update={"token_ids": ()})
            rejected = seen_of(number, challenge, bad_form, recomputed, calibration, None)
            assert (rejected.reason, rejected.margins) == (Reason.EMPTY.value, None)
    verifier.close()


def answers(rejected: int, accepted: int, margin: float = 0.0, distance: float = 0.0) -> list[Seen]:
    kinds = [(Outcome.REJECT, "lost_tokens")] * rejected + [(Outcome.ACCEPT, "ok")] * accepted
    return [
        Seen(
            size=size,
            number=number,
            outcome=outcome,
            reason=reason,
            tokens=size,
            margins=(margin,) * size,
            distances=(distance,) * (size // CHUNK),
        )
        for number, (outcome, reason) in enumerate(kinds)
        for size in LIMITS
    ]


def test_detection_counts_what_the_judge_said(loaded: LoadedModel) -> None:
    found = detection("x", answers(5, 15, margin=1e-5), LIMITS, calibration_of(loaded.identity), POLICY)
    assert found["caught"] == {"16": 0.25, "32": 0.25}
    assert found["reasons"] == {"ok": 15, "lost_tokens": 5}
    assert found["answers_until_caught"]["rate_1"] == pytest.approx(4.0, rel=0.2)
    assert found["tokens_until_caught"]["p50"] <= 4 * 32 < found["tokens_until_caught"]["p95"]
    assert found["own_mean"] == {"16": 0.0, "32": 0.0}
    assert found["kept"] < found["kept_at_most"] < 0.2


def test_detection_says_when_nothing_is_ever_caught(loaded: LoadedModel) -> None:
    calibration = calibration_of(loaded.identity)
    found = detection("x", answers(0, 8, margin=1e-6, distance=0.02), LIMITS, calibration, POLICY)
    assert found["tokens_until_caught"] == {"p50": None, "p95": None}
    assert found["answers_until_caught"] == {"rate_1": None, "floor": None}
    assert found["own_distance"] == {"16": 1.0, "32": 1.0}, "own thresholds may see what the judge does not"
    assert found["kept"] == pytest.approx(1.0) and found["kept_at_most"] == 1.0


def test_own_limits_are_exceeded_by_no_more_than_their_share_of_honest_answers() -> None:
    honest = [
        Seen(
            size=32,
            number=number,
            outcome=Outcome.ACCEPT,
            reason="ok",
            tokens=32,
            margins=tuple(0.2 if (number * 32 + place) % 97 == 0 else 0.0 for place in range(32)),
            distances=(1e-4 + number * 1e-6, 2e-4),
        )
        for number in range(64)
    ]
    limits = own_limits(honest, (16, 32), seed=1)
    assert limits == own_limits(honest, (16, 32), seed=1)
    assert limits[16].mean > limits[32].mean > 0.2 / 97, "longer answers scatter less"
    assert limits[32].distance == 2e-4
    assert sum(seen.mean > limits[32].mean for seen in honest) <= 1
