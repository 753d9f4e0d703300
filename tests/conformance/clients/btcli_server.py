"""Runs btcli commands in processes forked from one that has imported it already and read the signatures of its eight
hundred commands: either takes longer than running one.

Each line on standard input is a JSON object {"arguments": [..], "output": path, "errors": path}; the answer is the exit
status on a line of its own. The command itself is the installed program's entry point, untouched.
"""

from __future__ import annotations

import gc
import json
import os
import sys


def _run(program: object, request: dict[str, object]) -> int:
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    for descriptor, path in ((1, request["output"]), (2, request["errors"])):
        os.dup2(os.open(str(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["btcli", *request["arguments"]]  # type: ignore[misc]
    status = 0
    try:
        program()  # type: ignore[operator]
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main() -> None:
    from importlib.metadata import entry_points

    import typer.main
    from bittensor.cli.main import app

    build = typer.main.get_command
    command = build(app)
    typer.main.get_command = lambda instance: command if instance is app else build(instance)
    (entry,) = entry_points(group="console_scripts", name="btcli")
    program = entry.load()
    gc.freeze()  # a collection in a child would copy every page of what it shares with this process
    for line in sys.stdin:
        print(_run(program, json.loads(line)), flush=True)


if __name__ == "__main__":
    main()
