"""Adapters count through the matrix that is applied. The oracle is a model without them, W_eff as its leaf."""

from __future__ import annotations

import copy
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from experiments.spec import Record
from tests.lab import foreign
from tests.lab.test_recording import rows
from workers.trainer.adapt import attach
from workers.trainer.recording.norms import Norms
from workers.trainer.recording.own_loop.record import recording
from workers.trainer.tasks.hf.library import transformers

transformers()
peft = import_module("peft")
Named = dict[str, Tensor]
GPT2 = {
    "n_embd": 32,
    "n_layer": 1,
    "n_head": 4,
    "n_positions": 16,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
}
LLAMA = {**foreign.SIZES, "num_hidden_layers": 1, "num_key_value_heads": 2}
SITES = {"llama": "layers.0.self_attn", "gpt2": "h.0.attn"}
TARGETS = {"llama": ["q_proj", "v_proj"], "gpt2": ["c_attn"]}


def base(kind: str) -> nn.Module:
    torch.manual_seed(0)
    library = transformers()
    sizes = LLAMA if kind == "llama" else GPT2
    model: nn.Module = library.AutoModel.from_config(library.AutoConfig.for_model(kind, **sizes, **foreign.TOKENS))
    return model


def with_adapter(plain: nn.Module, kind: str, **options: Any) -> Any:
    """Adapters that do something: B starts at zero, so that it is drawn."""
    given = {"r": 4, "lora_alpha": 12, "target_modules": TARGETS[kind], "fan_in_fan_out": kind == "gpt2"} | options
    model = peft.get_peft_model(copy.deepcopy(plain), peft.LoraConfig(**given))
    _draw(model)
    return model


def _draw(model: nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
            if "lora_magnitude" in name:
                parameter.mul_(1.3)


def applied(
    model: Any, plain: nn.Module, kind: str, names: tuple[str, ...] = ("default",), dora: bool = False
) -> Named:
    """W_eff of every weight of the plain model, by the formulas of the papers."""
    found = {name: weight.detach().clone() for name, weight in plain.named_parameters()}
    tuned = dict(model.named_parameters())
    for target in TARGETS[kind]:
        for path in [name.removesuffix(".weight") for name in found if name.endswith(f"{target}.weight")]:
            weight = found[f"{path}.weight"]
            weight = weight.T if kind == "gpt2" else weight  # OI
            for name in names:
                a = tuned[f"base_model.model.{path}.lora_A.{name}.weight"].detach()
                b = tuned[f"base_model.model.{path}.lora_B.{name}.weight"].detach()
                weight = weight + 3.0 * b @ a
            if dora:
                magnitude = tuned[f"base_model.model.{path}.lora_magnitude_vector.default.weight"].detach()
                weight = magnitude[:, None] / weight.norm(dim=1, keepdim=True) * weight
            found[f"{path}.weight"] = weight.T if kind == "gpt2" else weight
    return found


def loss_of(model: Any) -> Tensor:
    out: Tensor = model(input_ids=torch.arange(3, 15).view(2, 6)).last_hidden_state
    return (out * torch.linspace(-1, 1, 32)).square().mean()


def split(kind: str, weights: Named) -> Named:
    """W_q, W_k and W_v, heads along the first dimension."""
    if kind == "gpt2":
        return dict(zip(("W_q", "W_k", "W_v"), weights["h.0.attn.c_attn.weight"].T.chunk(3), strict=True))
    return {f"W_{one}": weights[f"layers.0.self_attn.{one}_proj.weight"] for one in "qkv"}


def gradients(plain: nn.Module, weights: Named) -> Named:
    """Of the loss, with W_eff as the leaves of a model without adapters."""
    leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    out = functional_call(plain, leaves, (), {"input_ids": torch.arange(3, 15).view(2, 6)}).last_hidden_state
    loss = (out * torch.linspace(-1, 1, 32)).square().mean()
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values()), allow_unused=True), strict=True))


def check(found: dict[str, float], model: Any, plain: nn.Module, kind: str, before: Named, after: Named) -> None:
    site = f"base_model.model.{SITES[kind]}"
    grads, old, new = (split(kind, each) for each in (gradients(plain, before), before, after))
    trained = ("W_q", "W_v") if kind == "llama" else ("W_q", "W_k", "W_v")
    for name in trained:
        heads = 2 if kind == "llama" and name == "W_v" else 4
        assert found[f"grad_norm/{site}/{name}"] == pytest.approx(grads[name].norm().item(), rel=1e-6)
        for head, part in enumerate(grads[name].chunk(heads)):
            assert found[f"grad_norm/{site}/{name}/head.{head}"] == pytest.approx(part.norm().item(), rel=1e-6)
        assert found[f"weight_norm/{site}/{name}"] == pytest.approx(new[name].norm().item(), rel=1e-5)
        ratio = (new[name] - old[name]).norm() / old[name].norm()
        assert ratio > 0
        assert found[f"update_ratio/{site}/{name}"] == pytest.approx(ratio.item(), rel=1e-3)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("dora", [False, True])
