"""Attention of models that are not ours: found, named, and measured as one would by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from experiments.spec import Record
from tests.lab import foreign
from tests.lab.foreign import Made
from workers.trainer.adapt import attach
from workers.trainer.adapt.watch import watched
from workers.trainer.recording.norms import Norms
from workers.trainer.recording.own_loop.record import recording

Heads = list[Tensor]
Hand = Callable[[nn.Module], Heads]  # the gradient of each head, taken from `.grad` by hand


def rows(path: str, start: int, count: int, size: int) -> Hand:
    """Heads that own rows of a parameter's gradient."""
    return lambda model: [grad(model, path)[start + h * size : start + (h + 1) * size] for h in range(count)]


def columns(path: str, start: int, count: int, size: int) -> Hand:
    return lambda model: [grad(model, path)[:, start + h * size : start + (h + 1) * size] for h in range(count)]


def thirds(path: str, place: int, count: int, size: int) -> Hand:
    """Head by head, each with its q, k and v: the place-th of them."""
    return lambda model: [grad(model, path)[(3 * h + place) * size : (3 * h + place + 1) * size] for h in range(count)]


def grad(model: nn.Module, path: str) -> Tensor:
    found = dict(model.named_parameters(remove_duplicate=False))[path].grad
    assert found is not None
    return found


BERT, LLAMA, SAM3 = "encoder.layer.1.attention.", "layers.1.self_attn.", "detr_decoder.layers.1.vision_cross_attn."
BY_HAND: list[tuple[Callable[[], Made], str, dict[str, Hand]]] = [
    (
        foreign.multihead,
        "attention",
        {
            "W_q": rows("in_proj_weight", 0, 4, 8),
            "W_k": rows("in_proj_weight", 32, 4, 8),
            "W_v": rows("in_proj_weight", 64, 4, 8),
            "W_o": columns("out_proj.weight", 0, 4, 8),
        },
    ),
    (
        foreign.multihead_of_other_widths,
        "attention",
        {f"W_{one}": rows(f"{one}_proj_weight", 0, 4, 8) for one in "qkv"},
    ),
    (
        foreign.timm_vit,
        "blocks.1.attn",
        {
            "W_q": rows("blocks.1.attn.qkv.weight", 0, 4, 8),
            "W_k": rows("blocks.1.attn.qkv.weight", 32, 4, 8),
            "W_v": rows("blocks.1.attn.qkv.weight", 64, 4, 8),
            "W_o": columns("blocks.1.attn.proj.weight", 0, 4, 8),
        },
    ),
    (
        foreign.bert,
        BERT + "self",
        {
            "W_q": rows(BERT + "self.query.weight", 0, 4, 8),
            "W_k": rows(BERT + "self.key.weight", 0, 4, 8),
            "W_v": rows(BERT + "self.value.weight", 0, 4, 8),
            "W_o": columns(BERT + "output.dense.weight", 0, 4, 8),
        },
    ),
    (
        foreign.gpt2,
        "h.1.attn",
        {
            "W_q": columns("h.1.attn.c_attn.weight", 0, 4, 8),
            "W_k": columns("h.1.attn.c_attn.weight", 32, 4, 8),
            "W_v": columns("h.1.attn.c_attn.weight", 64, 4, 8),
            "W_o": rows("h.1.attn.c_proj.weight", 0, 4, 8),
        },
    ),
    (
        foreign.llama,
        "layers.1.self_attn",
        {
            "W_q": rows(LLAMA + "q_proj.weight", 0, 4, 8),
            "W_k": rows(LLAMA + "k_proj.weight", 0, 2, 8),
            "W_v": rows(LLAMA + "v_proj.weight", 0, 2, 8),
            "W_o": columns(LLAMA + "o_proj.weight", 0, 4, 8),
        },
    ),
    (
        foreign.gpt_neox,
        "layers.1.attention",
        {
            f"W_{one}": thirds("layers.1.attention.query_key_value.weight", place, 4, 8)
            for place, one in enumerate("qkv")
        },
    ),
    (
        foreign.sam3,
        SAM3[:-1],
        {f"W_{one}": rows(f"{SAM3}{one}_proj.weight", 0, 2, 16) for one in "qkv"}
        | {"W_o": columns(SAM3 + "o_proj.weight", 0, 2, 16)},
    ),
]


