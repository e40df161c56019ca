"""Offsets count neither in the level of a mixture nor in a score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from signals import speechlike

from pyro_minvae.evaluation.manifest import NoisyItem, read_manifest
from pyro_minvae.evaluation.metrics import score


def test_the_label_of_a_mixture_is_its_snr(tmp_path: Path, run_cli) -> None:  # type: ignore[no-untyped-def]
    voice = 0.1 * speechlike(16000, 2.0)
    (tmp_path / "speech").mkdir()
    soundfile.write(tmp_path / "speech" / "a.wav", voice + 5 * voice.std(), 16000, "FLOAT")
    soundfile.write(
        tmp_path / "hiss.wav", 0.3 + 0.05 * np.random.default_rng(0).standard_normal(64000), 16000, "FLOAT"
    )
    out = tmp_path / "set"
    result = run_cli("mix", tmp_path / "speech", "--noise", tmp_path / "hiss.wav", "--snr", 5, "--out", out)
    assert result.exit_code == 0, result.stderr
    for item in read_manifest(out):
        assert isinstance(item, NoisyItem)
        mixture, clean = (soundfile.read(path)[0] for path in (item.mixture, item.clean))
        noise = mixture - clean
        ratio = 10 * np.log10(np.var(clean) / np.var(noise))
        assert ratio == pytest.approx(item.snr_db, abs=0.05)
        assert abs(clean.mean()) < 1e-4


def test_scores_do_not_mind_an_offset() -> None:
    clean = speechlike(16000, 2.0)
    estimate = clean + 0.05 * np.random.default_rng(1).standard_normal(len(clean))
    plain, offset = score(clean, estimate, 16000), score(clean + 0.4, estimate - 0.2, 16000)
    for name, value in plain.values.items():
        assert offset.values[name] == pytest.approx(value, abs=1e-6)
