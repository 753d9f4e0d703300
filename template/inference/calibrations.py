"""Which calibration judges a model: the shipped files, and those that `touchstone calibrate` made on this machine.

    calibration_for(identity)        the one measured for exactly this model and dtype, else None: nothing can be judged
    read(path), write(path, calibration)

A shipped file is data of the package (`data/*.json`); an own one lies in `<cache>/calibrations` and comes first.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

from protocol.calibration import Calibration
from protocol.challenges import ModelIdentity
from template.errors import TemplateError
from template.inference.sources import default_cache

log = logging.getLogger(__name__)

SHIPPED = Path(__file__).parent / "data"


class CalibrationUnreadable(TemplateError):
    """A calibration file is missing or is none."""


def own_folder() -> Path:
    """Where this machine keeps the calibrations it measured."""
    return default_cache() / "calibrations"


def read(path: Path) -> Calibration:
    """Raises CalibrationUnreadable."""
    try:
        return Calibration.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CalibrationUnreadable(f"cannot read {path}: {error.strerror}", remedy="check the path") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        remedy = "measure again with touchstone calibrate"
        raise CalibrationUnreadable(f"{path} is no calibration: {where}: {first['msg']}", remedy=remedy) from None


def write(path: Path, calibration: Calibration) -> None:
    """Replace `path` whole, so that a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.new")
    scratch.write_text(calibration.model_dump_json(indent=1) + "\n")
    scratch.replace(path)


def file_name(identity: ModelIdentity) -> str:
    return f"{identity.root[:16]}-{identity.dtype}.json"


def calibration_for(identity: ModelIdentity) -> Calibration | None:
    """Thresholds measured for exactly this model and dtype; None when there are none. Raises CalibrationUnreadable."""
    for folder in (own_folder(), SHIPPED):
        path = folder / file_name(identity)
        if path.exists():
            found = _cached(path, path.stat().st_mtime_ns)
            if (found.root, found.dtype) == (identity.root, identity.dtype):
                return found
            log.warning("%s is for another model than its name says and is passed over", path)
    return None


@lru_cache(maxsize=16)
def _cached(path: Path, modified: int) -> Calibration:
    return read(path)
