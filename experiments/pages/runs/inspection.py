"""The tab that asks a run's checkpoints: what it can be asked, of which checkpoints, and whether anybody answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest

from experiments.inspection import questions
from experiments.inspection.attention_maps import steps_with_maps
from experiments.models import Run


@dataclass(frozen=True)
class Asking:
    """How a task is asked. `first` is asked when the tab opens; empty: its first validation sample."""

    kind: str  # tokens or image
    label: str
    first: str = ""
    examples: tuple[str, ...] = ()
    help: str = ""


_ASKING = {
    "segment": Asking(
        "image",
        "Prompt",
        help="What to find, in English or Chinese, about the same image; empty: the sample's own prompt. "
        "Click a patch of the image, a word or a query.",
    ),
    "roles": Asking(
        "tokens",
        "Sentence",
        "我 爱 吃 苹果",
        ("我 爱 吃 苹果", "妈妈 想 买 书 他 会 喝 茶", "I love eat apples", "苹果/宾 吃 我/主 爱"),
        "Words of the grammar, in Chinese or English, with or without spaces; a case marker may follow its word.",
    ),
    "pointer": Asking(
        "tokens",
        "Tokens",
        help="0?2=5 is a token of name 0 that asks for name 2 and carries payload 5. Separate tokens by spaces.",
    ),
    "language": Asking(
        "tokens", "Text", help="Any text; the last 64 characters are read, fewer if the context is shorter."
    ),
}


def attention(request: HttpRequest, run: Run) -> dict[str, Any]:
    """Context of the tab; `asking` is None for models that cannot be asked."""
    return {
        "asking": _ASKING.get(str(run.spec.get("task"))),
        "checkpoints": list(run.checkpoints.filter(step__lte=run.checkpoint_step).values_list("step", flat=True)),
        "explorers": len(questions.explorers()),
        "no_explorer": questions.NOBODY,
        "map_steps": steps_with_maps(run),
    }
