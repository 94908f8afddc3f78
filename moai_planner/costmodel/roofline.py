"""An operation takes the longer of computing and moving its bytes, and a share of the shorter.

>>> float(roofline_s(3.0, 1.0, 0.5)), float(roofline_s(1.0, 3.0, 0.0))
(3.5, 3.0)
"""

from __future__ import annotations

import numpy as np

from moai_planner.domain.units import NANO

Numbers = float | np.ndarray


def roofline_s(compute_s: Numbers, memory_s: Numbers, unoverlapped_frac: Numbers) -> Numbers:
    r"""Time of an operation, :math:`\max(a, b) + u \min(a, b)`.

    u = 0 is the classic roofline (Williams et al. 2009), u = 1 one after the other; near the ridge real
    kernels lie between.
    """
    longer = np.maximum(compute_s, memory_s)
    return longer + unoverlapped_frac * np.minimum(compute_s, memory_s)


def paid_rows(rows: Numbers, half_rows: Numbers) -> Numbers:
    r"""Rows that a matrix product takes the time of, :math:`m + h\,m/(m + h)`.

    Few rows cost twice their share of the best rate, many rows cost h more than they are: tiles are
    padded and a pipeline fills before it computes. Fits linear layers of H100 and A100 and tuned products
    of MI300X (median error 7, 5 and 2 %) and, unlike a constant offset, leaves a single row memory-bound.

    >>> paid_rows(1.0, 300.0) < 2, paid_rows(300.0, 300.0), round(paid_rows(30000.0, 300.0))
    (True, 450.0, 30297)
    """
    return rows + half_rows * rows / (rows + half_rows)


def width_share(width: Numbers, half_width: Numbers) -> Numbers:
    r"""Share of their best rate that products of this inner width reach, :math:`w/(w + w_{1/2})`.

    Fused experts of MI355X reach 1.1 PFLOP/s in MXFP4 over slices of 256 and 2.6 over whole experts of 2,048,
    in fp8 0.4 over 128 and 1.3 over 1,536 (AMD's tuned tables).

    >>> width_share(256.0, 200.0) < 0.57, width_share(2048.0, 200.0) > 0.91
    (True, True)
    """
    return width / (width + half_width)


def product_s(
    parameters: Numbers, rows: Numbers, half_rows: Numbers, flop_per_s: Numbers, frac: Numbers
) -> Numbers:
    r"""Computing of a matrix product, :math:`2 p\, m_{paid} / (P f)`.

    >>> from moai_planner.domain.units import GIGA, TERA
    >>> product_s(parameters=GIGA, rows=64, half_rows=64, flop_per_s=TERA, frac=0.5)
    0.384
    """
    return 2.0 * parameters * paid_rows(rows, half_rows) / (flop_per_s * frac)


def experts_touched(experts: Numbers, per_token: Numbers, tokens: Numbers, skew: Numbers = 0.0) -> Numbers:
    r"""Expected number of distinct experts that tokens choose,
    :math:`E\,(1 - (1 + \kappa L)^{-1/\kappa})` with :math:`L = -T \ln(1 - k/E)`.

    Experts are chosen by chance, each as often as a gamma-distributed popularity with squared coefficient of
    variation κ says (a Pólya urn: the negative binomial's empty class); κ → 0 is :math:`E (1 - (1 - k/E)^T)`.

    >>> round(float(experts_touched(128, 4, 1)), 6), round(float(experts_touched(128, 4, 64)), 1)
    (4.0, 111.2)
    >>> float(experts_touched(128, 4, 1, 1.0)), round(float(experts_touched(128, 4, 64, 1.0)), 1)
    (4.0, 85.8)
    """
    hazard = -tokens * np.log1p(-np.minimum(per_token / experts, 1 - NANO))
    uneven = np.maximum(skew, NANO)
    touched = -experts * np.expm1(-np.log1p(uneven * hazard) / uneven)
    return np.maximum(touched, np.minimum(tokens, 1.0) * per_token)
