"""The specification runtime against released ones: run with TOUCHSTONE_RUNTIME, which names files of code or chain
specifications. What the rules of both have in common has to agree to the last unit; what is known to differ has to be
in `localnet.rehearsal.versioned`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from localnet.errors import ConfigError
from localnet.rehearsal import cli
from localnet.rehearsal.epochs import compare
from localnet.rehearsal.report import epochs_text, rehearsal_text, scenario_text

VARIABLE = "TOUCHSTONE_RUNTIME"
FILES = [path for path in os.environ.get(VARIABLE, "").split(os.pathsep) if path]
SEEDS = 100
BRANCHES = range(200, 219)  # builds of branches whose source is not in the public history: nothing can be said of them

pytestmark = pytest.mark.skipif(not FILES, reason=f"no real runtime: {VARIABLE} names files (runtimes, chain specs)")


@pytest.mark.parametrize("file", FILES, ids=lambda path: Path(path).name)
def test_epochs_agree_to_the_last_unit(file: str) -> None:
    side = cli._side(file)
    if side.spec in BRANCHES:
        pytest.skip(f"spec {side.spec} was built from a branch whose rules are not public")
    compared = compare(side, cli._side(cli.SPEC), range(SEEDS))
    assert compared.agree, "\n".join(epochs_text(compared))


@pytest.mark.parametrize("file", FILES, ids=lambda path: Path(path).name)
async def test_a_subnets_life_differs_only_where_the_rules_are_known_to(file: str) -> None:
    spec = cli._side(file).spec
    if spec in BRANCHES:
        pytest.skip(f"spec {spec} was built from a branch whose rules are not public")
    found = await cli._differential(file, cli.SPEC, every=True)
    assert found.agree, "\n".join(scenario_text(found))


@pytest.mark.skipif(len(FILES) < 2, reason=f"an upgrade needs two runtimes in {VARIABLE}: the old one first")
async def test_an_upgrade_can_be_rehearsed() -> None:
    try:
        report = await cli._rehearse(FILES[0], FILES[1], {})
    except ConfigError as error:
        pytest.skip(f"{FILES[0]} does not get through the scenario: {error}")
    assert report.failed is None, report.failed
    assert report.after is not None and not report.after.undecodable, "\n".join(rehearsal_text(report))
    assert report.specs[1] != report.specs[0]
