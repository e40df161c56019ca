"""How new the lips of every face are to a model, and what its limit lets through.

    python benchmarks/gate.py [--model min-vae-grid] [--each 7]

Prints the least, middle and largest novelty of unaugmented clips, and how many of them the model's limit accepts: for
the face that the model learnt (clips of GRID's validation list), and for faces that it never saw. The corpora are in
DATA: `grid/s1`, `grid/val.txt`, `grid_faces/<speaker>`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from pyro_minvae.media.mouths import read_lips
from pyro_minvae.systems.checkpoint import load_model


def clips(root: Path, each: int) -> dict[str, list[Path]]:
    """Some clips of each face, those of the first one from the validation list."""
    lines = (root / "grid" / "val.txt").read_text(encoding="utf-8").splitlines()
    known = [root / "grid" / "s1" / f"{Path(line.strip()).stem}.mkv" for line in lines if line.strip()]
    found = {"s1 (learnt)": spread([path for path in known if path.exists()], 3 * each)}
    for folder in sorted(path for path in (root / "grid_faces").iterdir() if path.is_dir()):
        found[folder.name] = spread(sorted(folder.glob("*.mkv")), each)
    return found


def spread(paths: Sequence[Path], count: int) -> list[Path]:
    """At most `count` of them, evenly."""
    return list(paths[:: max(1, len(paths) // count)][:count])


def main() -> None:
    """Print a row for each face."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?", default=os.environ.get("PYRO_MINVAE_DATA"))
    parser.add_argument("--model", default="min-vae-grid")
    parser.add_argument("--each", type=int, default=7, help="clips of each face")
    options = parser.parse_args()
    if options.data is None:
        parser.error("expected DATA or PYRO_MINVAE_DATA")
    trained = load_model(options.model)
    if trained.lips is None:
        sys.exit(f"error: {options.model}: expected a model that looks at lips")
    limit, size = float(trained.lips.limit), trained.recipe.crops.size
    print(f"{'face':14} {'clips':>5} {'least':>6} {'middle':>6} {'most':>6}   accepted (limit {limit:.3f})")
    for face, paths in clips(Path(options.data), options.each).items():
        scores = [trained.lips.novelty(read_lips(str(path), size=size)) for path in paths]
        accepted = sum(score <= limit for score in scores)
        low, middle, high = min(scores), statistics.median(scores), max(scores)
        print(f"{face:14} {len(scores):5} {low:6.3f} {middle:6.3f} {high:6.3f}   {accepted} of {len(scores)}")


if __name__ == "__main__":
    main()
