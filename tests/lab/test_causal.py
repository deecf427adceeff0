"""A language model that sees the future is refused: it reads its answers off the input."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from experiments.spec import SpecError, parse_spec
from tests.lab.foreign import SIZES
from workers.trainer.attention import Attention, variants
from workers.trainer.task import Task
from workers.trainer.tasks.causal import sees_future
from workers.trainer.tasks.registry import build_task

LETTERS = "".join(np.random.default_rng(0).choice(list("abcdefgh"), 4000))
XLM = {"emb_dim": 32, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 32}
BERT = {**SIZES, "max_position_embeddings": 32}


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    (tmp_path / "letters.txt").write_text(LETTERS)
    monkeypatch.setenv("ATTN_DATA_ROOT", str(tmp_path))
    return {"dataset": "text", "path": "letters.txt", "context": 8, "characters": 16}


def hf(data: dict[str, Any], **config: Any) -> Task:
    return build_task(parse_spec({"task": "hf", "data": data, "model": {"config": config}}), torch.device("cpu"))


@pytest.mark.parametrize(
    ("config", "switch"),
    [
        ({"model_type": "bert", **BERT}, "is_decoder"),
        ({"model_type": "roberta", **BERT}, "is_decoder"),
        ({"model_type": "electra", "embedding_size": 32, **BERT}, "is_decoder"),
        ({"model_type": "xlm", **XLM}, "causal"),
    ],
    ids=["bert", "roberta", "electra", "xlm"],
)
def test_a_model_that_sees_later_characters_is_refused(config: dict[str, Any], switch: str, text: Any) -> None:
    with pytest.raises(SpecError) as refused:
        hf(text, **config)
    assert refused.value.errors[0].dotted == "model.config"
    assert "not causal" in refused.value.errors[0].message
    assert f"set {switch}: true" in refused.value.errors[0].message
    hf(text, **config, **{switch: True})  # as it says


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32},
        {"model_type": "llama", **BERT, "num_key_value_heads": 2},
        {"model_type": "bloom", "hidden_size": 32, "n_layer": 2, "n_head": 4},
        {"model_type": "mixtral", **BERT, "num_key_value_heads": 2, "num_local_experts": 4},
    ],
    ids=lambda config: config["model_type"],
)
@pytest.mark.parametrize("context", [8, 31])
def test_causal_models_are_accepted_at_any_length(config: dict[str, Any], context: int, text: Any) -> None:
    hf(text | {"context": context}, **config)


def test_a_variant_of_ones_own_that_forgets_the_mask_is_refused(text: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgets(variants.Full):
        def forward(self, x_BTM: Tensor, y_BSM: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
            return super().forward(x_BTM, y_BSM, None)

    spec = parse_spec({"task": "language", "data": text, "model": {"d_model": 16, "heads": 2, "ffn": 16}})
    build_task(spec, torch.device("cpu"))
    monkeypatch.setitem(variants.VARIANTS, "full", Forgets)
    with pytest.raises(SpecError, match="not causal"):
        build_task(spec, torch.device("cpu"))


class Late(nn.Module):
    """Reads one later token, through a matrix that starts at zero, with a weight that is small."""

    def __init__(self, ahead: int, size: float) -> None:
        super().__init__()
        self.ahead, self.size = ahead, size
        self.words, self.out, self.start = nn.Embedding(8, 16), nn.Linear(16, 8), nn.Linear(16, 16, bias=False)
        nn.init.zeros_(self.start.weight)

    def forward(self, ids: np.ndarray[Any, Any]) -> Tensor:
        x = self.words(torch.from_numpy(ids))
        later = torch.roll(x, -self.ahead, 1)
        later[:, -self.ahead :] = 0
        out: Tensor = self.out(x + self.size * self.start(later))
        return out


@pytest.mark.parametrize("ahead", [1, 3])
@pytest.mark.parametrize("size", [1.0, 0.01])
def test_a_small_leak_behind_a_matrix_of_zeros_is_found_and_the_model_left_as_it_was(ahead: int, size: float) -> None:
    torch.manual_seed(0)
    model = Late(ahead, size)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    assert sees_future(model, model, 12, 8) is not None
    assert sees_future(model, lambda ids: model.out(model.words(torch.from_numpy(ids))), 12, 8) is None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training


def test_attention_without_a_mask_is_seen_in_a_long_context() -> None:
    torch.manual_seed(0)
    words, out = nn.Embedding(8, 32), nn.Linear(32, 8)
    spec = parse_spec({"task": "roles", "data": {"dataset": "roles"}}).model.attention
    site: Attention = variants.Full(32, 2, spec)
    model = nn.ModuleList([words, out, site])
    for length in (2, 64, 1024):
        mask = torch.ones(length, length, dtype=torch.bool).tril()

        def logits(ids: np.ndarray[Any, Any], mask: Tensor | None = None) -> Tensor:
            x = words(torch.from_numpy(ids))
            told: Tensor = out(x + site(x, mask=mask))
            return told

        assert sees_future(model, logits, length, 8) is not None
        assert sees_future(model, lambda ids, mask=mask: logits(ids, mask), length, 8) is None
