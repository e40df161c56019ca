"""A contact sheet: what the model will see of the lips, for a person to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pyro_minvae.errors import InputError
from pyro_minvae.media.files import atomic
from pyro_minvae.media.video import read_frames
from pyro_minvae.types import MouthCrops

if TYPE_CHECKING:
    import numpy as np

    from pyro_minvae.media.mouths import Mouths

SUFFIXES = (".png", ".jpg", ".jpeg")
# Crops per row and in all (more are thinned out evenly), pixels per crop, of a caption and of the gaps.
COLUMNS, MOST, TILE, CAPTION, GAP = 15, 120, 72, 14, 4
WIDTH = COLUMNS * (TILE + GAP) + GAP
# Blue, green, red.
PAPER, INK, RED, GREEN = (255, 255, 255), (60, 60, 60), (0, 0, 220), (0, 200, 0)


class Framed(NamedTuple):
    """A whole picture [height, width, 3] in blue, green, red, its time (s), the mouth's box or None."""

    picture: np.ndarray
    time: float
    box: np.ndarray | None


def pick_frames(path: str | Path, mouths: Mouths, *, count: int = 4) -> list[Framed]:
    """`count` pictures spread over the video, with their mouth boxes."""
    import numpy as np

    wanted = set(np.unique(np.linspace(0, len(mouths.times) - 1, count).round().astype(int)).tolist())
    return [
        Framed(picture, time, mouths.boxes[n] if mouths.valid[n] else None)
        for n, (time, picture) in enumerate(read_frames(path, colour=True))
        if n in wanted
    ]


def check_name(path: str | Path) -> None:
    """Raise InputError unless the suffix of `path` is that of a picture that can be written."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise InputError(
            f"{path}: expected the name of a picture ({', '.join(SUFFIXES)}), found '{Path(path).suffix}'"
        )


def save_sheet(path: str | Path, lips: MouthCrops, *, frames: Sequence[Framed] = ()) -> None:
    """Write the sheet atomically: whole pictures with the mouth's box on top, then crops with their times.

    Crops are in order of time, row by row; invalid ones are red.

    Raises:
        InputError: for a suffix that is no picture's, or an unwritable place.
    """
    import cv2
    import numpy as np

    check_name(path)
    rows = [_top(frames)] if frames else []
    shown = np.unique(np.linspace(0, len(lips.crops) - 1, min(MOST, len(lips.crops))).round().astype(int))
    tiles = [_tile(lips.crops[n], float(lips.times[n]), bool(lips.valid[n])) for n in shown]
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % COLUMNS)
    rows += [np.hstack(tiles[start : start + COLUMNS]) for start in range(0, len(tiles), COLUMNS)]
    padded = [cv2.copyMakeBorder(row, 0, 0, GAP, 0, cv2.BORDER_CONSTANT, value=PAPER) for row in rows]
    _, code = cv2.imencode(Path(path).suffix.lower(), np.vstack(padded))
    with atomic(path) as temporary:
        temporary.write_bytes(code.tobytes())


def _tile(crop: np.ndarray, time: float, valid: bool) -> np.ndarray:
    """One crop under its time."""
    import cv2
    import numpy as np

    tile = np.full((CAPTION + TILE + GAP, TILE + GAP, 3), 255, np.uint8)
    _write(tile, f"{time:.2f} s", INK if valid else RED)
    body = cv2.cvtColor(cv2.resize(crop, (TILE, TILE), interpolation=cv2.INTER_AREA), cv2.COLOR_GRAY2BGR)
    if not valid:
        body = cv2.addWeighted(body, 0.5, np.full_like(body, RED), 0.5, 0)
    tile[CAPTION : CAPTION + TILE, :TILE] = body
    return tile


def _top(frames: Sequence[Framed]) -> np.ndarray:
    """The whole pictures in one row, as wide as the rows of crops."""
    import cv2
    import numpy as np

    width = (WIDTH - GAP) // len(frames) - GAP
    cells = []
    for frame in frames:
        scale = width / frame.picture.shape[1]
        height = max(1, round(frame.picture.shape[0] * scale))
        body = cv2.resize(frame.picture, (width, height), interpolation=cv2.INTER_AREA)
        if frame.box is not None:
            x, y, half = (float(value) * scale for value in (*frame.box[:2], frame.box[2] / 2))
            corners = (round(x - half), round(y - half)), (round(x + half), round(y + half))
            cv2.rectangle(body, *corners, GREEN, 1)
        else:
            cv2.rectangle(body, (0, 0), (width - 1, height - 1), RED, 3)
        cell = np.full((CAPTION + height + GAP, width + GAP, 3), 255, np.uint8)
        _write(cell, f"{frame.time:.2f} s", RED if frame.box is None else INK)
        cell[CAPTION : CAPTION + height, :width] = body
        cells.append(cell)
    tallest = max(cell.shape[0] for cell in cells)
    row = np.full((tallest, WIDTH - GAP, 3), 255, np.uint8)
    for n, cell in enumerate(cells):
        row[: cell.shape[0], n * (width + GAP) : (n + 1) * (width + GAP)] = cell
    return row


def _write(picture: np.ndarray, text: str, colour: tuple[int, int, int]) -> None:
    import cv2

    cv2.putText(picture, text, (1, CAPTION - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.35, colour, 1, cv2.LINE_AA)
