from protocol.payout import payable


def test_what_was_earned_is_paid() -> None:
    assert payable({"a": 0.25, "b": 0.75}, present="ab", owner="o", holds_weights=True) == {"a": 0.25, "b": 0.75}


def test_weights_on_chain_are_taken_back_when_nobody_earns() -> None:
    assert payable({}, present="ab", owner="o", holds_weights=True) == {"o": 1.0}


def test_nothing_is_set_when_nothing_was_earned_and_nothing_is_held() -> None:
    assert payable({}, present="ab", owner="o", holds_weights=False) == {}
    assert payable({}, present="ab", owner="", holds_weights=True) == {}


def test_who_left_neither_dilutes_the_others_nor_keeps_the_burn_away() -> None:
    assert payable({"a": 0.25, "gone": 0.75}, present={"a", "o"}, owner="o", holds_weights=True) == {"a": 1.0}
    assert payable({"gone": 1.0}, present={"a", "o"}, owner="o", holds_weights=True) == {"o": 1.0}
    assert payable({"gone": 1.0}, present={"a", "o"}, owner="o", holds_weights=False) == {}
