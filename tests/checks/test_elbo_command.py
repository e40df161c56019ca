"""`pyro-minvae elbo` as users meet it: every recipe and many combinations agree, bad input is one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from signals import speechlike
from small import ANY_STAGE, arguments, imported

from pyro_minvae.config.load import recipe_names

EXAMPLE = Path(__file__).parents[2] / "examples" / "noisy.mkv"
Run = Callable[..., object]

# Parts that no recipe has, with every other kind somewhere beside them.
COMBINATIONS = [
    ("a-vae", "model.prior.kind=vamp"),
    ("a-vae", "model.prior.kind=ar1"),
    ("a-vae", "model.likelihood.kind=student-t"),
    ("a-vae", "model.decoder.kind=context"),
    ("v-vae", "model.prior.kind=random-walk", "model.likelihood.kind=student-t"),
    ("av-vae", "model.prior.kind=vamp", "model.decoder.kind=lips"),
    ("av-vae", "model.prior.kind=random-walk", "model.decoder.kind=context", "model.decoder.context=2"),
    ("av-cvae", "model.prior.kind=ar1", "model.likelihood.dof=1.5", "model.likelihood.kind=student-t"),
    ("a-vae", "guide={kind = 'product'}", "model.prior={kind = 'visual'}", ANY_STAGE),
    ("min-vae", "guide.responsibility=amortised", ANY_STAGE),
    ("moe-poe", "guide.responsibility=amortised", ANY_STAGE, "model.likelihood.kind=student-t"),
    ("min-vae-visual-prior", "model.decoder.kind=lips", "model.likelihood.kind=student-t"),
]
# Distributions for which less than usual is known.
IMPORTS = [
    (imported("guide", "GaussianGuide"), "model.prior.kind=ar1"),
    (imported("guide", "LogisticGuide"), imported("model.prior", "LogisticPrior")),
    (imported("guide", "LaplaceGuide"), imported("model.likelihood", "Lomax")),
    (imported("model.prior", "LaplacePrior"), "model.decoder.kind=context"),
    (imported("model.prior", "LogisticPrior"), imported("model.likelihood", "Lomax", shape=0.6)),
]


@pytest.mark.parametrize("recipe", recipe_names())
def test_every_recipe_agrees(recipe: str, run_cli: Run) -> None:
    result = run_cli(*arguments(recipe))
    assert result.exit_code == 0, result.stderr
    assert "disagrees" not in result.stderr


@pytest.mark.parametrize("combination", COMBINATIONS, ids=" ".join)
def test_combinations_agree(combination: tuple[str, ...], run_cli: Run) -> None:
    result = run_cli(*arguments(*combination))
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize("settings", IMPORTS, ids=" ".join)
def test_parts_from_outside_agree(settings: tuple[str, ...], run_cli: Run) -> None:
    result = run_cli(*arguments("a-vae", *settings, ANY_STAGE))
    assert result.exit_code == 0, result.stderr


def test_a_part_whose_density_is_not_its_site_is_found(run_cli: Run) -> None:
    result = run_cli(*arguments("a-vae", imported("model.likelihood", "Weibull"), ANY_STAGE))
    assert result.exit_code == 1
    assert "disagrees: E log p(s|z): Pyro's" in result.stderr


def test_real_size(run_cli: Run) -> None:
    result = run_cli("elbo", "min-vae")
    assert result.exit_code == 0, result.stderr
    assert "F = 513, L = 32" in result.stdout
    for term in ("E log p(s|z), alpha = 1", "KL of z, alpha = 0", "KL of alpha", "ELBO", "K = 1000"):
        assert term in result.stdout


def test_notes_say_where_a_column_is_not_its_title(run_cli: Run) -> None:
    settings = ("model.prior.kind=vamp", "model.likelihood.kind=student-t")
    notes = [line for line in run_cli(*arguments("a-vae", *settings)).stdout.splitlines() if "note:" in line]
    assert any("no closed form" in line for line in notes)
    assert any("log p(w)" in line for line in notes)
    assert "note:" not in run_cli(*arguments("a-vae")).stdout


def test_a_trained_model_on_a_recording_with_its_lips_as_json(run_cli: Run) -> None:
    result = run_cli("elbo", "--model", "min-vae-grid", "--audio", EXAMPLE, "--frames", 3, "--json")
    tree = json.loads(result.stdout)
    assert result.exit_code == 0, result.stderr
    assert tree["agrees"] is True
    assert tree["frames"] == {"source": str(EXAMPLE), "count": 3, "bins": 513}
    assert {row["term"] for row in tree["terms"]} >= {"KL of alpha", "ELBO"}
    assert all(comparison["agrees"] for comparison in tree["comparisons"])
    bounds = [tree["importance"][k]["value"] for k in ("1", "10", "100", "1000")]
    assert bounds == sorted(bounds)
    terms = {row["term"]: row["closed"]["value"] for row in tree["terms"]}
    # Without lips alpha would be certain, here and in the prior.
    assert terms["KL of alpha"] > 0.01


def test_a_recording_without_lips(tmp_path: Path, run_cli: Run) -> None:
    soundfile.write(tmp_path / "voice.wav", speechlike(16000, 0.5, seed=1), 16000)
    result = run_cli(*arguments("min-vae"), "--audio", tmp_path / "voice.wav", "--json")
    tree = json.loads(result.stdout)
    assert result.exit_code == 0, result.stderr
    assert tree["responsibility"] == pytest.approx(1 - 1e-6)
    terms = {row["term"]: row["closed"]["value"] for row in tree["terms"]}
    assert terms["KL of alpha"] == pytest.approx(0, abs=1e-12)


def test_seed_decides_everything(run_cli: Run) -> None:
    first, again, other = (run_cli(*arguments("a-vae"), "--seed", seed).stdout for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], "either a RECIPE or --model, found neither"),
        (["a-vae", "--model", "a-vae"], "either a RECIPE or --model, found both"),
        (["--model", "nowhere"], "nowhere: expected a bundled model"),
        (["no-such-recipe"], "expected a recipe name"),
        (["--model", "a-vae", "--set", "model.latent=3"], "--set model.latent=3: expected a RECIPE"),
        (["a-vae", "--video", "lips.mkv"], "--video lips.mkv: expected --audio"),
        (["a-vae", "--audio", "none.wav"], "none.wav: expected a sound or video file"),
        (["a-vae", "--audio", str(EXAMPLE), "--video", "x.mkv"], "expected a system that looks at lips"),
        (
            ["a-vae", "--set", "model.prior.kind=mixture"],
            "expected a mixture prior and a mixture guide together",
        ),
    ],
)
def test_bad_input_is_one_line(command: list[str], words: str, run_cli: Run) -> None:
    result = run_cli("elbo", *command)
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_silence_is_refused(tmp_path: Path, run_cli: Run) -> None:
    soundfile.write(tmp_path / "silent.wav", np.zeros(8000), 16000)
    result = run_cli(*arguments("a-vae"), "--audio", tmp_path / "silent.wav")
    assert result.exit_code == 2
    assert "expected sound, found silence" in result.stderr
