"""A linear layer whose float32 products are faster on some CPUs than torch's own, and equal to rounding."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.processor import USES_ONEDNN


class Linear(nn.Linear):
    """Linear layer whose float32 products on the CPU are oneDNN's where models.processor says that they are faster."""

    exact_shortcuts = True  # False: torch's own product

    def forward(self, hidden: Tensor) -> Tensor:  # (..., D) -> (..., E)
        on_cpu = hidden.device.type == "cpu" and hidden.dtype == self.weight.dtype == torch.float32
        mixed_or_compiled = torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling()
        empty = hidden.numel() == 0 or self.weight.numel() == 0
        if not self.exact_shortcuts or not USES_ONEDNN or not on_cpu or mixed_or_compiled or empty:
            return super().forward(hidden)
        return OneDnnProduct.apply(hidden, self.weight, self.bias)


def _product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:  # (N, K), (M, K), (M,) -> (N, M)
    """left @ right^T + bias, where either may be a transposed view."""
    return torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")


class OneDnnProduct(torch.autograd.Function):
    """hidden @ weight^T + bias with its gradients, since torch has no backward pass for oneDNN's product."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """(..., D), (E, D), (E,) -> (..., E)."""
        rows = hidden.reshape(-1, hidden.shape[-1]).contiguous()  # (N, D); other strides cost a slow path
        ctx.save_for_backward(rows, weight)
        return _product(rows, weight, bias).view(*hidden.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients (..., D), (E, D), (E,); None for those that are not needed."""
        rows, weight = ctx.saved_tensors
        of_hidden = of_weight = of_bias = None
        grad_rows = grad.reshape(-1, grad.shape[-1]).contiguous()  # (N, E)
        if ctx.needs_input_grad[0]:
            of_hidden = _product(grad_rows, weight.t()).view(*grad.shape[:-1], -1)
        if ctx.needs_input_grad[1]:
            # of two transposed views the product copies the left one, so the smaller goes left
            wide = grad_rows.shape[1] > rows.shape[1]
            of_weight = _product(rows.t(), grad_rows.t()).t() if wide else _product(grad_rows.t(), rows.t())
        if ctx.needs_input_grad[2]:
            of_bias = grad_rows.sum(0)
        return of_hidden, of_weight, of_bias


def select(linear: nn.Linear, index: Tensor, dim: int) -> None:
    """Keep these outputs (dim 0) or inputs (dim 1) of a linear layer, in this order. In place."""
    linear.weight = nn.Parameter(linear.weight.detach().index_select(dim, index))
    if dim == 0 and linear.bias is not None:  # a bias has a number per output
        linear.bias = nn.Parameter(linear.bias.detach()[index])
    linear.out_features, linear.in_features = linear.weight.shape
