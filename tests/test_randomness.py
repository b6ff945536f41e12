import numpy as np

from melprint.randomness import keyed_uniforms


def test_numbers_belong_to_keys_and_not_to_places_in_the_batch() -> None:
    keys = np.array([[0, 5], [1, 5], [0, 6]])
    draws = keyed_uniforms(3, keys, 4)
    np.testing.assert_array_equal(keyed_uniforms(3, keys[::-1], 4), draws[::-1])
    np.testing.assert_array_equal(keyed_uniforms(3, keys[:1], 2), draws[:1, :2])
    assert len(np.unique(draws)) == draws.size
    assert not np.isin(keyed_uniforms(4, keys, 4), draws).any()


def test_they_are_uniform_and_independent_along_every_axis() -> None:
    keys = np.stack(np.meshgrid(np.arange(20), np.arange(1_000)), axis=-1).reshape(-1, 2)
    draws = keyed_uniforms(0, keys, 5)
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = np.histogram(draws, bins=100, range=(0, 1))[0]
    expected = draws.size / 100
    assert ((counts - expected) ** 2 / expected).sum() < 150  # chi square of 99 degrees: 148 at 0.1 %
    correlation = np.corrcoef(draws.T) - np.eye(5)
    assert np.abs(correlation).max() < 4 / np.sqrt(len(keys))
    neighbours = np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]
    assert abs(neighbours) < 4 / np.sqrt(len(keys))
