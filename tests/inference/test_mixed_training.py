"""Stages whose guide hears mixed speech: what reaches model and guide, fixed validation, resuming, refusals, bounds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_training import RATE, tiny_recipe, utterances
from torch import Tensor

from pyro_minvae.checks.draws import draws_for
from pyro_minvae.checks.encoder_input import Hearing, in_a_mixture
from pyro_minvae.checks.integrals import integrals
from pyro_minvae.checks.subject import Frames, Subject, synthetic, toy
from pyro_minvae.config.load import load_recipe, override_recipe
from pyro_minvae.config.schema import Recipe
from pyro_minvae.errors import InputError
from pyro_minvae.guides.mixture import MixtureGuide
from pyro_minvae.guides.speech import SpeechGuide
from pyro_minvae.inference.svi import batches
from pyro_minvae.inference.svi.batches import StageData, TrainingError
from pyro_minvae.inference.svi.elbo import bound_terms
from pyro_minvae.inference.svi.trainer import EpochEvent, StageRunner, StepEvent, train
from pyro_minvae.systems.system import System
from pyro_minvae.types import Prepared

RECIPES = ("av-separation", "av-separation-speaker", "a-separation")
STFT = (
    f"stft.rate={RATE}",
    "stft.window=32",
    "stft.hop=16",
    "crops.size=8",
    "lips.components=3",
    "lips.context=1",
)
SIZES = ("model.latent=2", "model.decoder.hidden=[8]", "training.batch=32", "training.segment=8")


def small(name: str, *overrides: str) -> Recipe:
    """A recipe of separation with networks and features for half a second at 1 kHz, and two epochs a stage."""
    layers = ["guide.joint.width=6", "guide.joint.dilations=[1, 2]", "model.prior.hidden=[6]"]
    recipe = load_recipe(name, [*STFT, *SIZES, *(layers if name.startswith("av") else [])])
    epochs = [f"training.stages.{n}.epochs=2" for n in range(len(recipe.training.stages))]
    return override_recipe(recipe, [*epochs, *overrides])


def corpus() -> list[Prepared]:
    """Clips with lips, and voices without."""
    return [*utterances(4), *utterances(2, video=False, seed=20)]


def mixed_stage(recipe: Recipe) -> int:
    return next(n for n, stage in enumerate(recipe.training.stages) if stage.mix_speech is not None)


def data_of(recipe: Recipe, fit: list[Prepared], held_out: list[Prepared], *, coupled: bool) -> StageData:
    stage = recipe.training.stages[mixed_stage(recipe)]
    return StageData(recipe, stage, fit, held_out, lips=None, coupled=coupled, device="cpu")


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_train_every_stage(name: str) -> None:
    recipe = small(name)
    torch.manual_seed(0)
    system = System(recipe)
    before = {key: value.clone() for key, value in system.state_dict().items()}
    events = list(train(system, corpus(), utterances(2, seed=9)))
    losses: dict[str, list[float]] = {}
    for event in events:
        if isinstance(event, StepEvent):
            losses.setdefault(event.stage, []).append(event.loss)
    assert set(losses) == {stage.name for stage in recipe.training.stages}
    assert all(len(of_stage) >= 2 for of_stage in losses.values())
    assert all(torch.tensor(of_stage).isfinite().all() for of_stage in losses.values())
    for part in ("decoder", "joint" if name.startswith("av") else "audio"):
        moved = {id(p) for p in system.parameters_of(part)}
        names = [key for key, p in system.named_parameters() if id(p) in moved]
        assert any(not torch.equal(before[key], system.state_dict()[key]) for key in names)


@pytest.mark.parametrize("name", ["av-separation", "a-separation"])
def test_the_guide_hears_the_mixture_and_the_model_explains_the_voice(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where validation is: heard is the power of a mixture, the target is that of one clean voice."""
    recipe = small(name)
    torch.manual_seed(0)
    system, number = System(recipe), mixed_stage(recipe)
    if system.lips is not None:
        system.lips.fit([u.lips for u in corpus() if u.lips is not None])
    runner = StageRunner(system, number, corpus(), utterances(2, seed=9), "cpu")
    seen: list[tuple[Tensor, Tensor]] = []
    own = runner.guide.network.posteriors

    def listen(power: Tensor, visual: Any, encoder_input: Tensor | None = None) -> Any:
        assert encoder_input is not None
        seen.append((power, encoder_input))
        return own(power, visual, encoder_input)

    monkeypatch.setattr(runner.guide.network, "posteriors", listen)
    clean = runner.data.fit.power
    for event in runner.run(None):
        if isinstance(event, EpochEvent):
            break
    assert len(seen) > 3
    flat = [(power.flatten(0, -2), encoder_input.flatten(0, -2)) for power, encoder_input in seen]
    assert all(not torch.allclose(power, encoder_input) for power, encoder_input in flat)
    # Up to its level every target is a frame of a clean utterance, fitted or held out.
    shapes = torch.cat([clean, runner.data.held_out.power])
    shapes = shapes / shapes.norm(dim=-1, keepdim=True)
    for power, _ in flat:
        cosine = (power / power.norm(dim=-1, keepdim=True)) @ shapes.T
        assert float(cosine.max(-1).values.min()) > 0.99999


