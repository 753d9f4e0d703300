"""The loss model of the simulation, fitted to real trainings; and the fit that is shipped.

    fit = fit_model(records, conditions)       -> LossFit: the model, what it was fitted to, how far it is off
    read(path), write(path, fit), shipped()

The form is in protocol/training/simulation/loss.py. Windows of the warm-up are left out. First the steps of honest
contributions, by least squares: for given floor and exponents the three scales are linear, the rest is a search over a
grid. Then what a part of the work does, what noise does, and what helps on own data; and how contributions of one
window differ. The residuals say how well it fits: compare them with the deviation of the figures themselves.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from protocol.dataset import DatasetManifest, dataset_id
from protocol.generation import canonical_json
from protocol.synapse import Message
from protocol.training.aggregation import measured_factor
from protocol.training.simulation.loss import LEAST, LossModel, Power
from template.errors import TemplateError
from template.training.loss_records import CAST, Plan, WindowRecord

SHIPPED = Path(__file__).parent / "data" / "loss_model.json"
LEAST_WINDOWS = 12
FLOORS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)  # nats below the lowest loss that was seen
PULLS = np.arange(0.0, 5.01, 0.25)  # exponents
SCATTERS = np.arange(-8.0, 4.01, 0.5)
SHARE_EXPONENTS = np.arange(0.0, 3.01, 0.05).round(2)
VERSIONS = ("torch", "transformers", "numpy")

Floats = npt.NDArray[np.float64]


class LossFitUnusable(TemplateError):
    """A file is no fit, or records are too few for one."""


class Conditions(Message):
    """What was run. `dataset`: its id."""

    dataset: str
    dataset_name: str
    parameters: int
    plan: Plan
    cast: dict[str, int]
    seeds: tuple[int, ...]
    windows: int
    versions: dict[str, str]
    processor: str


class Residual(Message):
    """Of one kind of figure, in nats a token: how many, their own standard deviation, and the root mean square of what
    the model leaves. `explained`: share of their variance; negative when the model is worse than their mean."""

    count: int
    deviation: float
    left: float
    explained: float


class LossFit(Message):
    """`losses`: highest and lowest of the windows that were fitted."""

    version: int = 1
    model: LossModel
    losses: tuple[float, float]
    residuals: dict[str, Residual]
    conditions: Conditions

    @property
    def digest(self) -> str:
        """SHA-256 of the model, 16 hex digits."""
        return hashlib.sha256(canonical_json(self.model)).hexdigest()[:16]


def conditions_of(manifest: DatasetManifest, parameters: int, plan: Plan, seeds: Sequence[int]) -> Conditions:
    """What a fit to runs of these seeds stands on."""
    cast: dict[str, int] = {}
    for kind, share in CAST:
        name = f"{kind} {share:g}"
        cast[name] = cast.get(name, 0) + 1
    return Conditions(
        dataset=dataset_id(manifest),
        dataset_name=manifest.name,
        parameters=parameters,
        plan=plan,
        cast=cast,
        seeds=tuple(seeds),
        windows=plan.windows * len(seeds),
        versions={name: version(name) for name in VERSIONS},
        processor=platform.machine(),
    )


def fit_model(records: Sequence[WindowRecord], conditions: Conditions) -> LossFit:
    """Raises LossFitUnusable when there are too few windows after the warm-up, or they show no curvature."""
    plan = conditions.plan
    warm = math.ceil(plan.inner.warmup / plan.tasks.steps)
    used = [record for record in records if record.window >= warm]
    if len(used) < LEAST_WINDOWS:
        raise LossFitUnusable(
            f"{len(used)} windows after the warm-up are too few for a fit", remedy=f"run at least {LEAST_WINDOWS}"
        )
    steps, scores = _Steps.of(used), _Scores.of(used)
    start = max(record.loss for record in records)
    floor, pull, bend, scatter = _fitted_steps(steps, start)
    plain = LossModel(
        start=start, floor=floor, pull=pull, bend=bend, scatter=scatter,
        partial=1.0, partial_scatter=1.0, noise=1.0, own=Power(scale=0.0, exponent=0.0), partial_own=1.0,
        spread=0.0, spread_assigned=0.0, spread_unassigned=0.0,
    )  # fmt: skip
    model = _with_spread(_with_own(_with_parts(plain, scores), scores), scores)
    losses = (max(record.loss for record in used), min(record.loss for record in used))
    return LossFit(model=model, losses=losses, residuals=_residuals(model, steps, scores), conditions=conditions)


@dataclass(frozen=True)
class _Steps:
    """Steps of honest contributions, [n] each."""

    loss: Floats
    count: Floats
    length: Floats
    drop: Floats

    @staticmethod
    def of(records: Iterable[WindowRecord]) -> _Steps:
        rows = [(r.loss, s.count, s.length, s.drop) for r in records for s in r.steps if s.share == 1.0]
        return _Steps(*np.array(rows, dtype=np.float64).T)

    def predicted(self, model: LossModel) -> Floats:
        """A shorter step moves less along what is common, and its scatter has the square of that."""
        pull, scatter = _pull(model, self.loss), _at(model.scatter, self.loss / model.start)
        found: Floats = self.length * pull - self.length**2 * (model.bend * pull + scatter / self.count)
        return found


@dataclass(frozen=True)
class _Scores:
    """Contributions alone, [n] each. `share` is 0 for noise; `copy` says which are copies; `length`: share of a step at
    which they were measured."""

    loss: Floats
    length: Floats
    share: Floats
    copy: npt.NDArray[np.bool_]
    assigned: Floats
    unassigned: Floats

    @staticmethod
    def of(records: Iterable[WindowRecord]) -> _Scores:
        rows = [
            (r.loss, measured_factor(len(r.scores)), s.share, s.kind == "copy", s.assigned, s.unassigned)
            for r in records
            for s in r.scores
            if math.isfinite(s.assigned) and math.isfinite(s.unassigned)
        ]
        loss, length, share, copy, assigned, unassigned = np.array(rows, dtype=np.float64).T
        return _Scores(loss, length, share, copy > 0.0, assigned, unassigned)

    def where(self, chosen: npt.NDArray[np.bool_]) -> _Scores:
        return _Scores(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def alone(self, model: LossModel) -> Floats:
        """As LossModel.alone says, each at its own loss."""
        common, scatter = model.parts(self.share)
        pull, spoilt = _pull(model, self.loss), _at(model.scatter, self.loss / model.start)
        found: Floats = self.length * pull * common - self.length**2 * (
            model.bend * pull * common**2 + spoilt * scatter
        )
        return found


def _fitted_steps(steps: _Steps, start: float) -> tuple[float, Power, float, Power]:
    """(floor, pull, bend, scatter) of the least squared error."""
    best: tuple[float, float, float, float, Floats] | None = None
    lowest = float(steps.loss.min())
    for below, p, q in itertools.product(FLOORS, PULLS, SCATTERS):
        along, across = (steps.loss - max(0.0, lowest - below)) ** p, (steps.loss / start) ** q
        columns = [steps.length * along, -(steps.length**2) * along, -(steps.length**2) / steps.count * across]
        scales, *_ = np.linalg.lstsq(np.stack(columns, axis=1), steps.drop, rcond=None)
        error = float(np.square(np.stack(columns, axis=1) @ scales - steps.drop).sum())
        if (scales > 0.0).all() and (best is None or error < best[0]):
            best = (error, max(0.0, lowest - below), float(p), float(q), scales)
    if best is None:
        raise LossFitUnusable("steps of more contributions are no better than of few", remedy="run more windows")
    _, floor, p, q, (pull, curve, scatter) = best
    return floor, Power(scale=float(pull), exponent=p), float(curve / pull), Power(scale=float(scatter), exponent=q)


def _with_parts(model: LossModel, scores: _Scores) -> LossModel:
    """Exponents of a part of the work, and the size of noise."""
    part = scores.where((scores.share > 0.0) & (scores.share < 1.0) & ~scores.copy)
    found = []
    for partial, scattered in itertools.product(SHARE_EXPONENTS, SHARE_EXPONENTS[::2]):
        tried = model.model_copy(update={"partial": float(partial), "partial_scatter": float(scattered)})
        found.append((float(np.square(part.alone(tried) - part.unassigned).sum()), tried))
    best = min(found, key=lambda one: one[0])[1]
    noise = scores.where(scores.share == 0.0)
    unit = -noise.alone(model)  # of a noise of 1
    return best.model_copy(update={"noise": max(0.0, float(-(noise.unassigned * unit).sum() / np.square(unit).sum()))})


def _with_own(model: LossModel, scores: _Scores) -> LossModel:
    """How much better a contribution is on the data that it was trained on."""
    work = scores.where((scores.share > 0.0) & ~scores.copy)
    gain, fallen = work.assigned - work.unassigned, work.loss / model.start
    found = []
    for exponent, partial in itertools.product(SCATTERS, SHARE_EXPONENTS[::2]):
        shape = work.length * fallen**exponent * work.share**partial
        scale = max(0.0, float((gain * shape).sum() / np.square(shape).sum()))
        found.append((float(np.square(gain - scale * shape).sum()), scale, float(exponent), float(partial)))
    _, scale, exponent, partial = min(found)
    return model.model_copy(update={"own": Power(scale=scale, exponent=exponent), "partial_own": partial})


def _with_spread(model: LossModel, scores: _Scores) -> LossModel:
    """How honest contributions of one window differ: what both kinds of data share is the contribution's own. How far
    the windows' means are from the model is not in it."""
    work = scores.where((scores.share == 1.0) & ~scores.copy)
    _, window, counts = np.unique(work.loss, return_inverse=True, return_counts=True)
    apart = []
    for gain in (work.assigned, work.unassigned):
        whole = gain / work.length
        mean = np.bincount(window, whole) / counts
        apart.append(whole - mean[window])
    freedom = len(work.loss) - len(counts)
    own = max(0.0, float((apart[0] * apart[1]).sum()) / freedom)
    assigned, unassigned = (math.sqrt(max(0.0, float(np.square(row).sum()) / freedom - own)) for row in apart)
    found = {"spread": math.sqrt(own), "spread_assigned": assigned, "spread_unassigned": unassigned}
    return model.model_copy(update=found)


