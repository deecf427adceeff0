"""The Inspect tab: the form of a task's questions, the checkpoints, and whether an inspection worker is running."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest

from experiments.inspection import questions
from experiments.inspection.attention_maps import steps_with_maps
from experiments.models import Run


@dataclass(frozen=True)
class QuestionForm:
    """A task's input. `first` is sent when the tab opens; empty: the first validation sample."""

    kind: str  # tokens or image
    label: str
    first: str = ""
    examples: tuple[str, ...] = ()
    help: str = ""


_FORMS = {
    "segment": QuestionForm(
        "image",
        "Prompt",
        help="What to find in the image, in English or Chinese; empty: the sample's own prompt. "
        "Click a patch of the image, a word or a query.",
    ),
    "roles": QuestionForm(
        "tokens",
        "Sentence",
        "我 爱 吃 苹果",
        ("我 爱 吃 苹果", "妈妈 想 买 书 他 会 喝 茶", "I love eat apples", "苹果/宾 吃 我/主 爱"),
        "Words of the grammar, in Chinese or English, with or without spaces; a case marker may follow its word.",
    ),
    "pointer": QuestionForm(
        "tokens",
        "Tokens",
        help="0?2=5 is a token with name 0 that looks up name 2 and carries payload 5. Separate tokens by spaces.",
    ),
    "language": QuestionForm(
        "tokens", "Text", help="Any text; the model reads the last 64 characters, or fewer if its context is shorter."
    ),
}


def attention(request: HttpRequest, run: Run) -> dict[str, Any]:
    """Context of the tab; `question_form` is None for tasks that have no inspection."""
    return {
        "question_form": _FORMS.get(str(run.spec.get("task"))),
        "checkpoints": list(run.checkpoints.filter(step__lte=run.checkpoint_step).values_list("step", flat=True)),
        "unavailable": questions.unavailable(),
        "map_steps": steps_with_maps(run),
    }
