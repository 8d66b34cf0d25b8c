import torch

from srgnn.unit import unit_rows


def test_unit_rows_has_the_value_and_the_gradient_of_normalize():
    torch.manual_seed(0)
    rows = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(unit_rows(rows), torch.nn.functional.normalize(rows, dim=1))
    assert torch.autograd.gradcheck(unit_rows, rows)