def _own(model: LossModel, work: _Scores) -> Floats:
    found: Floats = work.length * _at(model.own, work.loss / model.start) * work.share**model.partial_own
    return found


def _pull(model: LossModel, loss: Floats) -> Floats:
    return _at(model.pull, np.maximum(LEAST, loss - model.floor))


def _at(power: Power, x: Floats) -> Floats:
    found: Floats = power.scale * x**power.exponent
    return found


def _residuals(model: LossModel, steps: _Steps, scores: _Scores) -> dict[str, Residual]:
    """`own`: on its own data more than on other; for copies the model says nothing more."""
    found = {"steps": _residual(steps.drop, steps.predicted(model))}
    for share in sorted(set(scores.share[~scores.copy]), reverse=True):
        some = scores.where((scores.share == share) & ~scores.copy)
        name = f"work {share:g}" if share else "noise"
        found[f"{name}, unassigned"] = _residual(some.unassigned, some.alone(model))
        if share:
            found[f"{name}, own"] = _residual(some.assigned - some.unassigned, _own(model, some))
    copies = scores.where(scores.copy)
    found["copy, unassigned"] = _residual(copies.unassigned, copies.alone(model))
    found["copy, own"] = _residual(copies.assigned - copies.unassigned, np.zeros(len(copies.loss)))
    return found


def _residual(seen: Floats, predicted: Floats) -> Residual:
    deviation, left = float(seen.std()), float(np.sqrt(np.square(seen - predicted).mean()))
    return Residual(
        count=len(seen), deviation=deviation, left=left, explained=1.0 - (left / deviation) ** 2 if deviation else 0.0
    )


def read(path: Path) -> LossFit:
    """Raises LossFitUnusable."""
    try:
        return LossFit.model_validate_json(path.read_bytes())
    except OSError as error:
        raise LossFitUnusable(f"cannot read {path}: {error.strerror}", remedy="check the path") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        remedy = "fit again with touchstone simulate training --fit"
        raise LossFitUnusable(f"{path} is no fit: {where}: {first['msg']}", remedy=remedy) from None


def shipped() -> LossFit:
    """The fit that comes with the package."""
    return read(SHIPPED)


def write(path: Path, fit: LossFit) -> None:
    """Replace `path` whole, so that a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.new")
    scratch.write_text(fit.model_dump_json(indent=1) + "\n")
    scratch.replace(path)
