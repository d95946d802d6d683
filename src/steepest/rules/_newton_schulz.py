"""The orthogonal matrix nearest to a given one, nearly, with products of matrices alone."""

from __future__ import annotations

from typing import Any

from steepest.rules._ops import matrix_norm, maximum, transpose

__all__ = ["COEFFICIENTS", "orthogonalised"]

Triple = tuple[float, float, float]

COEFFICIENTS: dict[str, tuple[Triple, ...]] = {
    # https://kellerjordan.github.io/posts/muon/ ; the default of torch.optim.Muon
    "original": ((3.4445, -4.7750, 2.0315),),
    # https://leloykun.github.io/ponder/muon-opt-coeffs/
    # as in github.com/KellerJordan/modded-nanogpt train_gpt_medium.py
    "quintic": (
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ),
    # Polar Express, arXiv:2505.16932, safety 1e-2, as in github.com/NoahAmsel/PolarExpress
    "polar_express": (
        (8.237312490495555, -23.157747414558198, 16.680568411445915),
        (4.082441999064835, -2.893047735332586, 0.5252849256975648),
        (3.9263479922546582, -2.8547468034765298, 0.5318022422894988),
        (3.2982187133085143, -2.424541981026706, 0.48632008358844075),
        (2.2970369434552573, -1.63662558125903, 0.4002628455953627),
        (1.8763805351440397, -1.2347896577722228, 0.35891887501668385),
        (1.8564423485617974, -1.2132449880935525, 0.3568003487825883),
        (1.8749994008682747, -1.2499988017229169, 0.3749994008546422),
    ),
    # x -> (15 x - 10 x^3 + 3 x^5) / 8: converges to the sign of every singular value in (0, 1],
    # slowly; Bernstein & Newhouse, arXiv:2409.20325, and Higham, Functions of Matrices, 8.7
    "convergent": ((15 / 8, -10 / 8, 3 / 8),),
}
"""Coefficients (a, b, c) of x -> a x + b x^3 + c x^5, one per step; the last one is repeated."""


def orthogonalised(x: Any, steps: int, eps: Any, coefficients: tuple[Triple, ...]) -> Any:
    r"""``x`` with its singular values near 1: :math:`USV^T \mapsto U S' V^T`.

    With the ``original`` coefficients the S' lie between 0.7 and 1.2 after five steps: they are
    chosen for a steep start and not for convergence.

    Args:
        x: Matrices (..., m, n).
        steps: How many steps.
        eps: The smallest norm that x is divided by.
        coefficients: One triple per step; the last one is repeated.
    """
    tall = x.shape[-2] > x.shape[-1]
    x = transpose(x) if tall else x
    x = x / maximum(matrix_norm(x), eps)
    for step in range(steps):
        a, b, c = coefficients[min(step, len(coefficients) - 1)]
        gram = x @ transpose(x)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return transpose(x) if tall else x
