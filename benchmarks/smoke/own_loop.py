"""A loop of one's own under `recording`: norms without the loss scale, a row for a step that the scaler left out."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor, nn

from benchmarks.smoke.report import Line, Skip
from workers.trainer.recording.own_loop.record import recording

STEPS, OVERFLOW = 5, 2
LIMIT = 1e-5
WIDTH = 32
Made = tuple[
    nn.Module, Callable[[nn.Module], Tensor], str, Callable[[nn.Module], Tensor]
]  # and a site; its W_k's gradient


def own_loop(device: str, precision: str, folder: Path) -> Iterator[Line]:
    """torch's encoder layer, with a GradScaler where the precision is fp16."""
    yield _recorded(
        f"own loop, torch.nn: {precision}", _torchs(device), device, precision, folder / f"torch-{precision}"
    )


def foreign(library: str, device: str, folder: Path) -> Iterator[Line]:
    """A tiny model of a library, in fp32."""
    if importlib.util.find_spec(library) is None:
        raise Skip(f"{library} is not installed")
    made = {"transformers": _llama, "timm": _vit, "peft": _lora}[library](device)
    yield _recorded(f"own loop, {library}", made, device, "fp32", folder / library)


def _recorded(check: str, made: Made, device: str, precision: str, folder: Path) -> Line:
    net, loss_of, site, of_w_k = made
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-3, fused=True)
    scaler = torch.amp.GradScaler(device, enabled=precision == "fp16")
    half = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision)
    truth: list[tuple[float, float]] = []
    with redirect_stdout(StringIO()), recording(net, folder, optimizer) as record:
        for step in range(STEPS):
            optimizer.zero_grad()
            with torch.autocast(device, half) if half else nullcontext():
                loss = loss_of(net)
            if step == OVERFLOW and scaler.is_enabled():
                loss = loss * math.inf
            scaler.scale(loss).backward()
            truth.append(_by_hand(net, of_w_k, scaler.get_scale() if scaler.is_enabled() else 1.0))
            record(loss)
            scaler.step(optimizer)
            scaler.update()
    rows = _rows(folder)
    faults = [] if rows["step"] == list(range(STEPS)) else [f"rows of steps {rows['step']}"]
    left_out = {OVERFLOW} if scaler.is_enabled() else set()
    if left_out and rows[f"update_ratio/{site}/W_k"][OVERFLOW] != 0:
        faults.append("the step that was left out has an update")
    pairs = [
        (found, wanted)
        for step, wants in enumerate(truth)
        if step not in left_out
        for found, wanted in zip(
            (rows["grad_norm/total"][step], rows[f"grad_norm/{site}/W_k"][step]), wants, strict=True
        )
    ]
    worst = max(abs(found - wanted) / wanted for found, wanted in pairs)
    figure = f"{len(pairs)} norms, largest relative difference {worst:.1e} (limit {LIMIT:g})"
    if left_out:
        figure += f"; step {OVERFLOW} overflowed and keeps its row"
    return Line(check, "; ".join([figure, *faults]), worst <= LIMIT and not faults)


def _by_hand(net: nn.Module, of_w_k: Callable[[nn.Module], Tensor], scale: float) -> tuple[float, float]:
    gradients = [p.grad.double() / scale for p in net.parameters() if p.grad is not None]
    total = sum(float(gradient.square().sum()) for gradient in gradients) ** 0.5
    return total, float((of_w_k(net).double() / scale).norm())


def _rows(folder: Path) -> dict[str, list[Any]]:
    with pa.ipc.open_stream(str(folder / "train.arrow")) as reader:
        table = reader.read_all()
    names = table.schema.metadata[b"names"].decode().split("\n")
    columns = zip(*table["values"].to_pylist(), strict=True)
    return {"step": table["step"].to_pylist(), **{name: list(v) for name, v in zip(names, columns, strict=True)}}


def _torchs(device: str) -> Made:
    torch.manual_seed(0)
    net = nn.TransformerEncoderLayer(WIDTH, 4, WIDTH, dropout=0.1, batch_first=True).to(device)
    x = torch.randn(4, 9, WIDTH, device=device)
    return (
        net,
        lambda net: net(x).float().square().mean(),
        "self_attn",
        lambda net: net.self_attn.in_proj_weight.grad[WIDTH : 2 * WIDTH],
    )  # type: ignore[union-attr,index]


def _llama(device: str) -> Made:
    from workers.trainer.tasks.hf.library import transformers

    torch.manual_seed(0)
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    config = transformers().AutoConfig.for_model("llama", vocab_size=48, max_position_embeddings=16, **sizes)
    net = transformers().AutoModelForCausalLM.from_config(config).to(device)
    ids = torch.randint(3, 40, (4, 9), device=device)

    def loss(net: nn.Module) -> Tensor:
        told: Tensor = net(input_ids=ids, labels=ids, use_cache=False).loss
        return told

    return net, loss, "model.layers.0.self_attn", lambda net: net.model.layers[0].self_attn.k_proj.weight.grad  # type: ignore[union-attr,index]


def _vit(device: str) -> Made:
    from workers.trainer.tasks.hf.library import mend_torchvision

    mend_torchvision()
    import timm

    torch.manual_seed(0)
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": WIDTH, "depth": 1, "num_heads": 4, "num_classes": 5}
    net = timm.models.VisionTransformer(**sizes).to(device)
    x = torch.randn(4, 3, 16, 16, device=device)
    return (
        net,
        lambda net: net(x).square().mean(),
        "blocks.0.attn",
        lambda net: net.blocks[0].attn.qkv.weight.grad[WIDTH : 2 * WIDTH],
    )  # type: ignore[union-attr,index]


def _lora(device: str) -> Made:
    """The effective W_k, whose gradient autograd tells when W_k is applied as a matrix of its own."""
    from peft import LoraConfig, get_peft_model

    net, loss, _, _ = _llama(device)
    adapted = get_peft_model(net, LoraConfig(r=2, target_modules=["k_proj", "q_proj"], init_lora_weights=False))  # type: ignore[arg-type]
    layer = next(module for name, module in adapted.named_modules() if name.endswith("layers.0.self_attn.k_proj"))
    name = next(name for name, module in adapted.named_modules() if name.endswith("layers.0.self_attn"))
    seen: dict[str, Tensor] = {}
    layer.register_forward_pre_hook(lambda _module, args: seen.__setitem__("x", args[0].detach()))
    layer.register_forward_hook(
        lambda _module, _args, out: out.register_hook(lambda d: seen.__setitem__("d", d)) and None
    )

    def gradient(_net: nn.Module) -> Tensor:
        return seen["d"].flatten(0, -2).double().T @ seen["x"].flatten(0, -2).double()

    return adapted, loss, name, gradient
