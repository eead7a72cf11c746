"""Dropout that is faster on a CPU than torch's own, which draws a number for every element on one core."""

import torch
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """Dropout that draws 16 random bits an element on the CPU, where torch draws a whole number for each."""

    exact_shortcuts = True  # False: torch's own dropout

    def forward(self, hidden: Tensor) -> Tensor:
        fast = hidden.device.type == "cpu" and not torch.compiler.is_compiling()
        if not self.exact_shortcuts or not fast or not self.training or not 0 < self.p < 1:
            return super().forward(hidden)
        # one 64-bit number gives the bits of four elements
        bits = torch.empty(-(-hidden.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        # in place and in integers to the end: comparing to and converting from booleans is ten times slower
        keep = bits[: hidden.numel()].view(hidden.shape).ge_(round(self.p * 2**16) - 2**15)
        return hidden * keep.to(hidden.dtype).mul_(1 / (1 - self.p))
