"""How fast this CPU multiplies at a model's own shapes: torch's float32 products, oneDNN's, and bfloat16 autocast.

    python scripts/product_rates.py --hidden_size 768 --intermediate_size 3072

scripts/benchmark.py prints the same for its model. A product is that of a linear layer, forward and backward.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor
from torch.nn import functional as F

from models.linear import OneDnnProduct
from models.processor import HAS_ONEDNN, USES_ONEDNN
from utils.machine import hardware
from utils.tables import table

ROWS = (1072, 224, 32)  # tokens of 16 pairs, tokens of 16 short sentences, [CLS] of 32 examples
SECONDS = 0.3  # for each measurement


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden_size", type=int, default=768, help="(default 768)")
    parser.add_argument("--intermediate_size", type=int, default=3072, help="(default 3072)")
    return parser.parse_args(argv)


def gflops_per_second(product: Callable[[Tensor, Tensor, Tensor], Tensor], rows: int, width: int, out: int) -> float:
    """The rate of a product (rows, width) -> (rows, out), forward and backward, over SECONDS after a first call."""
    hidden = torch.randn(rows, width, requires_grad=True)
    weight = torch.randn(out, width, requires_grad=True)
    bias = torch.zeros(out, requires_grad=True)
    grad = torch.randn(rows, out)
    calls, start, end = -1, 0.0, float("inf")  # the first call does not count
    while time.perf_counter() < end:
        torch.autograd.grad(product(hidden, weight, bias), (hidden, weight, bias), grad)
        calls += 1
        if calls == 0:
            start = time.perf_counter()
            end = start + SECONDS
    return 3 * 2 * rows * width * out * calls / (time.perf_counter() - start) / 1e9


def in_bfloat16(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The product under autocast, as --use_bf16 computes it."""
    with torch.autocast("cpu", torch.bfloat16):
        return F.linear(hidden, weight, bias).float()


def print_rates(hidden_size: int, intermediate_size: int) -> None:
    """Print a row for each shape, and which product and flag are faster on the largest one."""
    products = {"torch": F.linear, "bfloat16": in_bfloat16}
    if HAS_ONEDNN:
        products["oneDNN"] = OneDnnProduct.apply
    rows = []
    for tokens in ROWS:
        for out in (hidden_size, intermediate_size):
            rates = [gflops_per_second(product, tokens, hidden_size, out) for product in products.values()]
            rows.append((f"({tokens}, {hidden_size}, {out})", *(f"{rate:.0f}" for rate in rates)))
    machine = "{hardware}, {cpu_capability}, {cpu_threads} CPU threads".format(**hardware("cpu"))
    print(f"GFLOP/s forward and backward on {machine}")
    print(table(("shape", *products), rows))
    largest = dict(zip(products, map(float, rows[1][1:]), strict=True))
    float32 = max(largest[name] for name in largest if name != "bfloat16")
    fastest = next(name for name in largest if largest[name] == float32)
    print(f"float32 products: {'oneDNN' if USES_ONEDNN else 'torch'} is used, {fastest} is faster here")
    print(f"--use_bf16: products are {largest['bfloat16'] / float32:.2g} times as fast\n", flush=True)


def main(argv=None):
    args = parse_args(argv)
    print_rates(args.hidden_size, args.intermediate_size)


if __name__ == "__main__":
    main()