@pytest.mark.parametrize(("make", "site", "hands"), BY_HAND, ids=[make.__name__ for make, _, _ in BY_HAND])
def test_norms_of_matrices_and_heads_are_those_read_by_hand(
    make: Callable[[], Made], site: str, hands: dict[str, Hand]
) -> None:
    torch.manual_seed(0)
    model, loss = make()
    attach(model)
    loss(model).backward()
    values = measured(model)
    for name, hand in hands.items():
        heads = hand(model)
        whole = torch.cat(heads).norm() if heads[0].shape[0] < heads[0].shape[1] else torch.cat(heads, 1).norm()
        assert values[f"grad_norm/{site}/{name}"] == pytest.approx(whole.item(), rel=1e-5)
        told = {key for key in values if key.startswith(f"grad_norm/{site}/{name}/head.")}
        assert told == {f"grad_norm/{site}/{name}/head.{head}" for head in range(len(heads))}
        for head, gradient in enumerate(heads):
            assert gradient.norm() > 0
            assert values[f"grad_norm/{site}/{name}/head.{head}"] == pytest.approx(gradient.norm().item(), rel=1e-5)


def measured(model: nn.Module) -> dict[str, float]:
    norms = Norms(model, Record())
    norms.before()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.01)
    values = dict(zip(norms.names, norms.after().tolist(), strict=True))
    ratios = [value for name, value in values.items() if name.startswith("update_ratio/")]
    assert ratios == pytest.approx([0.01] * len(ratios), rel=1e-3)
    assert ratios
    return values


def test_every_site_of_sam3_is_found_and_named() -> None:
    model, loss = foreign.sam3()
    assert sum(parameter.numel() for parameter in model.parameters()) == 267_066
    found = attach(model)
    cross = {name for name, site in found.sites.items() if site.kind == "cross"}
    layers = [f"detr_decoder.layers.{layer}" for layer in (0, 1)]
    assert cross == {
        "geometry_encoder.layers.0.cross_attn",
        *(f"detr_encoder.layers.{layer}.cross_attn" for layer in (0, 1)),
        *(f"{layer}.{kind}_cross_attn" for layer in layers for kind in ("text", "vision")),
        "mask_decoder.prompt_cross_attn",
    }
    assert found.sites.keys() - cross == {
        *(f"vision_encoder.backbone.layers.{layer}.attention" for layer in (0, 1)),
        *(f"text_encoder.text_model.encoder.layers.{layer}.self_attn" for layer in (0, 1)),
        "geometry_encoder.layers.0.self_attn",
        *(f"detr_encoder.layers.{layer}.self_attn" for layer in (0, 1)),
        *(f"{layer}.self_attn" for layer in layers),
    }
    assert not found.skipped
    loss(model).backward()
    values = measured(model)
    silent = {name for name in found.sites if values[f"grad_norm/{name}/W_v"] == 0}
    assert silent == {"geometry_encoder.layers.0.self_attn", "geometry_encoder.layers.0.cross_attn"}


def test_a_module_that_cannot_be_read_is_named_with_the_reason() -> None:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.num_heads = 4
            for name in ("q_proj", "k_proj", "v_proj"):
                setattr(self, name, nn.Linear(8, 8))

        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(self.q_proj(x)) * self.k_proj(x) + self.v_proj(x)  # type: ignore[no-any-return]

    with pytest.raises(ValueError, match=r"0: computes no attention that can be seen"):
        attach(nn.Sequential(Gate()))
    with pytest.raises(ValueError, match="Linear has no attention"):
        attach(nn.Linear(4, 4))