def test_the_effective_matrix_is_recorded(kind: str, dora: bool, tmp_path: Path) -> None:
    plain = base(kind)
    model = with_adapter(plain, kind, use_dora=dora)
    own = {name: each for name, each in model.named_parameters() if each.requires_grad}
    optimizer = torch.optim.SGD(own.values(), lr=0.5)
    before: list[Named] = []
    norms: list[dict[str, float]] = []
    after = None
    with recording(model, tmp_path, optimizer) as record:
        for _ in range(3):
            optimizer.zero_grad()
            before.append(applied(model, plain, kind, dora=dora))
            loss = loss_of(model)
            loss.backward()
            norms.append({name: each.grad.norm().item() for name, each in own.items()})
            record(loss)
            optimizer.step()
        after = applied(model, plain, kind, dora=dora)
    found = rows(tmp_path)
    ends = [*before[1:], after]
    for step in range(3):
        row = {name: values[step] for name, values in found.items()}
        check(row, model, plain, kind, before[step], ends[step])
        holder = "W_q" if kind == "llama" else "W_qkv"
        path = f"base_model.model.{SITES[kind]}.{'q_proj' if kind == 'llama' else 'c_attn'}"
        for matrix in ("lora_A", "lora_B"):
            told = row[f"grad_norm/base_model.model.{SITES[kind]}/{holder}/{matrix}"]
            assert told == pytest.approx(norms[step][f"{path}.{matrix}.default.weight"], rel=1e-6)


def measured(model: nn.Module) -> dict[str, float]:
    norms = Norms(model, Record())
    norms.before()
    return dict(zip(norms.names, norms.after().tolist(), strict=True))


@pytest.mark.parametrize("to_none", [True, False])
def test_gradients_of_several_passes_add_up_and_begin_anew(to_none: bool) -> None:
    plain = base("llama")
    model = with_adapter(plain, "llama")
    attach(model)
    attach(model)  # once more does not count twice
    name = f"grad_norm/base_model.model.{SITES['llama']}/W_q"
    wanted = gradients(plain, applied(model, plain, "llama"))["layers.0.self_attn.q_proj.weight"].norm().item()
    for _ in range(2):
        model.zero_grad(set_to_none=to_none)
        loss_of(model).backward()
        assert measured(model)[name] == pytest.approx(wanted, rel=1e-5)
        loss_of(model).backward()
        assert measured(model)[name] == pytest.approx(2 * wanted, rel=1e-5)
    with torch.no_grad():
        loss_of(model)
    assert measured(model)[name] == pytest.approx(2 * wanted, rel=1e-5)


def test_several_disabled_and_merged_adapters() -> None:
    plain = base("llama")
    model = with_adapter(plain, "llama")
    model.add_adapter("other", peft.LoraConfig(r=2, lora_alpha=6, target_modules=TARGETS["llama"]))
    _draw(model)
    found = attach(model)
    site = f"base_model.model.{SITES['llama']}"
    part = found.sites[site].parts["W_q"]
    assert {"W_q/lora_A/default", "W_q/lora_B/other"} <= set(found.sites[site].adapters)

    def wanted(*names: str) -> Tensor:
        return split("llama", applied(model, plain, "llama", names))["W_q"]

    assert torch.allclose(part.detach(), wanted("default"), atol=1e-6)
    model.base_model.set_adapter(["default", "other"])
    assert torch.allclose(part.detach(), wanted("default", "other"), atol=1e-6)
    with model.disable_adapter():
        assert torch.equal(part.detach(), wanted())
    model.merge_adapter()
    assert torch.allclose(
        part.detach(), split("llama", applied(model, plain, "llama", ("default", "other")))["W_q"], atol=1e-5
    )


def test_a_module_that_is_saved_as_a_whole_counts_as_its_copy() -> None:
    plain = base("llama")
    model = with_adapter(plain, "llama", target_modules=["v_proj"], modules_to_save=["q_proj"])
    attach(model)
    loss_of(model).backward()
    site = f"base_model.model.{SITES['llama']}"
    copied = dict(model.named_parameters())[f"{site}.q_proj.modules_to_save.default.weight"]
    assert copied.grad.norm() > 0
    assert measured(model)[f"grad_norm/{site}/W_q"] == pytest.approx(copied.grad.norm().item(), rel=1e-6)


