"""Every variant over shapes, masks and dtypes: the fused path and the plain one against a reference in float64 that
is written out here, forward and backward."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from experiments.spec import Attention as AttentionSpec
from experiments.spec.sections.attention_names import VARIANT_TABLE
from workers.trainer.attention import Attention, fused_attention, plain_attention
from workers.trainer.attention.variants import VARIANTS, build_attention

# Relative error of a whole result, and of all gradients together: some hundred roundings, each of eps.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 0.05, torch.float16: 0.02}


@dataclass(frozen=True)
class Case:
    """One drawn call of one site."""

    variant: str
    batch: int
    asking: int
    answering: int | None  # None: self-attention
    heads: int
    width: int  # d_model / heads
    d_k: int | None
    d_v: int | None
    mask: str
    scale: str
    qk_norm: bool
    dtype: torch.dtype
    seed: int

    def site(self) -> Attention:
        spec = {"variant": self.variant, "scale": self.scale, "qk_norm": self.qk_norm, "d_k": self.d_k, "d_v": self.d_v}
        torch.manual_seed(self.seed)
        std = 1 / math.sqrt(self.heads * self.width)
        built = AttentionSpec.model_validate({**spec, "init_std": std})
        return build_attention(self.heads * self.width, self.heads, built, "self").to(self.dtype)

    def inputs(self) -> tuple[Tensor, Tensor | None]:
        torch.manual_seed(self.seed + 1)
        x = torch.randn(self.batch, self.asking, self.heads * self.width, dtype=self.dtype, requires_grad=True)
        if self.answering is None:
            return x, None
        shape = (self.batch, self.answering, self.heads * self.width)
        return x, torch.randn(*shape, dtype=self.dtype, requires_grad=True)

    def allowed(self) -> Tensor | None:
        """True where asking is allowed. `any` may leave a token with nobody to ask."""
        random = torch.Generator().manual_seed(self.seed + 2)
        keys = self.answering or self.asking
        causal = torch.ones(self.asking, keys, dtype=torch.bool).tril()
        padding = torch.rand(self.batch, 1, 1, keys, generator=random) < 0.6
        padding[..., 0] = True
        free = torch.rand(self.batch, self.heads, self.asking, keys, generator=random) < 0.5
        return {"none": None, "causal": causal, "padding": padding, "both": causal & padding, "any": free}[self.mask]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    variant = draw(st.sampled_from(sorted(VARIANTS)))
    widths = st.none() | st.integers(1, 9)
    fixed = VARIANT_TABLE[variant].identity_width
    return Case(
        variant=variant,
        batch=draw(st.integers(1, 3)),
        asking=draw(st.integers(1, 9)),
        answering=draw(st.none() | st.integers(1, 9)),
        heads=draw(st.integers(1, 4)),
        width=draw(st.integers(1, 8)),
        d_k=None if fixed == "d_k" else draw(widths),
        d_v=None if fixed == "d_v" else draw(widths),
        mask=draw(st.sampled_from(["none", "causal", "padding", "both", "any"])),
        scale=draw(st.sampled_from(["sqrt_dk", "none"])),
        qk_norm=draw(st.booleans()),
        dtype=draw(st.sampled_from(list(TOLERANCE))),
        seed=draw(st.integers(0, 2**16)),
    )


def _reference(case: Case, site: Attention, x: Tensor, y: Tensor, mask: Tensor | None) -> Tensor:
    """The textbook, one head and one sequence at a time, with what each variant says of Q, K and V."""
    own = dict(site.named_parameters())
    nothing = torch.zeros(x.shape[-1], case.heads * (case.d_k or case.width), dtype=x.dtype)
    asking = {"no_q": x, "no_qk": x, "uniform": x @ nothing}
    answering = {"no_k": y, "no_qk": y, "uniform": y @ nothing}
    q = asking[case.variant] if case.variant in asking else own["query"] if "query" in own else x @ own["W_q"]
    k = answering[case.variant] if case.variant in answering else y @ own["W_q" if case.variant == "tied_qk" else "W_k"]
    v = y if case.variant == "no_v" else y @ own["W_v"]
    q = q.expand(*x.shape[:-1], q.shape[-1])
    rows = [[_head(case, q[b], k[b], v[b], mask, b, h) for h in range(case.heads)] for b in range(case.batch)]
    return torch.stack([torch.cat(row, -1) for row in rows]) @ own["W_o"]


def _head(case: Case, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, b: int, h: int) -> Tensor:
    qh, kh, vh = (
        part[:, h * part.shape[1] // case.heads : (h + 1) * part.shape[1] // case.heads] for part in (q, k, v)
    )
    if case.qk_norm:
        eps = torch.finfo(case.dtype if case.dtype.itemsize > 2 else torch.float32).eps
        qh, kh = (part / (part.square().mean(-1, keepdim=True) + eps).sqrt() for part in (qh, kh))
    logits = qh @ kh.T / (math.sqrt(qh.shape[1]) if case.scale == "sqrt_dk" else 1.0)
    weights = logits.exp()
    if mask is not None:
        weights = weights * mask.expand(case.batch, case.heads, *logits.shape)[b, h]
    return weights / weights.sum(1, keepdim=True).clamp(min=1e-300) @ vh


def _gradients(site: Attention, x: Tensor, y: Tensor | None, out: Tensor) -> Tensor:
    """All gradients of a fixed function of the output, end to end."""
    weigh = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).reshape(out.shape)
    wanted = [x, *([] if y is None else [y]), *site.parameters()]
    found = torch.autograd.grad((out.double() * weigh).sum(), wanted, allow_unused=True, materialize_grads=True)
    return torch.cat([gradient.double().flatten() for gradient in found])


def _error(found: Tensor, wanted: Tensor) -> float:
    """Relative, except where all of it cancels: inputs, weights and what is differentiated are all of order 1."""
    return ((found.detach().double() - wanted).norm() / wanted.norm().clamp(min=0.1)).item()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(cases())
def test_fused_and_plain_attention_equal_the_textbook_in_float64(case: Case) -> None:
    site, mask = case.site(), case.allowed()
    x, y = case.inputs()
    exact = case.site().double()
    exact.load_state_dict(site.state_dict())
    x64, y64 = (None if part is None else part.detach().double().requires_grad_() for part in (x, y))
    assert x64 is not None
    wanted = _reference(case, exact, x64, x64 if y64 is None else y64, mask)
    wanted_gradients, wanted = _gradients(exact, x64, y64, wanted), wanted.detach()
    for path in (fused_attention, plain_attention):
        site.attend = path
        out = site(x, y, mask)
        assert out.dtype == case.dtype
        assert _error(out, wanted) <= TOLERANCE[case.dtype]
        assert _error(_gradients(site, x, y, out), wanted_gradients) <= TOLERANCE[case.dtype]
