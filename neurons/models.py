"""From a neuron's settings to the model it holds. Imports torch only when called."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from template.settings import NeuronSettings

if TYPE_CHECKING:
    from template.inference.models import LoadedModel
    from template.inference.sources import ModelSettings

log = logging.getLogger(__name__)


def model_settings(settings: NeuronSettings) -> ModelSettings:
    """The part of the settings that says which model; an empty field means the default of this release."""
    from template.inference.sources import ModelSettings

    named = {"name": settings.model_name, "revision": settings.model_revision}
    given = {key: value for key, value in named.items() if value}
    return ModelSettings(source=settings.model_source, dtype=settings.dtype, device=settings.device, **given)


def load(settings: NeuronSettings) -> LoadedModel:
    """Prepare (once per machine) and load; blocking. Raises ModelUnavailable."""
    from template.inference.models import load_model

    return load_model(model_settings(settings), log.info)


def thread_count(settings: NeuronSettings) -> int:
    """CPU threads for the model: the setting, or every core this process may use."""
    if settings.threads:
        return settings.threads
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main() -> int:
    """`python -m neurons.models`: prepare the default model and say where it lies. For set-up scripts."""
    from template.errors import TemplateError
    from template.inference.models import prepare_model

    try:
        prepared = prepare_model(progress=lambda text: print(text, flush=True))
    except TemplateError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"model {prepared.identity.name} ready in {prepared.path}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
