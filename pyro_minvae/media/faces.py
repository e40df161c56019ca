"""Where a face is in every frame of a video: detected now and then, followed by overlap, smoothed in time.

A box is a row (centre x, centre y, side) in pixels: OpenCV's Haar cascade returns squares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from pyro_minvae.errors import InputError

if TYPE_CHECKING:
    import numpy as np

# Which faces of a video speak: all, or these from left to right ("left", "right", or the n-th from the left).
Faces = Literal["all"] | Sequence[int | Literal["left", "right"]]

# Whose lips of a video: the face of most area over time, or one from the left to the right (0, 1, ... from the left).
Face = Literal["largest", "left", "right"] | int

# From a grey picture [height, width] to the boxes [M, 3] of the faces in it.
Detector = Callable[["np.ndarray"], "np.ndarray"]

# Seconds between detections: the head moves little in between and detection is the costly step (20 ms).
DETECT_S = 0.16
# Frames between two detections are valid if these are no further apart: one miss is bridged, two are a gap.
BRIDGE_S = 0.4
# Standard deviation (s) of the smoothing: the cascade's boxes jump by 1 to 2 % of their side, heads drift
# slower.
SMOOTH_S = 0.2
# The longer side of the picture that is searched (pixels), and the smallest face in parts of its shorter
# side.
SEARCHED = 480
SMALLEST = 1 / 8
# Least overlap (intersection over union) of one face in consecutive detections.
OVERLAP = 0.2
# A face that was lost is the same as one found later if that lies this near (in parts of its side) and is as large, to
# within this factor.
NEAR, ALIKE = 1.5, 1.5
# A face to be counted from the left is seen at least this often relative to the face seen most often.
PRESENCE = 0.2
# The largest face is in doubt if another has this share of its area over time.
IN_DOUBT = 0.5


class Track(NamedTuple):
    """One face: the `steps` [M] (indices of detections) at which it was found, its `boxes` [M, 3]."""

    steps: list[int]
    boxes: list[np.ndarray]


def haar() -> Detector:
    """OpenCV's frontal face cascade, on one thread."""
    import cv2
    import numpy as np

    # Videos are prepared in parallel processes, which would fight for the processors.
    cv2.setNumThreads(1)
    cascades = Path(cv2.__file__).parent / "data"
    cascade = cv2.CascadeClassifier(str(cascades / "haarcascade_frontalface_default.xml"))

    def detect(grey: np.ndarray) -> np.ndarray:
        height, width = grey.shape
        scale = min(1.0, SEARCHED / max(height, width))
        small = (
            grey if scale == 1.0 else cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        )
        least = max(24, round(SMALLEST * min(small.shape)))
        found = cascade.detectMultiScale(small, scaleFactor=1.1, minNeighbors=5, minSize=(least, least))
        corners = np.asarray(found, np.float64).reshape(-1, 4) / scale
        return np.column_stack(
            [corners[:, 0] + corners[:, 2] / 2, corners[:, 1] + corners[:, 3] / 2, corners[:, 2]]
        )

    return detect


def find_tracks(detections: Iterable[np.ndarray]) -> list[Track]:
    """Link boxes [M, 3] of consecutive detections, the best overlap first; single finds are dropped."""
    tracks: list[Track] = []
    steps = 0
    for step, boxes in enumerate(detections):
        steps += 1
        pairs = sorted(
            (
                (overlap(track.boxes[-1], box), t, b)
                for t, track in enumerate(tracks)
                for b, box in enumerate(boxes)
            ),
            reverse=True,
        )
        taken: set[int] = set()
        continued: set[int] = set()
        for share, t, b in pairs:
            if share > OVERLAP and t not in continued and b not in taken:
                tracks[t].steps.append(step)
                tracks[t].boxes.append(boxes[b])
                continued.add(t)
                taken.add(b)
        tracks.extend(Track([step], [box]) for b, box in enumerate(boxes) if b not in taken)
    # The cascade now and then sees a face in a curtain, but not twice in the same place.
    return [track for track in tracks if len(track.steps) >= min(2, steps)]


def choose(tracks: list[Track], face: Face) -> Track | None:
    """The track of most area over time, the one at the left, at the right or n-th from the left; None without faces.

    Raises:
        InputError: when there are faces, but fewer than asked for.
    """
    if not tracks:
        return None
    if face == "largest":
        return max(tracks, key=area)
    lasting = from_left(tracks)
    place = {"left": 0, "right": len(lasting) - 1}[face] if isinstance(face, str) else face
    if not 0 <= place < len(lasting):
        raise InputError(f"expected a face from 0 to {len(lasting) - 1} (from the left), found face {place}")
    return lasting[place]


