"""A norm of 0 that says nothing of a loss is told, and models in other precisions are checked on batches of theirs."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.lab import foreign
from tests.lab.test_attention_notices import WIDTH, Layer
from tests.lab.test_recording import rows
from workers.trainer.adapt import attach, attention_notices
from workers.trainer.recording.own_loop.record import recording
from workers.trainer.tasks.hf.library import transformers


def test_frozen_matrices_are_named_and_others_are_not(tmp_path: Path) -> None:
    net = nn.Sequential(Layer(), Layer())
    net[0].q_proj.weight.requires_grad_(False)  # type: ignore[union-attr]
    optimizer = torch.optim.SGD([each for each in net.parameters() if each.requires_grad], lr=0.1)
    with recording(net, tmp_path, optimizer) as record:
        loss = net(torch.randn(2, 5, WIDTH)).square().mean()
        loss.backward()
        record(loss)
        optimizer.step()
    (notice,) = attention_notices(net)
    assert notice.kind == "frozen_attention"
    assert notice.text.startswith("1 matrix of attention is frozen")
    assert notice.items == ["0: W_q"]
    assert notice.text in (tmp_path / "log.txt").read_text()
    assert attach(net).frozen == {"0": ["W_q"]}
    assert rows(tmp_path)["grad_norm/0/W_q"] == [0]


def test_a_matrix_that_no_loss_reaches_is_not_called_frozen() -> None:
    assert not attach(nn.Sequential(Layer(), Layer())).frozen


@pytest.mark.parametrize("kind", ["lora", "prefix"])
def test_under_adapters_what_is_adapted_is_not_frozen(kind: str) -> None:
    transformers()
    peft = import_module("peft")
    library = transformers()
    sizes = {**foreign.SIZES, **foreign.TOKENS, "num_hidden_layers": 1, "num_key_value_heads": 2}
    plain = library.AutoModelForCausalLM.from_config(library.AutoConfig.for_model("llama", **sizes))
    config = (
        peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
        if kind == "lora"
        else peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    )
    (frozen,) = attach(peft.get_peft_model(plain, config)).frozen.values()
    assert frozen == (["W_k", "W_v", "W_o"] if kind == "lora" else ["W_q", "W_k", "W_v", "W_o"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_batch_is_made_up_in_the_precision_of_the_model(dtype: torch.dtype) -> None:
    net = nn.Sequential(Layer(), Layer()).to(dtype)
    found = attach(net)
    assert list(found.sites) == ["0", "1"]
    assert not found.unchecked


def test_a_model_of_two_precisions_is_checked_on_either() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(WIDTH, dtype=torch.bfloat16))
            self.attn = Layer()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.dtype != torch.float32:
                raise TypeError(f"expected float32, got {x.dtype}")
            out: torch.Tensor = self.attn(x) * self.scale
            return out

    found = attach(Mixed())
    assert list(found.sites) == ["attn"]
    assert not found.unchecked


def test_pixels_are_made_up_in_the_precision_of_the_model() -> None:
    library = transformers()
    config = library.AutoConfig.for_model("vit", **foreign.SIZES, image_size=8, patch_size=4)
    assert not attach(library.AutoModel.from_config(config).to(torch.bfloat16)).unchecked
