"""Muon against its definition, by the singular value decomposition that it avoids."""

import numpy as np
import pytest

from steepest import rules
from steepest.errors import InputError
from steepest.rules._newton_schulz import COEFFICIENTS, orthogonalised

SHAPES = ((6, 4), (4, 6), (5, 5))


@pytest.mark.parametrize("adjust_lr_fn", ["original", "match_rms_adamw", "rms_to_rms", "none"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_follows_its_definition(agrees, adjust_lr_fn, nesterov):
    agrees(
        "muon",
        SHAPES,
        lr=1e-2,
        weight_decay=0.1,
        adjust_lr_fn=adjust_lr_fn,
        nesterov=nesterov,
        tolerance=1e-10,  # the polynomial is steep at 0: small singular values lose digits
    )


def test_corrects_the_start_of_the_momentum(agrees):
    agrees("muon", SHAPES, lr=1e-2, correct_bias=True, tolerance=1e-10)


def test_a_large_eps_shortens_what_is_orthogonalised(agrees):
    agrees("muon", SHAPES, lr=1e-2, eps=50.0, tolerance=1e-10)


@pytest.mark.parametrize("name", sorted(COEFFICIENTS))
@pytest.mark.parametrize("shape", [(8, 5), (5, 8)])
def test_coefficients_bring_the_singular_values_near_one(name, shape):
    x = np.random.default_rng(0).normal(size=shape)
    steps = {"original": 5, "convergent": 30}.get(name, len(COEFFICIENTS[name]))
    sizes = np.linalg.svd(orthogonalised(x, steps, 1e-7, COEFFICIENTS[name]), compute_uv=False)
    # what the sources promise: 0.7 to 1.2 for the first, within a percent or two for the others
    low, high = {"original": (0.65, 1.25), "convergent": (1 - 1e-9, 1 + 1e-9)}.get(
        name, (0.95, 1.05)
    )
    assert low < sizes.min() <= sizes.max() < high


def test_a_stack_of_matrices_gives_what_each_gives_alone():
    rng = np.random.default_rng(1)
    p, g, b = rng.normal(size=(3, 7, 4, 6))[:, :5]
    stacked = rules.get("muon").formula(
        p, g, b, 3, **rules.get("muon").hyperparameters, **rules.get("muon").options
    )
    for i in range(len(p)):
        alone = rules.get("muon")(p[i], g[i], b[i], 3)
        for x, y in zip(stacked, alone, strict=True):
            np.testing.assert_allclose(x[i], y, rtol=1e-10, atol=1e-14)


def test_a_convolution_is_the_matrix_of_its_outputs_and_the_rest():
    rng = np.random.default_rng(2)
    p, g, b = rng.normal(size=(3, 8, 3, 2, 2))
    step, buffer = rules.get("muon")(p, g, b, 1)
    flat, _ = rules.get("muon")(*(x.reshape(8, 12) for x in (p, g, b)), 1)
    assert step.shape == buffer.shape == p.shape
    np.testing.assert_array_equal(step, flat.reshape(p.shape))


def test_refuses_vectors_and_says_where_they_go():
    with pytest.raises(InputError, match=r"matrices.*adamw"):
        rules.get("muon")(np.ones(3), np.ones(3), np.zeros(3), 1)


@pytest.mark.parametrize(
    ("name", "shape", "rule", "reason"),
    [
        ("body.0.weight", (64, 32), "muon", ""),
        ("body.conv.weight", (64, 32, 3, 3), "muon", ""),
        ("body.0.bias", (64,), "adamw", "1 axis"),
        ("scale", (), "adamw", "0 axes"),
        ("pos", (1, 196, 768), "adamw", "1 in front"),
        ("depthwise", (32, 1, 3, 3), "adamw", "1 in front"),
        ("norm", (1, 64), "adamw", "longer than 1"),
        ("token_embedding.weight", (1000, 64), "adamw", "embedding"),
        ("transformer.wte.weight", (1000, 64), "adamw", "embedding"),
        ("lm_head.weight", (1000, 64), "adamw", "last layer"),
        ("thin", (2, 64), "adamw", "less than 4"),
        ("oblong", (4, 1000), "adamw", "128 times"),
        ("forehead.weight", (64, 64), "muon", ""),
        ("encoder.layer.0.attention.output.dense.weight", (64, 64), "muon", ""),
        ("h.0.mlp.fc_out.weight", (64, 64), "muon", ""),
        ("patch_embed.proj.weight", (64, 3, 4, 4), "adamw", "embedding"),
    ],
)
def test_what_is_no_matrix_goes_to_adamw_with_a_reason(name, shape, rule, reason):
    (one,) = rules.assign(rules.get("muon"), [(name, shape)])
    assert one.rule == rule
    assert reason in one.reason
    assert bool(one.reason) == (rule != "muon")


def test_a_rule_that_keeps_squares_leaves_out_what_is_too_large():
    (one,) = rules.assign(rules.get("soap"), [("w", (20_000, 512))])
    assert (one.rule, "20000" in one.reason) == ("adamw", True)
    (one,) = rules.assign(rules.get("muon"), [("w", (20_000, 512))])
    assert one.rule == "muon"


def test_rules_for_all_shapes_take_everything():
    (one,) = rules.assign(rules.get("adam"), [("bias", (3,))])
    assert (one.rule, one.reason) == ("adam", "")
