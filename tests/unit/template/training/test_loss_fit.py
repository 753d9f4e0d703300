"""The fit finds the model that records were drawn from, says how far it is off, and the shipped one is whole."""

from pathlib import Path

import numpy as np
import pytest

from protocol.training.aggregation import measured_factor
from protocol.training.simulation.loss import LossModel
from template.training.loss_fit import Conditions, LossFit, LossFitUnusable, fit_model, read, shipped, write
from template.training.loss_records import CAST, Plan, ScoreRecord, StepRecord, WindowRecord
from tests.support.losses import LOSSES

CONDITIONS = Conditions(
    dataset="ab" * 32, dataset_name="none", parameters=1, plan=Plan(), cast={}, seeds=(0,), windows=80,
    versions={}, processor="none",
)  # fmt: skip


def drawn(model: LossModel, windows: int, rng: np.random.Generator) -> list[WindowRecord]:
    """What a training would record of which the model is true."""
    loss, records = model.start, []
    for window in range(windows):
        whole = next(place for place, one in enumerate(CAST) if one == ("work", 1.0))
        source = np.array([whole if kind == "copy" else place for place, (kind, _) in enumerate(CAST)])
        gains = model.scores(loss, np.array([share for _, share in CAST]), source, rng)
        scores = [
            ScoreRecord(kind=kind, share=share, assigned=assigned, unassigned=unassigned)
            for (kind, share), assigned, unassigned in zip(CAST, *gains, strict=True)
        ]
        pull, scatter = model.pull.at(loss - model.floor), model.scatter.at(loss / model.start)
        steps = []
        for count, length in ((6, 1.0), (6, 0.5), (1, 1.0), (2, 1.0), (4, 1.0)):
            curve = model.bend * pull + scatter / count
            drop = length * pull - length**2 * curve + 1e-4 * rng.standard_normal()
            steps.append(StepRecord(count=count, share=1.0, length=length, drop=drop))
        records.append(WindowRecord(seed=0, window=window, loss=loss, scores=tuple(scores), steps=tuple(steps)))
        loss -= model.drop(loss, np.ones(6))
    return records


def test_a_fit_finds_what_records_were_drawn_from() -> None:
    records = drawn(LOSSES, 80, np.random.default_rng(0))
    fit = fit_model(records, CONDITIONS)
    assert fit.losses == (records[3].loss, records[-1].loss), "the warm-up's three windows are left out"
    shares = np.array([1.0, 0.5, 0.25])
    for loss in (7.0, 6.0, records[-1].loss):
        assert fit.model.alone(loss, shares) == pytest.approx(LOSSES.alone(loss, shares), abs=0.01)
        noise, true = (model.alone(loss, np.zeros(1))[0] for model in (fit.model, LOSSES))
        assert noise == pytest.approx(true, rel=0.4)
        for count in (1, 4, 300):
            assert fit.model.drop(loss, np.ones(count)) == pytest.approx(
                LOSSES.drop(loss, np.ones(count)), rel=0.05, abs=1e-3
            )
        own, true = (model.own.at(loss / model.start) for model in (fit.model, LOSSES))
        assert own == pytest.approx(true, rel=0.15)
    for name in ("spread", "spread_assigned", "spread_unassigned"):
        assert getattr(fit.model, name) == pytest.approx(getattr(LOSSES, name), rel=0.2)
    assert fit.residuals["steps"].explained > 0.999 and fit.residuals["steps"].count == 5 * 77
    measured = measured_factor(len(CAST)) * np.hypot(LOSSES.spread_assigned, LOSSES.spread_unassigned)
    assert fit.residuals["copy, own"].left == pytest.approx(measured, rel=0.2)


def test_what_cannot_be_fitted_is_refused() -> None:
    records = drawn(LOSSES, 20, np.random.default_rng(1))
    with pytest.raises(LossFitUnusable, match="too few"):
        fit_model(records[:14], CONDITIONS)
    upside_down = [
        record.model_copy(update={"steps": tuple(s.model_copy(update={"drop": -s.drop}) for s in record.steps)})
        for record in records
    ]
    with pytest.raises(LossFitUnusable, match="no better"):
        fit_model(upside_down, CONDITIONS)


def test_a_fit_is_written_whole_and_read_again(tmp_path: Path) -> None:
    fit = fit_model(drawn(LOSSES, 20, np.random.default_rng(2)), CONDITIONS)
    path = tmp_path / "new" / "fit.json"
    write(path, fit)
    assert read(path) == fit and [file.name for file in path.parent.iterdir()] == ["fit.json"]
    path.write_text(path.read_text().replace('"bend"', '"bent"'))
    with pytest.raises(LossFitUnusable, match="is no fit: model"):
        read(path)
    with pytest.raises(LossFitUnusable, match="cannot read"):
        read(tmp_path / "nothing.json")


def test_the_shipped_fit_is_of_real_trainings_and_says_which() -> None:
    fit: LossFit = shipped()
    about = fit.conditions
    assert about.dataset_name == "small-english" and about.parameters > 100_000 and about.windows >= 80
    assert {"torch", "numpy", "transformers"} <= set(about.versions) and len(about.seeds) >= 1
    assert fit.residuals["steps"].explained > 0.5 and fit.losses[0] > fit.losses[1] > fit.model.floor
    assert fit.residuals["steps"].count > 3 * about.windows
