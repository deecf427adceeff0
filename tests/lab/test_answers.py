"""What a checkpoint answers: the maps are those of the model, and every edit does what it says."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.spec import QuestionSpec, Spec
from tests.lab.collected import tiny, train_collected
from workers.inspection.protocol import QuestionMessage
from workers.protocol import Checkpoint
from workers.trainer.entry.inspection_server import reply
from workers.trainer.entry.loaded_models import KEPT, Models
from workers.trainer.recording.probe import taps, weights_of

SENTENCE = "我 爱 吃 苹果"
SITE = "encoder.0.self"


class Asked:
    """A tiny trained run that can be asked."""

    def __init__(self, spec: Spec, folder: Path) -> None:
        self.models = Models()
        checkpoint = train_collected(spec, folder)[0].of(Checkpoint)[-1]
        facts = {"checkpoint": checkpoint.path, "sha256": checkpoint.sha256}
        self.put = QuestionMessage(question=1, spec=spec.model_dump(mode="json"), ask={}, most_bytes=2**22, **facts)

    def __call__(self, **ask: Any) -> dict[str, Any]:
        told = reply(self.models, self.put.model_copy(update={"ask": ask}))
        assert not told.problem, told.problem
        found: dict[str, Any] = json.loads(told.answer)
        return found

    def refusal(self, **ask: Any) -> str:
        told = reply(self.models, self.put.model_copy(update={"ask": ask}))
        assert not told.answer
        return told.problem


@pytest.fixture(scope="module")
def roles(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    spec = tiny("roles", train={"steps": 3}, model={"attention": {"init_std": 0.5}})
    return Asked(spec, tmp_path_factory.mktemp("roles"))


def site(told: dict[str, Any], name: str = SITE) -> dict[str, Any]:
    return next(each for each in told["sites"] if each["name"] == name)


def shares(told: dict[str, Any]) -> list[list[float]]:
    return [[share for _, share in place] for place in told["output"]["guesses"]]


def test_a_typed_sentence_is_answered_with_the_models_own_maps(roles: Asked) -> None:
    told = roles(text=SENTENCE)
    assert told["tokens"] == SENTENCE.split()
    assert told["marks"] == ["主甲", "谓甲", "谓甲", "宾甲"]
    task = roles.models.get(roles.put)
    from workers.trainer.inspection.tokens import read_roles

    with taps(task.model) as seen, torch.no_grad():
        logits = read_roles(task, QuestionSpec(text=SENTENCE)).run(task.model)  # type: ignore[arg-type]
    for name, tap in seen.items():
        np.testing.assert_allclose(site(told, name)["weights"], weights_of(tap)[0], atol=1e-4)
    np.testing.assert_allclose(shares(told), logits.softmax(-1).topk(5).values, atol=1e-4)


def test_products_and_mixtures_explain_the_weights(roles: Asked) -> None:
    """Σ over dimensions of q·k is the logit; the weights mix the values into what the head hands on."""
    here = site(roles(text=SENTENCE))
    q, k, v, mixed, weights = (np.array(here[name]) for name in ("q", "k", "v", "mixed", "weights"))
    logits = np.einsum("htd,hsd->hts", q, k) * here["scale"]
    softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(softmax, weights, atol=1e-3)
    np.testing.assert_allclose(weights @ v, mixed, atol=1e-3)


def test_swapped_queries_exchange_their_rows_and_nothing_else(roles: Asked) -> None:
    told = roles(text=SENTENCE, edits=[{"kind": "swap", "what": "q", "site": SITE, "places": [0, 3]}])
    before, after = np.array(site(told)["weights"]), np.array(site(told["edited"])["weights"])
    np.testing.assert_array_equal(after, before[:, [3, 1, 2, 0]])
    assert shares(told) != shares(told["edited"])


def test_swapped_keys_exchange_their_columns(roles: Asked) -> None:
    told = roles(text=SENTENCE, edits=[{"kind": "swap", "what": "k", "site": SITE, "places": [1, 2]}])
    before, after = np.array(site(told)["weights"]), np.array(site(told["edited"])["weights"])
    np.testing.assert_array_equal(after, before[:, :, [0, 2, 1, 3]])


def test_an_ablated_query_asks_everybody_alike(roles: Asked) -> None:
    told = roles(text=SENTENCE, edits=[{"kind": "ablate", "what": "q", "head": 1, "places": [2]}])
    before, after = np.array(site(told)["weights"]), np.array(site(told["edited"])["weights"])
    np.testing.assert_allclose(after[1, 2], 0.25)
    np.testing.assert_array_equal(after[0], before[0])


def test_an_ablated_head_hands_nothing_on(roles: Asked) -> None:
    """The same as zeroed rows of W_o."""
    told = roles(text=SENTENCE, edits=[{"kind": "ablate", "what": "head", "site": SITE, "head": 0}])
    model = roles.models.get(roles.put).model
    weight = dict(model.named_parameters())["encoder.0.self_attention.W_o"]
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[:8] = 0
        without = roles(text=SENTENCE)
        weight.copy_(kept)
    assert shares(told["edited"]) == shares(without)
    assert shares(told) == shares(roles(text=SENTENCE)) != shares(without)


def test_with_all_of_q_k_v_patched_everywhere_a_site_does_what_it_does_for_the_other_sentence(roles: Asked) -> None:
    other = "他 想 喝 水"
    edits = [{"kind": "patch", "what": what} for what in "qkv"]
    told, wanted = roles(text=SENTENCE, other=other, edits=edits), roles(text=other)
    for name in (SITE, "encoder.1.self"):
        assert site(told["edited"], name)["weights"] == site(wanted, name)["weights"]
        assert site(told["edited"], name)["mixed"] == site(wanted, name)["mixed"]


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        ({"text": " "}, "type a sentence"),
        ({"sample": 16}, "16 is out of range; there are 16 validation samples"),
        ({"text": SENTENCE, "site": "decoder.0.image"}, "there is no site 'decoder.0.image'"),
        ({"text": SENTENCE, "site": SITE, "asker": 4}, "there is no position 4, the site has 4"),
        ({"text": SENTENCE, "edits": [{"kind": "ablate", "what": "q", "site": "x"}]}, "there is no site 'x'"),
        (
            {"text": SENTENCE, "edits": [{"kind": "ablate", "what": "q", "site": SITE, "head": 2}]},
            "has 2 heads and 4 positions",
        ),
        (
            {"text": SENTENCE, "other": "我", "edits": [{"kind": "patch", "what": "v", "places": [1]}]},
            "other: a patch takes position",
        ),
    ],
)
def test_what_cannot_be_answered_is_refused_in_words(roles: Asked, ask: dict[str, Any], words: str) -> None:
    assert words in roles.refusal(**ask)


def test_an_answer_over_the_limit_is_refused_in_words(roles: Asked) -> None:
    small = roles.put.model_copy(update={"ask": {"text": SENTENCE}, "most_bytes": 100})
    assert "100 are allowed" in reply(roles.models, small).problem


@pytest.mark.parametrize("text", ["0?2=3 2?1=5 1?0=2", None])
def test_pointer_models_can_be_asked(tmp_path: Path, text: str | None) -> None:
    told = Asked(tiny("pointer", train={"steps": 2}), tmp_path)(text=text, sample=2)
    assert told["tokens"][0].count("?") == 1
    assert len(told["output"]["guesses"]) == len(told["tokens"]) == (3 if text else 12)


def test_characters_ask_only_what_stands_before_them(tmp_path: Path) -> None:
    told = Asked(tiny("language", train={"steps": 2}), tmp_path)(text="你爱吃")
    assert (told["tokens"], "你" in told["unknown"]) == (["你", "爱", "吃"], True)
    assert np.triu(np.array(site(told)["weights"]), 1).max() == 0


def test_only_the_last_asked_models_stay_loaded(roles: Asked) -> None:
    models = Models()
    keys = [roles.put.model_copy(update={"sha256": str(number)}) for number in range(KEPT + 1)]
    loaded = [models.get(key) for key in keys]
    assert models.get(keys[-1]) is loaded[-1]
    assert models.get(keys[0]) is not loaded[0]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    spec = tiny("segment", train={"steps": 2}, data={"canvas": 64}, model={"patch": 4})
    return Asked(spec, tmp_path_factory.mktemp("scenes"))


def test_an_image_is_answered_with_what_the_model_finds_there(scenes: Asked) -> None:
    told = scenes(sample=1)
    task = scenes.models.get(scenes.put)
    with Image.open(io.BytesIO(base64.b64decode(told["image"]))) as image:
        np.testing.assert_array_equal(np.array(image), task.validation[1].image)  # type: ignore[attr-defined]
    assert told["prompt"] == told["own_prompt"]
    assert 0 <= told["output"]["iou"] <= 1
    axes = {each["name"]: (each["asks"], each["answers"]) for each in told["sites"]}
    assert axes["encoder.0.self"] == ("patch", "patch")
    assert axes["decoder.1.image"] == ("query", "patch")
    assert axes["encoder.0.text"] == ("patch", "text")


def test_another_prompt_about_the_same_image_changes_whom_the_patches_ask(scenes: Asked) -> None:
    told, other = scenes(sample=1), scenes(sample=1, prompt="蓝色的车 七")
    assert (other["tokens"], other["image"]) == (["蓝色", "的", "车", "七"], told["image"])
    assert "iou" not in other["output"], "nobody knows the truth of a typed prompt"
    assert site(other, "decoder.0.text")["weights"] != site(told, "decoder.0.text")["weights"]


def test_a_map_too_large_to_send_is_sent_for_one_place(scenes: Asked) -> None:
    told = scenes(sample=0, site="encoder.0.self", asker=17, answerer=3)
    assert "weights" not in site(told, "encoder.0.self")
    focus = told["focus"]
    np.testing.assert_allclose(np.sum(focus["looks"], -1), 1, atol=0.02)
    assert np.shape(focus["looked_at"]) == (2, 256)
    assert focus["looks"][0][3] == focus["looked_at"][0][17]


def test_an_ablated_head_changes_masks_and_scores(scenes: Asked) -> None:
    told = scenes(sample=0, edits=[{"kind": "ablate", "what": "v", "site": "decoder.1.image"}])
    assert told["edited"]["output"]["scores"] != told["output"]["scores"]