@pytest.mark.parametrize("coupled", [False, True])
def test_an_epoch_holds_each_frame_once_and_the_next_is_mixed_anew(
    coupled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Parts of two, so that several make an epoch.
    monkeypatch.setattr(batches, "MIXED_AT_ONCE", 2)
    recipe = small("a-separation", "training.level_db=[0, 0]")
    fit = utterances(5, video=False)
    data = data_of(recipe, fit, utterances(2, seed=9), coupled=coupled)

    def epoch(seed: int) -> tuple[Tensor, Tensor]:
        found = list(data.epoch(torch.Generator().manual_seed(seed)))
        assert len(found) <= data.steps()
        assert all(
            batch.encoder_input is not None and batch.encoder_input.shape == batch.power.shape
            for batch in found
        )
        assert all(batch.power.shape[1] == 8 for batch in found) if coupled else True
        power = torch.cat([batch.power.flatten(0, -2) for batch in found])
        return power, torch.cat(
            [batch.encoder_input.flatten(0, -2) for batch in found if batch.encoder_input is not None]
        )

    (power, encoder_input), (again, heard_again), (_, other) = epoch(0), epoch(0), epoch(1)
    assert torch.equal(power, again)
    assert torch.equal(encoder_input, heard_again)
    assert encoder_input.shape != other.shape or not torch.allclose(encoder_input, other)
    clean = data.fit.power
    if not coupled:
        assert power.shape == clean.shape
    # Which clean frame each target is: none comes twice.
    cosine = (power / power.norm(dim=-1, keepdim=True)) @ (clean / clean.norm(dim=-1, keepdim=True)).T
    assert len(set(cosine.argmax(-1).tolist())) == len(power)
    # Mixtures are louder than the voices in them, on average.
    assert float(encoder_input.sum()) > 1.1 * float(power.sum())


@pytest.mark.parametrize("coupled", [False, True])
def test_validation_is_mixed_once_for_all(coupled: bool) -> None:
    recipe = small("a-separation")
    held_out = utterances(3, video=False, seed=9)
    one, two = (
        list(data_of(recipe, utterances(count, video=False), held_out, coupled=coupled).validation())
        for count in (3, 4)
    )
    assert len(one) == len(two) == (3 if coupled else 1)
    for a, b in zip(one, two, strict=True):
        assert a.encoder_input is not None
        assert b.encoder_input is not None
        # Held-out clips are mixed with each other: what is fitted has no say.
        assert torch.equal(a.encoder_input, b.encoder_input)
        assert torch.equal(a.power, b.power)
    other = small("a-separation", "seed=1")
    for a, b in zip(one, data_of(other, utterances(3), held_out, coupled=coupled).validation(), strict=True):
        assert a.encoder_input is not None
        assert b.encoder_input is not None
        assert not torch.allclose(a.encoder_input, b.encoder_input)


def test_a_single_clip_held_out_is_mixed_with_those_to_fit() -> None:
    recipe = small("a-separation")
    (batch,) = data_of(recipe, utterances(3), utterances(1, seed=9), coupled=False).validation()
    assert batch.encoder_input is not None
    assert not torch.allclose(batch.encoder_input, batch.power)


def test_lips_stay_with_their_target() -> None:
    """In every batch the lips are those of the frames to explain, whatever is mixed in."""
    recipe = small("av-separation", "training.level_db=[0, 0]")
    stage = recipe.training.stages[mixed_stage(recipe)]
    fit = utterances(5)
    lips = System(recipe).lips
    assert lips is not None
    lips.fit([u.lips for u in fit if u.lips is not None])
    data = StageData(recipe, stage, fit, utterances(2, seed=9), lips=lips, coupled=True, device="cpu")
    clean = data.fit.power / data.fit.power.norm(dim=-1, keepdim=True)
    whole = data.fit.visual(lips)
    for power, visual, _ in data.epoch(torch.Generator().manual_seed(0)):
        assert visual is not None
        rows = ((power / power.norm(dim=-1, keepdim=True)).flatten(0, 1) @ clean.T).argmax(-1)
        assert torch.equal(visual.features.flatten(0, 1), whole.features[rows])
        assert torch.equal(visual.valid.flatten(), whole.valid[rows])


@pytest.mark.parametrize("name", RECIPES)
def test_resuming_after_any_epoch_gives_the_same_weights(name: str) -> None:
    recipe = small(name)
    torch.manual_seed(0)
    whole = System(recipe)
    speech = corpus(), utterances(2, seed=9)
    kept = [event for event in train(whole, *speech) if isinstance(event, EpochEvent)]
    for index, event in enumerate(kept):
        torch.manual_seed(99 + index)
        resumed = System(recipe)
        rest = [e for e in train(resumed, *speech, resume=event.state) if isinstance(e, EpochEvent)]
        assert [e.terms for e in rest] == [e.terms for e in kept[index + 1 :]]
        for key, value in whole.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[key]), key


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("1.corrupt_audio=0.5", "1.mix_speech: expected corrupt_audio = 0 with it, found 0.5"),
        ("1.guide=visual", "1.mix_speech: expected a guide that hears sound, found visual"),
        ("1.mix_speech=[5, -5]", "1.mix_speech: expected the lower level first, found 5 and -5"),
    ],
)
def test_what_cannot_be_mixed_is_refused_in_a_line(override: str, complaint: str) -> None:
    with pytest.raises(InputError) as refusal:
        small("av-separation", f"training.stages.{override}")
    assert str(refusal.value) == f"--set: training.stages.{complaint}"


