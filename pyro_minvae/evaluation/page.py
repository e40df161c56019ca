"""A diagnosis as a file: one HTML page that needs nothing from outside, or one PNG figure."""

from __future__ import annotations

import base64
import html
import io
import math
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pyro_minvae.errors import InputError
from pyro_minvae.media.files import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pyro_minvae.evaluation.diagnosis import Diagnosis
    from pyro_minvae.inference.mcem.loop import EMState
    from pyro_minvae.pipelines.enhancer import Enhancer
    from pyro_minvae.pipelines.recording import Enhanced
    from pyro_minvae.types import Audio, MouthCrops

SUFFIXES = (".html", ".png")
DPI = 110

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 1100px;
       margin: 1.5rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 0.3rem; }
p { max-width: 75ch; margin: 0.3rem 0 0.8rem; }
img { width: 100%; height: auto; }
table { border-collapse: collapse; } td { padding: 0.1rem 1.2rem 0.1rem 0; }
td + td { text-align: right; font-variant-numeric: tabular-nums; }
"""

SPECTRA = (
    "Powers on the model's own short-time Fourier transform, all on the mixture's scale. The last map is the "
    "posterior standard deviation of the estimate: where it is as bright as the estimate itself, the model is not "
    "sure of it."
)

SAMPLER = (
    "The sampler ran once more after the enhancement, with noise and gains fixed where it ended: {ours} chains from "
    "the enhancement's last draws and {others} from draws of the prior, warmed up for {warmup} moves and followed for "
    "{steps} more. These draws are not part of the output. R-hat below {bad} says that chains end up in the same "
    "place wherever they start; above it they do not within this many moves, so that the estimate rests on the guide's "
    "choice of where chains begin as well as on the sound. Effective draws are how many independent ones would tell "
    "as much. Acceptance and uncertainty are those of the chains from the enhancement's last draws."
)

UNADJUSTED = "Unadjusted Langevin dynamics accept every move, and what they mix to is slightly off."

GUIDANCE = "Which network explains each frame, and in which frames of the video a face was found."

EM = (
    "What the enhancement climbed. It may jitter, as every iteration draws anew, and should have levelled off at the "
    "end."
)


def check_report(path: Path) -> None:
    """Raise `InputError` unless the name is that of a report."""
    if path.suffix.lower() not in SUFFIXES:
        found = path.suffix or "no suffix"
        raise InputError(f"{path}: expected the name of a report, .html or .png, found {found}")


class Reporter:
    """The report of one enhancement, from before it to after it.

    Give the enhancer `watch` and, in place of the video, `lips` where there are any; then call `write`.
    """

    def __init__(
        self,
        path: Path,
        enhancer: Enhancer,
        video: str | Path | MouthCrops | None,
        *,
        watch: Callable[[EMState], None] | None = None,
        title: str = "",
    ) -> None:
        from pyro_minvae.evaluation.diagnosis import Watched

        check_report(path)
        self.path, self.enhancer, self.title = path, enhancer, title
        self.lips, self.watch = enhancer.lips(video), Watched(watch)

    def write(self, audio: Audio, result: Enhanced, seed: int) -> None:
        """Diagnose and write.

        Raises:
            InputError: if the file cannot be written.
        """
        from pyro_minvae.evaluation.diagnosis import diagnose

        diagnosis = diagnose(
            self.enhancer, audio.waveform, audio.rate, self.lips, result, self.watch, seed=seed
        )
        write_report(self.path, diagnosis, title=self.title)


def write_report(path: str | Path, diagnosis: Diagnosis, *, title: str = "") -> None:
    """Write a page (`.html`) or a picture (`.png`), whole or not at all.

    Raises:
        InputError: for another suffix, or where the file cannot be written.
    """
    path = Path(path)
    check_report(path)
    whole = path.suffix.lower() == ".html"
    data = page(diagnosis, title).encode("utf-8") if whole else picture(diagnosis, title)
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def picture(diagnosis: Diagnosis, title: str = "") -> bytes:
    """All panels and the numbers in one figure, a PNG."""
    from pyro_minvae.evaluation.panels import em, figure, guidance, sampler, spectra

    panels = [panel for group in (spectra, sampler, guidance, em) for panel in group(diagnosis)]
    cells = [f"{name}: {value}" for name, value in figures(diagnosis)]
    lines = textwrap.wrap(headline(diagnosis, title), 110)
    lines += ["   ".join(cells[first : first + 3]) for first in range(0, len(cells), 3)]
    return _png(figure(panels, "\n".join(lines)))


def page(diagnosis: Diagnosis, title: str = "") -> str:
    """The report as HTML, with its pictures inside."""
    from pyro_minvae.evaluation.panels import em, figure, guidance, sampler, spectra

    sections = [_section("Spectrograms", SPECTRA, figure(spectra(diagnosis)))]
    for heading, text, panels in (
        ("Sampler", _sampler_text(diagnosis), sampler(diagnosis)),
        ("Sound and lips", GUIDANCE, guidance(diagnosis)),
        ("Expectation-maximisation", EM, em(diagnosis)),
    ):
        if panels:
            sections.append(_section(heading, text, figure(panels)))
    rows = "\n".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>"
        for name, value in figures(diagnosis)
    )
    head = html.escape(title or "Enhancement")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{head}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{head}</h1>
<p>{html.escape(headline(diagnosis))}</p>
<table>
{rows}
</table>
{"".join(sections)}</body>
</html>
"""


def headline(diagnosis: Diagnosis, title: str = "") -> str:
    """What was enhanced, by what, and how much of it is shown."""
    part = f"{diagnosis.duration:.2f} s"
    if diagnosis.seconds < diagnosis.duration - 0.01:
        part = f"the first {diagnosis.seconds:.2f} s of {part}"
    lips = f"audio-only ({diagnosis.without_video})" if diagnosis.without_video else "audio-visual"
    silent = "" if len(diagnosis.objective) else ", silence: nothing to infer"
    said = f"{part}, model {diagnosis.model}, {lips}, sampler {diagnosis.kernel}{silent}"
    return f"{title}: {said}" if title else said


def figures(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    """The numbers as they are read."""
    from pyro_minvae.evaluation.diagnosis import numbers

    return [(name, _said(value)) for name, value in numbers(diagnosis).items()]


def _said(value: float) -> str:
    if math.isnan(value):
        return "NaN (never moved)"
    if math.isinf(value):
        return "infinite (stuck)"
    if abs(value) < 0.001:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"


def _sampler_text(diagnosis: Diagnosis) -> str:
    from pyro_minvae.evaluation.diagnosis import BAD_RHAT
    from pyro_minvae.inference.mcmc.mixing import FROM_EM, FROM_PRIOR, STEPS, WARMUP

    text = SAMPLER.format(ours=FROM_EM, others=FROM_PRIOR, warmup=WARMUP, steps=STEPS, bad=BAD_RHAT)
    return f"{text} {UNADJUSTED}" if diagnosis.kernel == "langevin" else text


def _section(heading: str, text: str, figure: Figure) -> str:
    data = base64.b64encode(_png(figure)).decode("ascii")
    return (
        f"<h2>{heading}</h2>\n<p>{html.escape(text)}</p>\n"
        f'<img alt="{heading}" src="data:image/png;base64,{data}">\n'
    )


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DPI)
    return stream.getvalue()