def test_training_with_adapters_is_unharmed_by_the_record(tmp_path: Path) -> None:
    ends = []
    for recorded in (False, True):
        model = with_adapter(base("llama"), "llama", lora_dropout=0.2)
        optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=0.01)
        torch.manual_seed(1)

        def train(record: Any, model: Any = model, optimizer: Any = optimizer) -> None:
            for _ in range(3):
                optimizer.zero_grad()
                loss = loss_of(model)
                loss.backward()
                if record:
                    record(loss)
                optimizer.step()

        if recorded:
            with recording(model, tmp_path, optimizer) as record:
                train(record)
        else:
            train(None)
        ends.append(model.state_dict())
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_a_grad_scaler_leaves_no_scale_in_the_effective_gradient(tmp_path: Path) -> None:
    plain = base("gpt2")
    for unscaled_first in (False, True):
        model = with_adapter(plain, "gpt2")
        optimizer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=0.5)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024)
        before = applied(model, plain, "gpt2")
        with recording(model, tmp_path, optimizer) as record:
            loss = loss_of(model)
            scaler.scale(loss).backward()
            if unscaled_first:
                scaler.unscale_(optimizer)
            record(loss)
            scaler.step(optimizer)
            scaler.update()
        row = {name: values[0] for name, values in rows(tmp_path).items()}
        check(row, model, plain, "gpt2", before, applied(model, plain, "gpt2"))


def test_an_attention_that_is_saved_as_a_whole_is_one_site() -> None:
    model = with_adapter(base("llama"), "llama", target_modules=["down_proj"], modules_to_save=["self_attn"])
    site = f"base_model.model.{SITES['llama']}"
    assert list(attach(model).sites) == [site]
    loss_of(model).backward()
    copied = dict(model.named_parameters())[f"{site}.modules_to_save.default.q_proj.weight"]
    assert measured(model)[f"grad_norm/{site}/W_q"] == pytest.approx(copied.grad.norm().item(), rel=1e-6)


def test_an_adapter_that_came_after_attach_is_seen_by_the_recording(tmp_path: Path) -> None:
    plain = base("llama")
    attach(plain)
    peft.inject_adapter_in_model(peft.LoraConfig(r=2, target_modules=["q_proj"]), plain)
    _draw(plain)
    optimizer = torch.optim.SGD([each for each in plain.parameters() if each.requires_grad], lr=0.5)
    with recording(plain, tmp_path, optimizer) as record:
        loss = loss_of(plain)
        loss.backward()
        record(loss)
        optimizer.step()
    found = rows(tmp_path)
    for series in ("grad_norm", "update_ratio"):
        assert found[f"{series}/{SITES['llama']}/W_q"][0] > 0
        assert found[f"{series}/{SITES['llama']}/W_k"][0] == 0


def test_an_adapter_that_cannot_be_read_is_said() -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn = nn.MultiheadAttention(16, 2)

    model = peft.get_peft_model(Holder(), peft.LoraConfig(r=2, target_modules=["attn"]))
    with pytest.raises(ValueError, match="an adapter replaces its matrices"):
        attach(model)


@pytest.mark.parametrize("config", ["LoHaConfig", "IA3Config"])
def test_other_adapters_count_through_what_they_apply(config: str, tmp_path: Path) -> None:
    given = {"target_modules": ["q_proj"]} | ({"feedforward_modules": []} if config == "IA3Config" else {"r": 2})
    model = peft.get_peft_model(base("llama"), getattr(peft, config)(**given))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    site = f"base_model.model.{SITES['llama']}"
    optimizer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=0.5)
    layer = dict(model.named_modules())[f"{site}.q_proj"]

    def matrix() -> Tensor:
        """Row by row, by autograd."""
        x = torch.zeros(32, requires_grad=True)
        return torch.stack([torch.autograd.grad(layer(x)[row], x)[0] for row in range(32)])

    with recording(model, tmp_path, optimizer) as record:
        loss = loss_of(model)
        loss.backward()
        before = matrix()
        record(loss)
        optimizer.step()
    found, moved = rows(tmp_path), (matrix() - before).norm() / before.norm()
    assert moved > 0
    assert found[f"update_ratio/{site}/W_q"][0] == pytest.approx(moved.item(), rel=1e-3)
    assert found[f"grad_norm/{site}/W_q"][0] > 0


def test_a_pass_that_leaves_no_gradients_adds_none() -> None:
    """A gradient penalty, or a look at what reaches the input."""
    plain = base("llama")
    model = with_adapter(plain, "llama")
    attach(model)
    name = f"grad_norm/base_model.model.{SITES['llama']}/W_q"
    wanted = gradients(plain, applied(model, plain, "llama"))["layers.0.self_attn.q_proj.weight"].norm().item()
    norm = dict(model.named_parameters())["base_model.model.norm.weight"].requires_grad_()
    torch.autograd.grad(loss_of(model), norm)
    q_out = dict(model.named_parameters())["base_model.model.embed_tokens.weight"].requires_grad_()
    torch.autograd.grad(loss_of(model), q_out)
    loss_of(model).backward()
    torch.autograd.grad(loss_of(model), q_out)
    assert measured(model)[name] == pytest.approx(wanted, rel=1e-5)


