from protocol.payout import payable


def test_what_was_earned_is_paid() -> None:
    assert payable({"a": 0.25, "b": 0.75}, owner="o", holds_weights=True) == {"a": 0.25, "b": 0.75}


def test_weights_on_chain_are_taken_back_when_nobody_earns() -> None:
    assert payable({}, owner="o", holds_weights=True) == {"o": 1.0}


def test_nothing_is_set_when_nothing_was_earned_and_nothing_is_held() -> None:
    assert payable({}, owner="o", holds_weights=False) == {}
    assert payable({}, owner="", holds_weights=True) == {}
