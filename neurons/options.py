"""Command-line options made from a settings model: one field, one flag, one line of `--help`.

    @app.command()
    @settings_command(MinerSettings)
    def miner(settings: MinerSettings) -> int: ...                   # the exit status

Flags that were not given stay out of the merge, so that environment and file keep their say; `--settings FILE` names
the file. The help shows the default beside each flag, because the flag itself has none.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from template.errors import TemplateError
from template.settings import ENV_PREFIX, AnySettings, describe, load

_FILE_HELP = "Settings file (.toml, .yaml or .json). Flags and TOUCHSTONE_* variables override it."


def settings_command(
    model: type[AnySettings],
) -> Callable[[Callable[[AnySettings], int]], Callable[..., None]]:
    """Turns a function of settings into one that typer can make a command of, with all fields of `model` as options."""
    texts = describe(model)
    parameters = [_parameter("settings", Path | None, _FILE_HELP)]
    for name, field in model.model_fields.items():
        default = "required" if field.is_required() else f"default: {field.default if field.default != '' else 'empty'}"
        parameters.append(_parameter(name, field.annotation | None, f"{texts[name]} [{default}]"))

    def decorated(start: Callable[[AnySettings], int]) -> Callable[..., None]:
        def command(**given: Any) -> None:
            file = given.pop("settings", None) or os.environ.get(f"{ENV_PREFIX}SETTINGS")
            flags = {name: value for name, value in given.items() if value is not None}
            try:
                settings = load(model, flags=flags, file=Path(file) if file else None)
            except TemplateError as error:
                fail(error)
            raise typer.Exit(start(settings))

        command.__name__, command.__doc__ = start.__name__, start.__doc__ or (model.__doc__ or "").strip()
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return decorated


def fail(error: TemplateError | str) -> Any:
    """Print one error line and leave with status 1."""
    typer.secho(f"error: {error}", err=True, fg=typer.colors.RED)
    raise typer.Exit(1)


def _parameter(name: str, annotation: Any, text: str) -> inspect.Parameter:
    option = typer.Option(help=text.replace("[", "\\["), show_default=False)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[annotation, option]
    )
