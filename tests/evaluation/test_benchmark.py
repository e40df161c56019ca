"""Enhancing and scoring a set: in one process and in several, with models that fail."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fake_enhancers import Deadly, Fragile, Halfway, Identity, no_such_model

from pyro_minvae.errors import InputError
from pyro_minvae.evaluation.benchmark import Row, evaluate, item_seed
from pyro_minvae.evaluation.manifest import NoisyItem
from pyro_minvae.evaluation.metrics import HEADINGS
from pyro_minvae.evaluation.plots import plotter


@pytest.fixture
def halfway(noisy_set: list[NoisyItem]) -> partial[Halfway]:
    return partial(Halfway, noisy_set[0].clean)


def test_doing_nothing_gives_the_input_scores(noisy_set: list[NoisyItem]) -> None:
    rows = list(evaluate(noisy_set, Identity))
    assert [row.item for row in rows] == noisy_set
    for row in rows:
        assert row.input == row.output
        assert row.input.reasons == {}
        assert row.input.values["si_sdr"] == pytest.approx(row.item.snr_db, abs=0.3)
        assert (row.seconds, row.acceptance, row.responsibility) == (pytest.approx(1.5), 0.4, 0.25)


def test_less_noise_scores_better_and_streams(noisy_set: list[NoisyItem], halfway: partial[Halfway]) -> None:
    stream = evaluate(noisy_set, halfway)
    for item, row in zip(noisy_set, stream, strict=True):
        assert row.item == item
        # PESQ cannot tell one kind of bad from another.
        clearer = [name for name in HEADINGS if name != "pesq" or item.snr_db > 0]
        assert all(row.output.values[name] > row.input.values[name] for name in clearer)


def test_parallel_equals_serial(noisy_set: list[NoisyItem], halfway: partial[Halfway]) -> None:
    serial = list(evaluate(noisy_set, halfway, seed=3))
    assert list(evaluate(noisy_set, halfway, seed=3, workers=2)) == serial
    # Alone or backwards, an item has the same seed and so the same scores.
    assert list(evaluate(noisy_set[2:], halfway, seed=3)) == serial[2:]
    assert list(evaluate(noisy_set[:1], halfway, seed=4)) != serial[:1]


def test_an_item_that_fails_is_a_row_with_the_reason(noisy_set: list[NoisyItem], tmp_path: Path) -> None:
    broken = tmp_path / "broken.flac"
    broken.write_text("this is no sound")
    items = [*noisy_set, noisy_set[0].model_copy(update={"mixture": broken})]
    rows = list(evaluate(items, Fragile))
    faults = [row for row in rows[:-1] if row.error]
    assert [row.item for row in faults] == [item for item in noisy_set if item_seed(0, item) % 2 == 0]
    assert 0 < len(faults) < len(noisy_set)
    for row in faults:
        assert row.error == row.output.reasons["pesq"] == "RuntimeError: cannot enhance this"
        assert np.isnan(row.output.values["pesq"])
        assert np.isfinite(row.input.values["pesq"])
    assert str(broken) in rows[-1].error
    assert np.isnan(rows[-1].input.values["stoi"])


def test_a_process_that_dies_costs_its_own_item_only(noisy_set: list[NoisyItem]) -> None:
    # Which items are deadly is known from their seeds: one of them, then one that is not.
    items = sorted(noisy_set, key=lambda item: item_seed(0, item) % 2)[:: len(noisy_set) - 1]
    deadly, harmless = evaluate(items, Deadly, workers=2)
    assert "process died" in deadly.error
    assert deadly.item == items[0]
    assert harmless.error == ""
    assert harmless.output == harmless.input


@pytest.mark.parametrize("workers", [1, 2])
def test_a_missing_model_is_bad_input(noisy_set: list[NoisyItem], workers: int) -> None:
    with pytest.raises(InputError, match="nowhere: expected a model"):
        list(evaluate(noisy_set, no_such_model, workers=workers))


def test_lengths_and_rates_must_agree(noisy_set: list[NoisyItem], tmp_path: Path) -> None:
    def row(signal: np.ndarray, rate: int) -> Row:
        soundfile.write(tmp_path / "m.wav", signal, rate)
        return next(evaluate([noisy_set[0].model_copy(update={"mixture": tmp_path / "m.wav"})], Identity))

    clean, rate = soundfile.read(noisy_set[0].clean)
    assert "expected the 24000 samples" in row(clean[1:], rate).error
    assert "expected the rate of the clean speech, 16000 Hz, found 8000" in row(clean, 8000).error
    # Two channels are one mixture: their mean.
    assert row(np.stack([0.9 * clean, 0.7 * clean], axis=1), rate).error == ""


def test_video_is_left_out_when_asked(noisy_set: list[NoisyItem], tmp_path: Path) -> None:
    item = noisy_set[0].model_copy(update={"video": tmp_path / "lips.mkv"})
    assert next(evaluate([item], Identity)).used_video
    assert not next(evaluate([item], Identity, use_video=False)).used_video


def test_plots_are_drawn_by_the_workers(noisy_set: list[NoisyItem], tmp_path: Path) -> None:
    inspect = plotter("2", noisy_set, out=tmp_path)
    assert len(list(evaluate(noisy_set, Identity, inspect=inspect))) == 4
    pictures = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert pictures == ["voice5_white_-5dB.png", "voice5_white_5dB.png"]
    assert (tmp_path / "plots" / pictures[0]).read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="expected --out"):
        plotter("2", noisy_set, out=None)
