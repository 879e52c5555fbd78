"""The kernels that a model computes with, so that no row depends on another: ways to multiply, the probe, the
choice."""

from moss_tok.numerics.choice import Numerics, Work, choose, unprobed
from moss_tok.numerics.probe import RowOperation
from moss_tok.numerics.ways import Kernel, Product, Way

__all__ = ["Kernel", "Numerics", "Product", "RowOperation", "Way", "Work", "choose", "unprobed"]
