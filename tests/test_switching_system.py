"""Switching systems from their recipes to files: what they load, refuse, return and write."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from tiny import save_tiny_model
from typer.testing import CliRunner

from pyro_minvae.cli.main import app
from pyro_minvae.errors import InputError
from pyro_minvae.evaluation.diagnosis import diagnose, numbers
from pyro_minvae.evaluation.page import Reporter
from pyro_minvae.evaluation.panels import spectra
from pyro_minvae.features.gaps import carried
from pyro_minvae.inference.switching.engine import SwitchState
from pyro_minvae.inference.switching.posterior import divergence
from pyro_minvae.inference.switching.reliability_pass import Look
from pyro_minvae.inference.switching.video_reliability import sound_evidence
from pyro_minvae.media.audio import write_audio
from pyro_minvae.models.distributions import gaussian_parameters
from pyro_minvae.models.priors.component import NARROW
from pyro_minvae.pipelines.enhancer import Enhancer
from pyro_minvae.pipelines.mcem_solver import Block
from pyro_minvae.pipelines.switching_solver import Switcher, switched_mask
from pyro_minvae.pipelines.switching_system import is_switching, system_names
from pyro_minvae.types import Audio, MouthCrops, Visual

RATE, SECONDS = 16000, 1.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("switching")
    save_tiny_model(folder / "av")
    save_tiny_model(folder / "a", video=False)
    return folder


def recipe(folder: Path, *modes: str, name: str = "system", extra: str = "") -> Path:
    """A recipe whose modes are "name=model:component"."""
    text = f'name = "{name}"\n{extra}\n[noise]\nrank = 2\n[inference]\niterations = 4\naverage = 2\n'
    for mode in modes:
        called, _, what = mode.partition("=")
        model, _, component = what.partition(":")
        path = folder / model
        text += f'[[modes]]\nname = "{called}"\nmodel = "{path}"\ncomponent = "{component or "whole"}"\n'
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def system(folder: Path) -> Path:
    return recipe(folder, "lips=av:lips", "sound=av:unpaired")


def sound(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=int(RATE * SECONDS)) * 0.1


def lips(valid: np.ndarray | None = None) -> MouthCrops:
    crops = np.random.default_rng(1).integers(0, 256, (25, 16, 16), dtype=np.uint8)
    return MouthCrops(crops, np.arange(25) / 25, np.ones(25, bool) if valid is None else valid)


def enhancer(system: Path, *settings: str) -> Enhancer:
    return Enhancer.from_pretrained(system, overrides=["inference.lips=always", *settings])


@pytest.mark.parametrize("name", system_names())
def test_bundled_systems_are_models_by_name(name: str) -> None:
    made = Enhancer.from_pretrained(name, overrides=["inference.iterations=1", "switch.temper=0.5"])
    assert made.recipe.name == name
    assert isinstance(made.denoiser, Switcher)
    assert made.denoiser.recipe.switch.temper == 0.5
    assert is_switching(name)
    assert not is_switching("min-vae-grid")


def test_the_parts_sum_to_the_mixture_and_seeds_decide(system: Path) -> None:
    one, two = (enhancer(system)(sound(), RATE, lips(), seed=3) for _ in range(2))
    np.testing.assert_allclose(one.speech + one.noise, one.mixture)
    np.testing.assert_array_equal(one.speech, two.speech)
    assert not np.array_equal(one.speech, enhancer(system)(sound(), RATE, lips(), seed=4).speech)


def test_the_switches_are_probabilities_with_their_path(system: Path) -> None:
    found = enhancer(system)(sound(), RATE, lips()).switches
    assert found is not None
    assert found.names == ("lips", "sound")
    np.testing.assert_allclose(found.probabilities.sum(-1), 1, atol=1e-5)
    assert found.probabilities.shape == (len(found.times), 2)
    assert set(found.path) <= {0, 1}
    assert found.trust is not None
    assert ((found.trust >= 0) & (found.trust <= 1)).all()


def test_without_lips_the_modes_that_they_lead_are_out(system: Path) -> None:
    result = enhancer(system)(sound(), RATE, None)
    assert result.switches is not None
    assert (result.switches.probabilities == [0, 1]).all()
    assert (result.switches.path == 1).all()
    assert (result.switches.trust == 0).all()
    assert not result.used_video


def test_frames_without_a_face_have_no_trust(system: Path) -> None:
    valid = np.arange(25) < 12
    found = enhancer(system)(sound(), RATE, lips(valid)).switches
    assert found is not None
    assert found.trust is not None
    assert (found.trust[found.times > 0.6] == 0).all()
    assert found.trust[found.times < 0.4].max() > 0


def seen_for(loop: Switcher, frames: int) -> tuple[Block, Visual]:
    """A piece of 60 frames whose first ones have lips, and its lips."""
    trained = loop.parts[0].trained
    assert trained.lips is not None
    generator = torch.Generator().manual_seed(0)
    track = torch.randn(60, trained.lips.lips.dimension, generator=generator)
    visual = Visual(0.5 * trained.lips.typical**0.5 * track, torch.arange(60) < frames)
    power = torch.rand(60, trained.recipe.stft.bins, generator=generator)
    return Block(power, (visual,), 0), visual


def test_frames_near_lips_go_by_carried_ones(system: Path) -> None:
    """Without lips of its own the mode of the lips starts at the sound, the other one where carried lips are."""
    loop = enhancer(system).denoiser
    assert isinstance(loop, Switcher)
    piece, visual = seen_for(loop, 20)
    (modes,) = loop.modes(piece, loop.first_look(piece))
    trained = loop.parts[0].trained
    assert trained.lips is not None
    around = carried(visual, trained.lips.lips, trained.recipe.stft.hop / trained.recipe.stft.rate)
    reach = int(around.valid.sum())
    assert 20 < reach < 60
    mean, scale = gaussian_parameters(trained.model.prior.conditionals(around)[0])  # type: ignore[misc]
    lips, unled = (mode.source.start for mode in modes)
    torch.testing.assert_close(unled[:reach], mean[:reach])
    torch.testing.assert_close(unled[reach:], mean[reach - 1].expand(60 - reach, -1))
    torch.testing.assert_close(lips[:20], mean[:20])
    assert not torch.allclose(lips[20:], unled[20:])
    led = modes[0].source
    assert led.visual is not None
    assert torch.equal(led.visual.valid, around.valid)
    (prior,) = led.model.prior.conditionals(led.visual)
    wanted = torch.where(torch.arange(60)[:, None] < 20, scale, NARROW * scale)
    torch.testing.assert_close(gaussian_parameters(prior)[1][:reach], wanted[:reach])  # type: ignore[index]


def test_frames_far_from_lips_go_by_the_sound(system: Path) -> None:
    loop = enhancer(system).denoiser
    assert isinstance(loop, Switcher)
    (filtered,) = loop([seen_for(loop, 20)[0]])
    assert filtered.switch is not None
    found = loop.switches(np.arange(60) / 62.5, filtered.switch[0].numpy())
    assert found.trust is not None
    assert (found.trust[20:] == 0).all()
    assert found.probabilities[20:51, 0].max() > 0.01
    assert found.probabilities[52:, 0].max() < 1e-3
    assert (found.path[52:] == 1).all()


def test_pictures_left_out_are_judged_by_themselves(system: Path) -> None:
    """What stands around the instant of such a frame, which is wrong too, reaches neither the loop nor the trust."""
    loop = enhancer(system).denoiser
    assert isinstance(loop, Switcher)
    piece, visual = seen_for(loop, 60)
    lips = loop.parts[0].trained.lips
    assert lips is not None
    track = visual.features.unflatten(-1, (2 * lips.lips.context + 1, -1)).clone()
    track[20:40] *= 8
    found = []
    for shift in (0.0, 3.0):
        track[22:38, 0] += shift
        spoilt = Visual(track.flatten(1).clone(), visual.valid)
        shown = piece._replace(visuals=(spoilt,))
        (modes,) = loop.modes(shown, loop.first_look(shown))
        own = modes[1].source.visual
        assert own is not None
        assert not own.valid[20:40].any()
        assert own.valid[:16].all()
        (filtered,) = loop([shown])
        found.append(filtered)
    assert found[0].switch is not None
    assert found[1].switch is not None
    assert torch.equal(found[0].masks, found[1].masks)
    assert torch.equal(found[0].switch, found[1].switch)


def test_lips_that_the_sound_contradicts_are_left_out(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = enhancer(system).denoiser
    assert isinstance(loop, Switcher)
    piece, visual = seen_for(loop, 60)
    looks = loop.first_look(piece)
    speakers = loop.modes(piece, looks)
    *_, states = loop.states(piece, speakers)
    fit = states[0].means[1], states[0].scales[1], states[0].means[1][None]
    lips, sound = (divergence(mode.source.model.prior.components(visual), *fit) for mode in speakers[0])
    wanted = sound_evidence(sound, lips)
    assert wanted.std() > 0
    # Little is said in two iterations: enough to show whether it is this.
    (mild,) = loop.second_look(states, speakers, looks)
    assert mild.visual is looks[0].visual
    torch.testing.assert_close(mild.heard_evidence, wanted)
    said = torch.full((60,), 0.25)
    said[20:45] = -0.5
    monkeypatch.setattr(
        "pyro_minvae.inference.switching.reliability_pass.sound_evidence", lambda other, right: said
    )
    (second,) = loop.second_look(states, speakers, looks)
    assert second.visual is not None
    assert not second.visual.valid[22:43].any()
    assert second.visual.valid[:15].all()
    assert second.visual.valid[50:].all()
    # What was heard of them goes on counting in their trust.
    monkeypatch.setattr(
        "pyro_minvae.inference.switching.reliability_pass.sound_evidence",
        lambda other, right: torch.full((60,), 0.1),
    )
    (third,) = loop.second_look(states, loop.modes(piece, [second]), [second])
    assert third.heard_evidence is not None
    torch.testing.assert_close(third.heard_evidence, torch.where(second.visual.valid, 0.1, said))


@pytest.mark.parametrize(("lead", "trial"), [(0.5, 2), (0.7, 2), (1.0, 4)])
def test_the_loop_begins_anew_without_lips_that_are_left_out(
    system: Path, monkeypatch: pytest.MonkeyPatch, lead: float, trial: int
) -> None:
    """It gives what one gives that never had them; counted on, so that who watches sees one run."""
    loop = enhancer(system, f"switch.lead={lead}").denoiser
    assert isinstance(loop, Switcher)
    piece, visual = seen_for(loop, 60)
    fewer = Look(Visual(visual.features, torch.arange(60) < 30))
    monkeypatch.setattr(loop, "second_look", lambda *_: [fewer])
    seen: list[SwitchState] = []
    (anew,) = loop([piece], seen.append)  # type: ignore[arg-type]
    assert [state.iteration for state in seen] == list(range(1, trial + 5))
    assert anew.iterations == trial + 4
    monkeypatch.setattr(loop, "first_look", lambda _: [fewer])
    monkeypatch.setattr(loop, "second_look", lambda *said: said[-1])
    (never,) = loop([piece])
    assert never.iterations == 4
    assert torch.equal(anew.masks, never.masks)


def test_long_recordings_go_in_blocks(system: Path) -> None:
    made = enhancer(system, "inference.block_s=0.5", "inference.overlap_s=0.1")
    found = made(sound(), RATE, lips())
    assert found.switches is not None
    np.testing.assert_allclose(found.switches.probabilities.sum(-1), 1, atol=1e-5)
    assert np.isfinite(found.speech).all()


def test_the_filter_is_the_modes_average(system: Path) -> None:
    made = enhancer(system)
    assert isinstance(made.denoiser, Switcher)
    power = torch.rand(12, 513, generator=torch.Generator().manual_seed(0))
    visual = made.visual(lips(), 12)
    states: list[SwitchState] = []
    (filtered,) = made.denoiser([Block(power, (visual,), 0)], states.append)  # type: ignore[arg-type]
    state = states[-1]
    by_hand = torch.zeros_like(power)
    for k, variances in enumerate(state.variances):
        for variance in variances:
            by_hand += state.posterior[:, k, None] * variance / (variance + state.noise) / len(variances)
    torch.testing.assert_close(switched_mask(state), by_hand)
    torch.testing.assert_close(filtered.masks[0], (switched_mask(states[-2]) + by_hand) / 2)


def test_a_whole_model_is_a_mode_and_speakers_switch_without_lips(folder: Path) -> None:
    path = recipe(folder, "one=a", "two=a", "both=av:sound", name="voices")
    found = enhancer(path)(sound(), RATE, None).switches
    assert found is not None
    assert found.names == ("one", "two", "both")
    assert found.trust is None


@pytest.mark.parametrize(
    ("modes", "settings", "fault"),
    [
        (["one=av:lips"], [], "modes"),
        (["one=av:lips", "one=a"], [], "different names"),
        (["one=a:lips", "two=a"], [], "mixture prior"),
        (["one=missing", "two=a"], [], "expected a bundled model"),
        (["one=a:both", "two=a"], [], "component"),
        (["one=a", "two=a"], ["switch.temper=2"], "switch.temper"),
        (["one=a", "two=a"], ["model.latent=2"], "expected a setting of inference"),
        (["one=a", "two=a"], ["switch.colour=2"], "unknown key switch.colour"),
    ],
)
def test_faults_are_told_in_one_line(folder: Path, modes: list[str], settings: list[str], fault: str) -> None:
    path = recipe(folder, *modes, name="faulty")
    with pytest.raises(InputError, match=fault) as caught:
        Enhancer.from_pretrained(path, overrides=settings)
    assert "\n" not in str(caught.value)


def test_models_of_two_clocks_are_refused(folder: Path, tmp_path: Path) -> None:
    other = save_tiny_model(tmp_path / "other", video=False)
    config = other / "config.json"
    config.write_text(config.read_text().replace('"hop": 256', '"hop": 128'))
    path = recipe(folder, "one=a", f"two={other}", name="clocks")
    with pytest.raises(InputError, match="one stft"):
        Enhancer.from_pretrained(path)


def test_a_missing_recipe_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found no file"):
        Enhancer.from_pretrained(tmp_path / "none.toml")
    with pytest.raises(InputError, match="--preset odd"):
        Enhancer.from_pretrained("sw-vae", preset="odd")


@pytest.mark.parametrize("said", [[], ["inference.gain=false"]])
@pytest.mark.parametrize("name", ["sw-vae", "vae-mm", "sw-speakers"])
def test_what_is_not_said_suits_gradient_steps(name: str, said: list[str]) -> None:
    inference = Enhancer.from_pretrained(name, overrides=said).recipe.inference
    assert (inference.iterations, inference.average, inference.gain) == (50, 10, not said)


def test_presets_set_noise_and_inference() -> None:
    made = Enhancer.from_pretrained("vae-mm", preset="fast")
    assert isinstance(made.denoiser, Switcher)
    assert made.denoiser.recipe.inference.iterations == made.recipe.inference.iterations == 20
    assert made.denoiser.recipe.switch.kind == "independent"


def test_enhance_writes_the_modes_over_time(system: Path, tmp_path: Path) -> None:
    noisy, table = tmp_path / "noisy.wav", tmp_path / "modes.csv"
    write_audio(noisy, Audio(sound()[None], RATE, "PCM_16", "WAV"))
    said = CliRunner().invoke(
        app,
        [
            "enhance",
            str(noisy),
            "--model",
            str(system),
            "--out",
            str(tmp_path / "o.wav"),
            "--switches",
            str(table),
        ],
    )
    assert said.exit_code == 0, said.output
    with open(table, newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["time_s", "mode", "p_lips", "p_sound", "trust"]
    assert {row["mode"] for row in rows} == {"sound"}
    assert float(rows[-1]["time_s"]) == pytest.approx(SECONDS, abs=0.1)


@pytest.mark.parametrize("suffix", [".html", ".png"])
def test_the_report_shows_modes_and_trust(system: Path, tmp_path: Path, suffix: str) -> None:
    made, target = enhancer(system), tmp_path / f"report{suffix}"
    reporter = Reporter(target, made, lips())
    result = made(sound(), RATE, reporter.lips, watch=reporter.watch)
    drawn: list[str] = []
    diagnosis = diagnose(made, sound(), RATE, reporter.lips, result, reporter.watch)
    for panel in spectra(diagnosis):
        axis = Figure().add_subplot()
        panel.draw(axis)
        drawn.append(axis.get_title(loc="left"))
    assert [title.partition(":")[0] for title in drawn[-2:]] == ["modes", "trust"]
    assert {"mode lips", "mode sound", "trust in the lips"} <= set(numbers(diagnosis))
    # Given the filter the variance is below the noise's, and filters between 0 and 1 vary by a quarter at most.
    assert reporter.watch.state is not None
    most = reporter.watch.state.noise.numpy()[: len(diagnosis.times)] + diagnosis.mixture / 4
    assert (diagnosis.deviation**2 <= most + 1e-6).all()
    assert diagnosis.deviation.max() > 0
    reporter.write(Audio(sound()[None], RATE, "PCM_16", "WAV"), result, 0)
    assert target.stat().st_size > 10_000


def test_enhance_refuses_a_table_of_another_kind(system: Path, tmp_path: Path) -> None:
    noisy = tmp_path / "noisy.wav"
    write_audio(noisy, Audio(sound()[None], RATE, "PCM_16", "WAV"))
    said = CliRunner().invoke(app, ["enhance", str(noisy), "--model", str(system), "--switches", "modes.txt"])
    assert said.exit_code != 0
    assert not list(tmp_path.glob("*enhanced*"))
