import pytest

from melprint.errors import MelprintError
from melprint.training.rates import scaled_rate


def test_each_rule_scales_as_it_says() -> None:
    assert scaled_rate(1e-3, "none", 1024, 128) == 1e-3
    assert scaled_rate(1e-3, "linear", 1024, 128) == pytest.approx(8e-3)
    assert scaled_rate(1e-3, "square-root", 1024, 256) == pytest.approx(2e-3)


def test_what_is_no_rate_is_refused() -> None:
    with pytest.raises(MelprintError, match=r"optimizer\.lr must be a positive number, got 'fast'"):
        scaled_rate("fast", "none", 1, 1)  # type: ignore[arg-type]
    with pytest.raises(MelprintError, match=r"lr_scaling\.batch_size must be positive"):
        scaled_rate(1e-3, "linear", 1, 0)
