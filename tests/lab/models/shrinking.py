"""A configuration of transformers made tiny by the names of its fields, whatever the model."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

WORDS = 96
HIDDEN = 32
RULES: list[tuple[str, int]] = [
    (r"vocab_size|.*_vocab_size|codebook_size|cardinality|.*hash_buckets", WORDS),
    (r"(max|original_max|n|num|max_2d|max_source|max_target|left_max|right_max)_?(position|positions)(_embeddings)?"
     r"|max_position_embeddings|n_ctx|max_seq_len|.*_max_position_embeddings", 64),
    (r"(.*_)?(num|n)_?(key_value|kv)_?(heads|attention_heads)|num_key_value_heads|n_kv_heads|.*num_key_value_heads", 2),
    (r"head_dim|(.*_)?head_dim|d_kv|d_head|dim_head|v_head_dim|(.*_)?head_size|key_channels", 8),
    (r"qk_rope_head_dim|rotary_dim", 4),
    (r"(q|kv|o)_lora_rank", 16),
    (r"(.*_)?(num_heads|n_heads?|attention_heads|num_attention_heads)", 4),
    (r"(.*_)?(num_hidden_layers|n_layers?|num_layers|encoder_layers|decoder_layers|depth|num_encoder_layers"
     r"|num_decoder_layers)|num_hidden_groups", 2),
    (r"(.*_)?(intermediate_size|ffn_dim|d_ff|dff|d_inner|mlp_dim|feedforward_dim|dim_feedforward|ffn_hidden_size|dim_ff"
     r"|intermediate_dim|mlp_hidden_size|feed_forward_hidden_size|hidden_features)", 64),
    (r"(.*_)?(hidden_size|d_model|n_embd|hidden_dim|embedding_size|embed_dim|emb_dim|out_hidden_size"
     r"|projection_dim|output_dim|fusion_hidden_size|embedding_dim)|dim|width|output_hidden_size|classifier_proj_size"
     r"|pooler_output_size|projector_hidden_size|hidden_size_per_layer_input|encoder_hidden_dim|mask_feature_size", 32),
    (r"(num_experts|n_routed_experts|num_local_experts|moe_num_experts)", 4),
    (r"(num_experts_per_tok|moe_k|top_k|num_experts_per_token)", 2),
    (r"n_group|topk_group|first_k_dense_replace|n_shared_experts", 1),
    (r"image_size|.*_image_size|img_size|max_image_size|max_img_size|pretrain_image_size", 32),
    (r"(.*_)?patch_size", 8),
    (r"window_size", 4),
    (r"sliding_window|sliding_window_size|local_attention|attention_chunk_size|chunk_size|max_span"
     r"|mamba_chunk_size", 16),
    (r"num_queries|num_query_tokens|.*num_latents|latent_query_num|num_denoising|two_stage_num_proposals", 10),
    (r"mamba_d_state|state_size", 8),
    (r"mamba_n_heads|linear_num_(key|value)_heads|linear_num_heads|mamba_num_heads", 4),
    (r"linear_(key|value)_head_dim|mamba_d_head|linear_head_dim|mamba_head_dim", 16),
    (r"max_source_positions", 64),
]  # fmt: skip
LISTS: list[tuple[str, list[int]]] = [
    (r"depths|stage_num_blocks|num_blocks|blocks_per_stage|layers|.*_depths", [1] * 8),
    (r"(.*_)?(num_attention_heads|num_heads)|num_attention_heads_per_stage", [2, 4, 4, 4, 4, 4, 4, 4]),
    (r"(.*_)?(hidden_sizes|embed_dims?|embed_dim_per_stage|neck_hidden_sizes|backbone_channel_list)", [32] * 8),
    (r"(.*_)?(conv_dim|tdnn_dim)", [32] * 8),
]
KEEP = re.compile(r"is_|use_|do_|num_labels|num_channels|in_channels|pretraining_tp|chunk_size_feed_forward")
TOKEN = re.compile(r".*(_token_id|_token_index|_id|token_ids|_index)$")


def configs(kind: type) -> Iterator[tuple[str, Any]]:
    """Smaller and smaller changes of the default configuration; those that do not fit raise when a model is built."""
    for how, level in (("shrunk", 2), ("shrunk with its own widths", 1), ("as it is", 0)):
        try:
            yield how, kind(**fields(kind(), level))
        except Exception as error:  # its own checks of fields raise what they like
            yield f"{how}: {line(error)}", None


def fields(config: Any, level: int) -> dict[str, Any]:
    """The fields that become smaller. Level 2 changes all, 1 leaves widths as they are, 0 leaves all."""
    found: dict[str, Any] = {}
    for name in inspect.signature(type(config).__init__).parameters:
        value = getattr(config, name, None)
        if is_config(value):
            found[name] = {**fields(value, level), "model_type": value.model_type}
        elif level and not isinstance(value, bool) and not KEEP.match(name):
            changed = _smaller(name, value, level, config)
            if changed is not None and changed != value:
                found[name] = changed
    return found


def is_config(value: Any) -> bool:
    return hasattr(value, "to_dict") and hasattr(value, "model_type")


def _smaller(name: str, value: Any, level: int, config: Any) -> Any:
    if TOKEN.fullmatch(name) and isinstance(value, int) and value >= WORDS:
        return 5 + sum(map(ord, name)) % 80
    if name == "eos_token_id" and isinstance(value, list):
        return 2
    if isinstance(value, list | tuple):
        return _shorter(name, value, level)
    if not isinstance(value, int):
        return None
    for pattern, small in RULES:
        if re.fullmatch(pattern, name):
            return _whole(name, value, small, level, config)
    return None


def _whole(name: str, value: int, small: int, level: int, config: Any) -> int | None:
    if value <= 0 or (level == 1 and small not in (WORDS, 2, 64, 10)):
        return None
    if level == 1 and re.search("heads|ffn|intermediate|d_ff|inner", name):
        return None
    if "key_value" in name or "kv_heads" in name:
        return 4 if value >= (getattr(config, "num_attention_heads", 0) or value) else (1 if value == 1 else 2)
    return small if value > small or small in (HIDDEN, 4) else None


def _shorter(name: str, value: Any, level: int) -> Any:
    if name in {"layer_types", "mlp_layer_types", "layers_block_type", "indexer_types", "no_rope_layers"}:
        return _kinds(list(value))
    if level < 2 or not value or not all(isinstance(each, int) and not isinstance(each, bool) for each in value):
        return None
    for pattern, small in LISTS:
        if re.fullmatch(pattern, name):
            return small[: len(value)]
    if name in {"image_size", "img_size"}:
        return [32] * len(value)
    return None


def _kinds(value: list[Any]) -> list[Any]:
    """Two layers, of two kinds where there are two."""
    distinct = list(dict.fromkeys(value))
    return (distinct + value)[:2] if len(distinct) > 1 else value[:2]


def line(error: BaseException) -> str:
    """The error in a line, without the files of this machine that Python names modules by."""
    text = re.sub(r" from '[^']*'", "", " ".join(str(error).split())) or type(error).__name__
    return f"{type(error).__name__}: {text}"[:160]
