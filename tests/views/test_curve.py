import numpy as np
import pytest
import torch

from scanlearn.randomness import Draws
from scanlearn.views.curve import IntensityCurve, _look_up_tensor, bezier_table, look_up
from views import reference

GOLDEN_AT = [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0]
GOLDEN = {
    False: [0.0, 0.19211, 0.35755, 0.47720, 0.63467, 0.82248, 1.0],
    True: [1.0, 0.77830, 0.58257, 0.44824, 0.31394, 0.15417, 0.0],
}


def random_curves(count):
    return Draws.for_step(0, 0, range(count)).uniform(4)


@pytest.mark.parametrize("decreasing", [False, True])
def test_curve_has_its_golden_values(decreasing):
    x = torch.tensor(GOLDEN_AT).view(1, 1, 1, 7)
    params = {"points": torch.tensor([[0.3, 0.7, 0.6, 0.2]]), "decreasing": torch.tensor([decreasing])}
    out = IntensityCurve().apply(x, params).flatten()
    assert np.abs(out.numpy() - GOLDEN[decreasing]).max() < 2e-5


@pytest.mark.parametrize("decreasing", [False, True])
def test_curve_equals_the_long_sorted_table(decreasing):
    points, values = random_curves(60), torch.rand(500)
    down = torch.full((60,), decreasing)
    out = look_up(values.expand(60, 500), *bezier_table(points, down))
    for p, got in zip(points.tolist(), out.numpy(), strict=True):
        assert np.abs(got - reference.bezier_curve(values.numpy(), p, decreasing)).max() < 5e-5


def test_the_compiled_loop_and_tensor_arithmetic_agree():
    values = torch.rand(200, 300) * 1.2 - 0.1
    x, y = bezier_table(random_curves(200), torch.arange(200) % 2 == 0)
    assert (look_up(values, x, y) - _look_up_tensor(values, x, y)).abs().max() < 1e-5


def test_extreme_curves_stay_in_range():
    points = torch.cartesian_prod(*(torch.tensor([0.0, 1.0]),) * 4)
    x, y = bezier_table(points, torch.arange(16) % 2 == 0)
    assert (x.diff(dim=1) >= 0).all()
    values = torch.cat([torch.linspace(0, 1, 5000), x.flatten()]).expand(16, -1)
    for result in (look_up(values, x, y), _look_up_tensor(values, x, y)):
        assert result.min() >= 0 and result.max() <= 1


def test_a_curve_is_monotone_and_ends_at_zero_and_one():
    decreasing = torch.arange(40) % 2 == 0
    out = look_up(torch.linspace(0, 1, 999).expand(40, 999), *bezier_table(random_curves(40), decreasing))
    rising = torch.where(decreasing[:, None], out.flip(1), out)
    assert (rising.diff(dim=1) >= -1e-6).all()
    assert torch.equal(rising[:, [0, -1]], torch.tensor([[0.0, 1.0]]).expand(40, 2))


def test_values_outside_the_range_take_the_end_values_and_nan_stays():
    x, y = bezier_table(torch.tensor([[0.3, 0.7, 0.6, 0.2]]), torch.tensor([True]))
    out = look_up(torch.tensor([[-3.0, 2.0, float("inf"), float("nan")]]), x, y)[0]
    assert out[:3].tolist() == [1.0, 0.0, 0.0] and out[3].isnan()


def test_half_of_the_curves_fall():
    drawn = IntensityCurve().draw((4000, 1, 4, 4), Draws.for_step(0, 0, range(4000)))
    assert abs(drawn["decreasing"].float().mean() - 0.5) < 0.035
    assert abs(drawn["points"].mean() - 0.5) < 0.01
