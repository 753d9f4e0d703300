"""A calibration claims no more than its sample supports."""

import pytest

from protocol.calibration import FLOORS, HonestSample, SampleTooSmall, Spread, answers_needed, derive
from protocol.inference import Calibration

ROOT, NOTHING = "ab" * 32, Spread.of([])


def sample(answers: int, margin: float = 0.0, distance: float = 0.0) -> HonestSample:
    return HonestSample(
        answers=answers,
        tokens=32 * answers,
        match=1.0,
        margin=Spread.of([0.0, margin]),
        eos_margin=NOTHING,
        request_mean=NOTHING,
        pool_mean=NOTHING,
        distance=Spread.of([0.0, distance]),
        variants={},
        versions={},
        machine="a test",
    )


def test_one_answer_too_few_is_refused_with_the_number_it_takes() -> None:
    needed = answers_needed(1e-3)
    assert derive(ROOT, "float32", sample(needed), 1e-3).false_positives <= 1e-3
    with pytest.raises(SampleTooSmall, match=rf"take {needed}"):
        derive(ROOT, "float32", sample(needed - 1), 1e-3)


def test_limits_fitted_to_the_sample_need_more_answers_than_floors() -> None:
    floor, needed = FLOORS["float32"], answers_needed(1e-3)
    one, two = sample(needed, margin=floor.margin), sample(needed, margin=floor.margin, distance=floor.distance)
    assert derive(ROOT, "float32", one, 1e-3).lost_margin == 1.25 * floor.margin
    with pytest.raises(SampleTooSmall):
        derive(ROOT, "float32", two, 1e-3)
    assert derive(ROOT, "float32", two.model_copy(update={"answers": 2 * needed}), 1e-3).false_positives < 1e-3


def test_no_answer_of_the_sample_is_beyond_a_limit() -> None:
    found = derive(ROOT, "float32", sample(10_000, margin=0.7, distance=0.3), 1e-2)
    assert found.lost_margin > 0.7 and found.distance > 0.3


def test_a_calibration_has_one_form_and_one_digest() -> None:
    found = derive(ROOT, "float32", sample(10_000), 1e-2)
    assert Calibration.model_validate_json(found.model_dump_json()) == found
    assert found.model_copy(update={"distance": 0.2}).digest != found.digest
