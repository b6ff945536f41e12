import numpy as np
import pytest
import torch
from torch import nn

from melprint.errors import MelprintError
from melprint.models.projection import DivideAndEncode
from melprint.training.lamb import Lamb

LR, EPS, DECAY = 1e-2, 1e-6, 1e-2


def paper(weights: list[np.ndarray], gradients: list[list[np.ndarray]], lr: float = LR) -> list[np.ndarray]:
    """Algorithm 2 of arXiv:1904.00962v5 in double precision, one tensor and step after the other."""
    weights = [w.astype(np.float64) for w in weights]
    first, second = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    for step, grads in enumerate(gradients, start=1):
        for i, g in enumerate(grads):
            first[i] = 0.9 * first[i] + 0.1 * g
            second[i] = 0.999 * second[i] + 0.001 * g * g
            m, v = first[i] / (1 - 0.9**step), second[i] / (1 - 0.999**step)
            r = m / (np.sqrt(v) + EPS) + DECAY * weights[i]
            norms = np.linalg.norm(weights[i]), np.linalg.norm(r)
            ratio = norms[0] / norms[1] if min(norms) > 0 else 1.0
            weights[i] = weights[i] - lr * ratio * r
    return weights


@pytest.fixture
def task() -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    """A wide layer of norm 22, a small one, and a bias that begins at zero."""
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((500, 1)), 0.1 * rng.standard_normal((20, 30)), np.zeros(30)]
    return weights, [[rng.standard_normal(w.shape) * 0.1 for w in weights] for _ in range(30)]


def run(make, task: tuple[list[np.ndarray], list[list[np.ndarray]]]) -> list[np.ndarray]:
    parameters = [nn.Parameter(torch.from_numpy(w).float()) for w in task[0]]
    optimizer = make(parameters)
    for grads in task[1]:
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = torch.from_numpy(grad).float()
        optimizer.step()
    return [parameter.detach().double().numpy() for parameter in parameters]


def deviation(got: list[np.ndarray], want: list[np.ndarray], start: list[np.ndarray]) -> list[float]:
    """Of the way that each tensor went."""
    return [float(np.linalg.norm(g - w) / np.linalg.norm(w - s)) for g, w, s in zip(got, want, start, strict=True)]


def test_every_step_is_that_of_the_paper(task) -> None:
    got = run(lambda p: Lamb(p, lr=LR, eps=EPS, weight_decay=DECAY), task)
    assert max(deviation(got, paper(*task), task[0])) < 1e-4


def test_the_named_package_differs_where_the_docs_say_so(task) -> None:
    """Uncorrected moments, and a clamp that slows the layer whose norm is above 10."""
    import torch_optimizer

    options = {"lr": LR, "eps": EPS, "weight_decay": DECAY}
    clamped = run(lambda p: torch_optimizer.Lamb(p, **options), task)
    lifted = run(lambda p: torch_optimizer.Lamb(p, **options, clamp_value=1e9), task)
    want = paper(*task)
    assert deviation(clamped, want, task[0])[0] > 0.3  # the wide layer
    assert deviation(lifted, want, task[0])[0] > 0.02
    assert deviation(lifted, want, task[0])[2] > 1  # a bias of norm zero goes three times too far
    # Both are what this one does when told to.
    mine = run(lambda p: Lamb(p, **options, bias_correction=False), task)
    np.testing.assert_allclose(
        np.concatenate([m.ravel() for m in mine]), np.concatenate([x.ravel() for x in lifted]), atol=1e-4
    )
    mine = run(lambda p: Lamb(p, **options, bias_correction=False, clamp=10.0), task)
    np.testing.assert_allclose(
        np.concatenate([m.ravel() for m in mine]), np.concatenate([x.ravel() for x in clamped]), atol=1e-4
    )


def test_slices_of_a_stack_move_as_layers_of_their_own(task) -> None:
    """Divide-and-encode keeps its small layers in one tensor; the published code has a tensor for each."""
    rng = np.random.default_rng(1)
    slices = [rng.standard_normal((4, 3)) * scale for scale in (0.01, 1.0, 50.0)]
    gradients = [[rng.standard_normal((4, 3)) for _ in slices] for _ in range(10)]
    want = np.stack(paper(slices, gradients))
    stack = nn.Parameter(torch.from_numpy(np.stack(slices)).float())
    stack.separate_slices = True  # type: ignore[attr-defined]
    optimizer = Lamb([stack], lr=LR, eps=EPS, weight_decay=DECAY)
    for grads in gradients:
        stack.grad = torch.from_numpy(np.stack(grads)).float()
        optimizer.step()
    np.testing.assert_allclose(stack.detach(), want, rtol=1e-4, atol=1e-5)
    assert all(getattr(p, "separate_slices", False) for p in DivideAndEncode(256, 128).parameters())


def test_a_stopped_optimizer_goes_on_where_it_was(task) -> None:
    def stopped(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        class Interrupted:
            optimizer, steps = Lamb(parameters, lr=LR, eps=EPS, weight_decay=DECAY), 0

            def step(self) -> None:
                self.optimizer.step()
                self.steps += 1
                if self.steps == 12:
                    state = self.optimizer.state_dict()
                    self.optimizer = Lamb(parameters, lr=1.0)
                    self.optimizer.load_state_dict(state)

        return Interrupted()  # type: ignore[return-value]

    whole = run(lambda p: Lamb(p, lr=LR, eps=EPS, weight_decay=DECAY), task)
    for one, other in zip(whole, run(stopped, task), strict=True):
        np.testing.assert_array_equal(one, other)


def test_bad_options_are_refused() -> None:
    with pytest.raises(MelprintError, match="LAMB needs"):
        Lamb([nn.Parameter(torch.zeros(1))], lr=-1)
