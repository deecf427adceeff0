"""Tiny random models of other libraries. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from workers.trainer.tasks.hf.library import mend_torchvision, transformers

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TOKENS = {"vocab_size": 48, "max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
WIDTH, HEADS = 32, 2
_OWN = {"hidden_size": WIDTH, "num_attention_heads": HEADS}
SAM3: dict[str, Any] = {
    "model_type": "sam3",
    "vision_config": {
        "backbone_config": {
            "model_type": "sam3_vit_model",
            **_OWN,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "image_size": 112,
            "patch_size": 7,
            "pretrain_image_size": 56,
            "window_size": 8,
            "global_attn_indexes": [1],
        },
        "fpn_hidden_size": WIDTH,
        "backbone_feature_sizes": [[64, 64], [32, 32], [16, 16]],
    },
    "text_config": {**SIZES, **TOKENS, "vocab_size": 64, "num_attention_heads": HEADS, "projection_dim": WIDTH},
    "geometry_encoder_config": {**_OWN, "num_layers": 1, "intermediate_size": 64},
    "detr_encoder_config": {**_OWN, "num_layers": 2, "intermediate_size": 64},
    "detr_decoder_config": {**_OWN, "num_layers": 2, "num_queries": 10, "intermediate_size": 64},
    "mask_decoder_config": _OWN,
}
Made = tuple[nn.Module, Callable[[nn.Module], Tensor]]  # a model, and a loss that reaches its attention


def multihead() -> Made:
    x, y = torch.randn(2, 5, 32), torch.randn(2, 7, 32)
    model = nn.MultiheadAttention(32, 4, batch_first=True)
    return model, lambda model: model(x, y, y, need_weights=False)[0].square().mean()


def multihead_of_other_widths() -> Made:
    x, y = torch.randn(2, 5, 32), torch.randn(2, 7, 16)
    model = nn.MultiheadAttention(32, 4, kdim=16, vdim=16, batch_first=True)
    return model, lambda model: model(x, y, y, need_weights=True)[0].square().mean()


def timm_vit() -> Made:
    mend_torchvision()
    import timm

    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=32, depth=2, num_heads=4, num_classes=5
    )
    images = torch.randn(2, 3, 16, 16)
    return model, lambda model: model(images).square().mean()


def hugging_face(kind: str, **config: Any) -> Made:
    library = transformers()
    model = library.AutoModel.from_config(library.AutoConfig.for_model(kind, **config))
    tokens = torch.randint(3, 40, (2, 6))
    return model.eval(), lambda model: model(input_ids=tokens).last_hidden_state.square().mean()


def bert() -> Made:
    return hugging_face("bert", **SIZES, **TOKENS)


def gpt2() -> Made:
    return hugging_face("gpt2", n_embd=32, n_layer=2, n_head=4, n_positions=16, **TOKENS)


def llama() -> Made:
    return hugging_face("llama", **SIZES, **TOKENS, num_key_value_heads=2)


def gpt_neox() -> Made:
    return hugging_face("gpt_neox", **SIZES, **TOKENS)


def sam3() -> Made:
    library = transformers()
    model = library.Sam3Model(library.Sam3Config(**SAM3)).eval()
    images, tokens = torch.randn(1, 3, 112, 112), torch.randint(3, 40, (1, 6))

    def loss(model: nn.Module) -> Tensor:
        found = model(pixel_values=images, input_ids=tokens)
        return sum((found[name].square().mean() for name in ("pred_masks", "pred_logits")), torch.zeros(()))

    return model, loss
