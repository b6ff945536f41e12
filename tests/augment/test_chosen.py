import torch

from melprint.augment.chosen import change_chosen


def test_only_chosen_waves_are_changed_each_with_its_draws() -> None:
    wave, draws = torch.arange(6.0)[:, None].repeat(1, 3), torch.arange(6.0)[:, None]
    chosen = torch.tensor([True, False, False, True, False, True])
    seen = []

    def change(waves: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        seen.append(len(waves))
        return waves + 10 * drawn

    got = change_chosen(change, chosen, wave, draws)
    assert got[:, 0].tolist() == [0.0, 1.0, 2.0, 33.0, 4.0, 55.0]
    assert seen == [3]
    assert change_chosen(change, torch.zeros(6, dtype=torch.bool), wave, draws) is wave