def area(track: Track) -> float:
    """The area of a face summed over time (pixels)."""
    return float(sum(box[2] ** 2 for box in track.boxes))


def doubt(tracks: list[Track]) -> str:
    """Which of how many faces the largest is, where another is nearly as large; else nothing."""
    lasting = from_left(joined(tracks))
    areas = [area(track) for track in lasting]
    if sum(one >= IN_DOUBT * max(areas) for one in areas) < 2:
        return ""
    return (
        f"{len(lasting)} faces, of which the largest, face {areas.index(max(areas))} from the left, is taken"
    )


def choose_several(tracks: list[Track], faces: Faces) -> list[Track]:
    """The faces that are asked for, one track each, in that order; "all" from left to right.

    A face that was lost and found again nearby is one face.

    Raises:
        InputError: when there are fewer faces than asked for, none at all, or one is asked for twice.
    """
    lasting = from_left(joined(tracks))
    wanted = range(len(lasting)) if faces == "all" else faces
    least = max(1, len(wanted), *(face + 1 for face in wanted if isinstance(face, int)))
    if len(lasting) < least:
        raise InputError(f"expected at least {least} face{'s' * (least > 1)}, found {len(lasting)}")
    ends = {"left": 0, "right": len(lasting) - 1}
    places = [face if isinstance(face, int) else ends[face] for face in wanted]
    if len(set(places)) < len(places):
        raise InputError(f"expected different faces, found face {max(places, key=places.count)} twice")
    return [lasting[place] for place in places]


def from_left(tracks: list[Track]) -> list[Track]:
    """The tracks that last, from left to right."""
    import numpy as np

    most = max((len(track.steps) for track in tracks), default=0)
    lasting = [track for track in tracks if len(track.steps) >= PRESENCE * most]
    return sorted(lasting, key=lambda track: float(np.mean([box[0] for box in track.boxes])))


def joined(tracks: list[Track]) -> list[Track]:
    """Tracks of one face made one: a track goes on with the nearest of those that begin after its end."""
    whole = [Track(list(track.steps), list(track.boxes)) for track in tracks]
    while True:
        pairs = [
            (distance, i, k)
            for i, one in enumerate(whole)
            for k, later in enumerate(whole)
            if one.steps[-1] < later.steps[0]
            and (distance := _distance(one.boxes[-1], later.boxes[0])) < NEAR
        ]
        if not pairs:
            return whole
        _, i, k = min(pairs)
        whole[i].steps.extend(whole[k].steps)
        whole[i].boxes.extend(whole[k].boxes)
        del whole[k]


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """Between the centres of two boxes, in parts of the larger side; infinite for boxes that differ in size."""
    small, large = sorted((float(one[2]), float(other[2])))
    if large > ALIKE * small:
        return float("inf")
    return float(((one[0] - other[0]) ** 2 + (one[1] - other[1]) ** 2) ** 0.5) / large


def follow(track: Track | None, detected: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [T, 3] at `times` [T] and valid [T] from a track with detections at the times `detected`.

    Boxes are interpolated linearly between detections up to `BRIDGE_S` apart and smoothed by a symmetric
    (zero-delay) Gaussian; frames outside are invalid and their boxes are zero.
    """
    import numpy as np
    from scipy.ndimage import gaussian_filter1d, median_filter

    boxes, valid = np.zeros((len(times), 3)), np.zeros(len(times), bool)
    if track is None:
        return boxes, valid
    at = detected[track.steps]
    spacing = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    for piece in np.split(np.arange(len(at)), np.flatnonzero(np.diff(at) > BRIDGE_S) + 1):
        inside = np.flatnonzero((times >= at[piece[0]]) & (times <= at[piece[-1]]))
        # The median removes a single box of a wrong size, which an average would smear.
        found = median_filter(np.asarray(track.boxes)[piece], size=(3, 1), mode="nearest")
        between = np.column_stack([np.interp(times[inside], at[piece], column) for column in found.T])
        boxes[inside] = gaussian_filter1d(between, SMOOTH_S / spacing, axis=0, mode="nearest")
        valid[inside] = True
    return boxes, valid


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    low = max(one[0] - one[2] / 2, other[0] - other[2] / 2), max(one[1] - one[2] / 2, other[1] - other[2] / 2)
    high = (
        min(one[0] + one[2] / 2, other[0] + other[2] / 2),
        min(one[1] + one[2] / 2, other[1] + other[2] / 2),
    )
    shared = max(high[0] - low[0], 0.0) * max(high[1] - low[1], 0.0)
    return float(shared / max(one[2] ** 2 + other[2] ** 2 - shared, 1e-12))