def test_a_copy_of_an_attached_model_has_sites_of_its_own() -> None:
    model, loss = foreign.bert()
    attach(model)
    twin = copy.deepcopy(model)
    loss(twin).backward()
    own, others = (
        {name: value for name, value in measured(each).items() if "grad_norm/" in name} for each in (twin, model)
    )
    assert own.keys() == others.keys()
    assert min(value for name, value in own.items() if name.endswith("/W_v")) > 0
    assert set(others.values()) == {0}


@pytest.mark.parametrize("make", [foreign.bert, foreign.gpt2, foreign.llama], ids=lambda make: make.__name__)
@pytest.mark.parametrize("how", ["sdpa", "eager"])
def test_entropy_of_a_foreign_map_is_that_of_the_map_the_library_returns(make: Callable[[], Made], how: str) -> None:
    """Rotation, causal masks and grouped heads are in it, in the fused form as in the explicit one."""
    torch.manual_seed(1)
    model: Any = make()[0]
    sites = list(attach(model).sites)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # far from uniform
        tokens = torch.randint(3, 40, (2, 6))
        model.set_attn_implementation("eager")
        maps = model(input_ids=tokens, output_attentions=True).attentions
        model.set_attn_implementation(how)
        with watched(model) as seen:
            model(input_ids=tokens)
    assert list(seen) == sites
    for site, weights in zip(sites, maps, strict=True):
        allowed = (weights > 0).sum(-1).clamp(min=2)
        wanted = (torch.special.entr(weights).sum(-1) / allowed.log()).mean()
        assert wanted < 0.95
        assert seen[site].entropy == pytest.approx(wanted.item(), abs=1e-5)
        assert seen[site].heads == 4


@pytest.mark.parametrize("weights", [True, False])
def test_the_map_of_torchs_own_attention_is_seen_in_inference_too(weights: bool) -> None:
    model = nn.MultiheadAttention(16, 4, batch_first=True).eval()
    attach(model)
    x = 9 * torch.randn(2, 5, 16)
    with torch.no_grad(), watched(model) as seen:
        model(x, x, x, need_weights=weights)
    _, maps = model(x, x, x, average_attn_weights=False)
    wanted = (torch.special.entr(maps).sum(-1) / torch.tensor(5.0).log()).mean()
    assert seen["attention"].entropy == pytest.approx(wanted.item(), abs=1e-5)


def test_the_example_of_the_documentation_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "any-model.md").read_text()
    monkeypatch.chdir(tmp_path)
    exec(page.split("```python\n")[1].split("```")[0], {})
    with pa.ipc.open_stream(str(tmp_path / "runs" / "mine" / "train.arrow")) as reader:
        table = reader.read_all()
    assert len(table) == 20
    assert "grad_norm/self_attn/W_q/head.3" in table.schema.metadata[b"names"].decode().split("\n")


def test_a_loop_of_ones_own_is_recorded_to_a_folder(tmp_path: Path) -> None:
    model, loss_of = foreign.multihead()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    told = []
    with recording(model, tmp_path, optimizer) as record:
        for _ in range(5):
            optimizer.zero_grad()
            loss = loss_of(model)
            loss.backward()
            record(loss)
            told.append((loss.item(), model.in_proj_weight.grad[:32].norm().item()))  # type: ignore[union-attr, index]
            optimizer.step()
    with pa.ipc.open_stream(str(tmp_path / "train.arrow")) as reader:
        table = reader.read_all()
    names = table.schema.metadata[b"names"].decode().split("\n")
    values = torch.tensor(table["values"].to_pylist())
    assert table["step"].to_pylist() == list(range(5))
    shown = values[:, [names.index("loss/total"), names.index("grad_norm/attention/W_q")]]
    assert torch.allclose(shown, torch.tensor(told))
    assert "grad_norm/attention/W_v/head.3" in names
