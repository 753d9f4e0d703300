"""What a validator counts."""

from prometheus_client import CollectorRegistry, generate_latest

from neurons.metrics import ValidatorMetrics
from protocol.metagraph import Metagraph, Neuron
from protocol.scoring import ScoreState
from template.rounds import Judged


def graph(*hotkeys: str) -> Metagraph:
    neurons = tuple(
        Neuron(uid=uid, hotkey=hotkey, coldkey="c", stake=0.0, validator_permit=False, active=True, ip="192.0.2.1",
               port=1, protocol=4, last_update=0, incentive=0.0, dividends=0.0, emission=0, consensus=0.0,
               validator_trust=0.0, registered_at=0)
        for uid, hotkey in enumerate(hotkeys)
    )  # fmt: skip
    return Metagraph(netuid=1, block=1, block_hash="0x", tempo=1, neurons=neurons, owner_hotkey="o")


def test_hotkeys_that_left_do_not_stay_in_the_metrics_for_ever() -> None:
    registry = CollectorRegistry()
    metrics = ValidatorMetrics(registry)
    states = {hotkey: ScoreState(hotkey, score=0.5) for hotkey in ("stays", "leaves")}
    metrics.round(graph("stays", "leaves"), [], Judged({}, {}), states, 1.0)
    assert 'touchstone_score{hotkey="leaves"} 0.5' in generate_latest(registry).decode()
    metrics.round(graph("stays"), [], Judged({}, {}), states, 1.0)
    text = generate_latest(registry).decode()
    assert "leaves" not in text and 'touchstone_score{hotkey="stays"} 0.5' in text
