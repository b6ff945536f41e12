import pytest

from melprint.errors import MelprintError
from melprint.matching.thresholds import Thresholds
from melprint.weights.shipped import NAMES, card_of

CARD = {
    "num_segments": [1, 3, 19],
    "rows": 1_000,
    "false_accept_rates": {"0.01": {"threshold": [0.8, 0.6, 0.4], "slope": [0.1, 0.05, 0.0]}},
}


def test_a_threshold_rises_with_the_library_and_falls_with_the_query() -> None:
    limits = Thresholds.from_card(CARD, 0.01)
    assert limits.at(1, 1_000) == pytest.approx(0.8)
    assert limits.at(2, 1_000) == pytest.approx(0.7)
    assert limits.at(3, 100_000) == pytest.approx(0.7)
    assert limits.at(500, 10**9) == pytest.approx(0.4)
    assert limits.at(1, 100) == pytest.approx(0.7)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rate", [0.01, 0.001])
def test_shipped_thresholds_can_be_reached_and_fall_with_the_length(name: str, rate: float) -> None:
    limits = Thresholds.from_card(card_of(name)["thresholds"], rate)
    for rows in (1, 10**3, 10**6, 10**9):
        by_length = [limits.at(num_segments, rows) for num_segments in range(1, 40)]
        assert by_length == sorted(by_length, reverse=True)
        assert 0 < by_length[-1] <= by_length[0] <= 0.95


def test_a_rate_that_was_not_measured_is_refused() -> None:
    with pytest.raises(MelprintError, match=r"rates of 0\.01, got 0\.2"):
        Thresholds.from_card(CARD, 0.2)