def test_a_layer_that_is_used_twice_and_a_copy_of_a_model_have_their_own_sums() -> None:
    plain = base("llama")
    model = with_adapter(plain, "llama")
    attach(model)
    twin = copy.deepcopy(model)
    (loss_of(twin) + loss_of(twin)).backward()
    name = f"grad_norm/base_model.model.{SITES['llama']}/W_q"
    wanted = gradients(plain, applied(model, plain, "llama"))["layers.0.self_attn.q_proj.weight"].norm().item()
    assert measured(twin)[name] == pytest.approx(2 * wanted, rel=1e-5)
    assert measured(model)[name] == 0


@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputed_layers_count_once(reentrant: bool) -> None:
    plain = base("llama")
    model = with_adapter(plain, "llama")
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    model.enable_input_require_grads()
    model.train()
    attach(model)
    loss_of(model).backward()
    name = f"grad_norm/base_model.model.{SITES['llama']}/W_q"
    wanted = gradients(plain, applied(model, plain, "llama"))["layers.0.self_attn.q_proj.weight"].norm().item()
    assert measured(model)[name] == pytest.approx(wanted, rel=1e-5)


def replicated() -> tuple[Any, nn.Module]:
    """Two layers used as four, each use with an adapter of its own; and the model of four layers that it computes."""
    torch.manual_seed(0)
    library, sizes = transformers(), {**LLAMA, **foreign.TOKENS}
    two, four = (
        library.AutoModel.from_config(library.AutoConfig.for_model("llama", **{**sizes, "num_hidden_layers": count}))
        for count in (2, 4)
    )
    model = with_adapter(two, "llama", layer_replication=[(0, 2), (0, 2)])
    named = model.named_parameters(remove_duplicate=False)
    tuned = {name.removeprefix("base_model.model."): each.detach() for name, each in named}
    weights = {}
    for name in four.state_dict():
        path = name.removesuffix(".weight")
        if f"{path}.base_layer.weight" in tuned:
            a, b = (tuned[f"{path}.lora_{each}.default.weight"] for each in "AB")
            weights[name] = tuned[f"{path}.base_layer.weight"] + 3.0 * b @ a
        else:
            weights[name] = tuned[name]
    four.load_state_dict(weights)
    return model, four


@pytest.mark.parametrize("before", [False, True])
def test_adapters_that_share_a_weight_have_each_its_own_effective_matrix(before: bool, tmp_path: Path) -> None:
    model, four = replicated()
    if before:
        attach(model)
    optimizer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=0.1)
    with recording(model, tmp_path, optimizer) as record:
        loss = loss_of(model)
        loss.backward()
        record(loss)
    grads = gradients(four, dict(four.named_parameters()))
    found = {name: values[0] for name, values in rows(tmp_path).items()}
    for layer in range(4):
        for matrix in "qv":
            name, path = f"base_model.model.layers.{layer}.self_attn/W_{matrix}", f"layers.{layer}.self_attn"
            weight = f"{path}.{matrix}_proj.weight"
            assert found[f"grad_norm/{name}"] == pytest.approx(float(grads[weight].norm()), rel=1e-5), name
            wanted = float(four.state_dict()[weight].norm())
            assert found[f"weight_norm/{name}"] == pytest.approx(wanted, rel=1e-5), name


def test_a_layer_without_an_adapter_does_not_take_that_of_a_layer_with_the_same_weight() -> None:
    plain = base("llama")
    plain.layers.append(copy.deepcopy(plain.layers[0]))  # type: ignore[union-attr,operator]
    plain.config.num_hidden_layers = 2  # type: ignore[union-attr]
    tied = plain.layers[0].self_attn.q_proj.weight  # type: ignore[index,union-attr]
    model = with_adapter(plain, "llama", target_modules=r"layers\.0\.self_attn\.q_proj")
    layers = model.base_model.model.layers
    layers[1].self_attn.q_proj.weight = layers[0].self_attn.q_proj.base_layer.weight
    sites = attach(model).sites
    parts = [sites[f"base_model.model.layers.{n}.self_attn"].parts["W_q"] for n in (0, 1)]
    assert torch.equal(parts[1].detach(), tied.detach())
    assert not torch.allclose(parts[0].detach(), parts[1].detach())


def test_two_adapters_on_one_weight_in_one_attention_are_told() -> None:
    model = with_adapter(base("llama"), "llama", target_modules=["q_proj", "k_proj", "o_proj"])
    attention = model.base_model.model.layers[0].self_attn
    attention.o_proj.base_layer.weight = attention.q_proj.base_layer.weight
    with pytest.raises(ValueError, match="two adapters change its W_q, each in its own way"):
        attach(model)