def test_one_utterance_cannot_be_mixed() -> None:
    recipe = small("a-separation")
    silent = utterances(1)[0]
    silent = silent._replace(waveform=0 * silent.waveform)
    with pytest.raises(TrainingError, match=r"stage mixed: expected at least 2 utterances .*, found 1"):
        data_of(recipe, [utterances(1)[0], silent], utterances(2, seed=9), coupled=False)


def test_a_guide_with_a_switch_looks_at_single_frames() -> None:
    class Around(MixtureGuide):
        reach = 2

    system = System(tiny_recipe("min-vae"))
    guide = Around(system.networks["audio"], system.networks["visual"])
    with pytest.raises(
        ValueError, match="expected a mixture guide that looks at single frames, found Around"
    ):
        SpeechGuide(system.model(), guide)


def gap_of(subject: Subject, frames: Frames) -> tuple[Tensor, Tensor, Tensor]:
    """(log p(s | v), the bound, KL(q(z | x, v) || p(z | s, v))) of each frame, by quadrature."""
    found, truth = integrals(subject, frames, draws_for(subject, frames, 16, 0), None)
    return truth.log_evidence, found.pyro, found.gap


@pytest.mark.parametrize("guide", ["mixed-speech", "concatenation", "product", "audio"])
def test_whatever_is_heard_the_bound_holds(guide: str) -> None:
    """(7.9): log p(s_j | v_j) less the bound is KL(q(z_j | x, v_j) || p(z_j | s_j, v_j)), for every mixture x."""
    recipe = small("av-separation", f"guide={{kind='{guide}'}}", "training.stages=[{name='all', epochs=1}]")
    subject = toy(override_recipe(recipe, ["training.stages.0.mix_speech=[-5, 5]"]), 0)
    frames = synthetic(subject, 4, 0)
    bounds = []
    for seed in range(3):
        hearing = in_a_mixture(subject, frames, seed)
        assert isinstance(hearing.guide, Hearing)
        evidence, bound, gap = gap_of(hearing, frames)
        assert float(gap.min()) > 0
        torch.testing.assert_close(evidence - bound, gap, rtol=1e-6, atol=1e-8)
        bounds.append(bound)
    # The evidence of the clean voice does not depend on what is heard; the bound does.
    torch.testing.assert_close(evidence, gap_of(subject, frames)[0])
    assert not torch.allclose(bounds[0], bounds[1])


def test_the_bounds_of_all_voices_in_a_mixture_add_up_to_a_bound() -> None:
    """sum_j of (7.9) <= sum_j log p(s_j | v_j) when both voices hear one mixture; `bound_terms` agrees on average."""
    subject = toy(small("av-separation"), 1)
    voices = [synthetic(subject, 4, seed) for seed in (1, 2)]
    encoder_input = voices[0].power + voices[1].power
    total, evidence = torch.zeros(4).double(), torch.zeros(4).double()
    for frames in voices:
        of_one, bound, _ = gap_of(subject._replace(guide=Hearing(subject.guide, encoder_input)), frames)
        torch.manual_seed(0)
        with torch.no_grad():
            draws = [
                bound_terms(subject.model, subject.guide, *frames, encoder_input=encoder_input).total
                for _ in range(800)
            ]
        mean, error = torch.stack(draws).mean(0), torch.stack(draws).std(0) / 800**0.5
        assert bool(((mean - bound).abs() < 5 * error).all())
        total, evidence = total + bound, evidence + of_one
    assert bool((total < evidence).all())
