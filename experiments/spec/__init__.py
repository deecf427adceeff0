"""What a run is: its sections, its errors and its content hash. Pure, and shared by service, supervisor and trainer."""

from .errors import FieldError, SpecError, did_you_mean
from .sections.attention import Attention, Kind, Transformer
from .sections.attention_names import Matrix, Variant
from .sections.base import Section
from .sections.data import CocoData, DigitScenesData, DigitsData, PointerData, RolesData, ScenesData, TextData
from .sections.hf import HfModel
from .sections.models import ClassifierModel, SegmenterModel, TokenModel
from .sections.question import Edit, QuestionSpec
from .sections.training import Optimizer, Record, Resources, SegmentLoss, Train
from .spec import (
    TASKS,
    ClassifySpec,
    HfSpec,
    LanguageSpec,
    PluginSpec,
    PointerSpec,
    RolesSpec,
    SegmentSpec,
    Spec,
    content_hash,
    flatten,
    parse_spec,
    resolved,
)

__all__ = [
    "TASKS",
    "Attention",
    "ClassifierModel",
    "ClassifySpec",
    "CocoData",
    "DigitScenesData",
    "DigitsData",
    "Edit",
    "FieldError",
    "HfModel",
    "HfSpec",
    "Kind",
    "LanguageSpec",
    "Matrix",
    "Optimizer",
    "PluginSpec",
    "PointerData",
    "PointerSpec",
    "QuestionSpec",
    "Record",
    "Resources",
    "RolesData",
    "RolesSpec",
    "ScenesData",
    "Section",
    "SegmentLoss",
    "SegmentSpec",
    "SegmenterModel",
    "Spec",
    "SpecError",
    "TextData",
    "TokenModel",
    "Train",
    "Transformer",
    "Variant",
    "content_hash",
    "did_you_mean",
    "flatten",
    "parse_spec",
    "resolved",
]
