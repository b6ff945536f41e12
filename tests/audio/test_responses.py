import numpy as np
import pytest

from melprint.audio.responses import from_direct_sound
from melprint.errors import MelprintError


def test_the_delay_goes_and_the_energy_is_one(rng: np.random.Generator) -> None:
    decay = rng.standard_normal(500) * np.exp(-np.arange(500) / 80)
    decay[0] = 3.0
    delayed = np.concatenate([0.001 * rng.standard_normal(170), decay])
    got = from_direct_sound(delayed)
    np.testing.assert_allclose(got, decay / np.linalg.norm(decay))


def test_silence_is_no_response() -> None:
    with pytest.raises(MelprintError, match="silent"):
        from_direct_sound(np.zeros(10))
