"""Data sets: each sample follows from (split, index) alone, and masks, boxes and prompts agree."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.spec import DigitScenesData, ScenesData
from workers.trainer.data.images import digits, lexicon
from workers.trainer.data.images.digit_scenes import digit_scene
from workers.trainer.data.images.samples import Samples, boxes_of, drawn
from workers.trainer.data.images.scenes import scene
from workers.trainer.data.order import batch_indices


def _samples(name: str, split: int = 1, **changes: object) -> Samples:
    if name == "scenes":
        return Samples(drawn(scene(ScenesData.model_validate({"dataset": name, **changes})), split), 4096)
    data = DigitScenesData.model_validate({"dataset": name, **changes})
    return Samples(drawn(digit_scene(data, held_out=split == 2), split), 4096)


DATASETS = pytest.mark.parametrize("name", ["scenes", "digit-scenes"])


@DATASETS
def test_a_sample_depends_on_its_split_and_index_and_on_nothing_else(name: str) -> None:
    forward, backward, other = _samples(name), _samples(name), _samples(name, split=2)
    first = [forward[index] for index in range(12)]
    again = [backward[index] for index in reversed(range(12))][::-1]
    for a, b, c in zip(first, again, [other[index] for index in range(12)], strict=True):
        assert (a.prompt, a.hits) == (b.prompt, b.hits)
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.labels, b.labels)
        assert not np.array_equal(a.image, c.image)


@DATASETS
def test_masks_can_be_seen_do_not_overlap_and_fill_their_boxes(name: str) -> None:
    samples = _samples(name)
    for index in range(100):
        masks = samples[index].masks
        assert masks.sum(0).max(initial=0) <= 1
        for mask, (x, y, width, height) in zip(masks, boxes_of(masks) * masks.shape[-1], strict=True):
            assert mask.sum() >= 12
            inside = mask[round(y - height / 2) : round(y + height / 2), round(x - width / 2) : round(x + width / 2)]
            assert inside.sum() == mask.sum()
            assert inside[0].any()
            assert inside[-1].any()
            assert inside[:, 0].any()
            assert inside[:, -1].any()


@DATASETS
def test_the_share_of_absent_prompts_and_the_language_are_those_of_the_spec(name: str) -> None:
    samples = _samples(name, absent=0.5, language="zh")
    drawn = [samples[index] for index in range(400)]
    assert 0.42 < np.mean([not sample.hits for sample in drawn]) < 0.58
    assert not any(sample.prompt.isascii() for sample in drawn)
    assert all(lexicon.UNKNOWN not in lexicon.encode(sample.prompt) for sample in drawn)


def test_a_colour_prompt_names_only_things_of_that_colour() -> None:
    samples = _samples("scenes", language="en", absent=0)
    checked = 0
    for index in range(200):
        sample = samples[index]
        if not sample.prompt.startswith(("red ", "blue ")):
            continue
        channel = 0 if sample.prompt.startswith("red") else 2
        for mask in sample.masks:
            if sample.prompt.endswith("tree"):  # the trunk is brown: look at the crown
                mask = mask & (np.arange(64) < np.flatnonzero(mask.any(1)).mean())[:, None]
            checked += 1
            assert sample.image[mask].mean(0).argmax() == channel
    assert checked > 20


def test_digit_scenes_evaluate_on_handwriting_that_training_never_sees() -> None:
    train, val = digits.split(0.2)
    assert train.stop == val.start
    assert val.stop == 1797


@pytest.mark.parametrize(
    ("prompt", "same"), [("红色的车", "红色 的 车"), ("Red Car", "red car"), ("七", "七"), ("蓝色房子", "蓝色 房子")]
)
def test_prompts_are_split_into_known_words(prompt: str, same: str) -> None:
    assert lexicon.encode(prompt) == lexicon.encode(same)
    assert lexicon.UNKNOWN not in lexicon.encode(prompt)


def test_unknown_words_have_a_token_of_their_own_and_long_prompts_are_cut() -> None:
    assert lexicon.encode("purple car") == [lexicon.UNKNOWN, lexicon.encode("car")[0]]
    assert lexicon.encode("") == [lexicon.UNKNOWN]
    assert len(lexicon.encode("car " * 20)) == lexicon.LENGTH


def test_the_vocabulary_has_no_word_twice() -> None:
    assert len(set(lexicon.VOCABULARY)) == len(lexicon.VOCABULARY)


def test_every_epoch_is_a_permutation_and_batches_may_cross_epochs() -> None:
    drawn = np.concatenate([batch_indices(7, start, 8, 20) for start in range(0, 40, 8)])
    assert sorted(drawn[:20]) == sorted(drawn[20:]) == list(range(20))
    assert not np.array_equal(drawn[:20], drawn[20:])
    np.testing.assert_array_equal(batch_indices(7, 16, 8, 20), drawn[16:24])


def test_a_batch_pads_targets_and_says_which_are_real() -> None:
    samples = _samples("scenes")
    batch = samples.batch(range(32))
    for row in range(32):
        count = len(samples[row].hits)
        assert batch.valid[row].sum() == count
        np.testing.assert_array_equal(batch.masks[row, :count].numpy(), samples[row].masks)
        assert not batch.masks[row, count:].any()
    assert batch.images.min() >= -1
    assert batch.images.max() < 1.01
