#!/usr/bin/env bash
# PyAV 18.1.0: H.264 with two B-frames, written by PyAV itself. Out of Matroska and MP4 the decoded frames carry the times
# 0, .04, .08, ...; out of AVI and ASF, which store no times of display, .04 .12 .16 .08 .24 .28 .2 ..., although the frames
# themselves come in the right order: a lip reader that trusts frame.pts sees mouths up to 120 ms off.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install -q numpy==2.4.6 av==18.1.0
cd "$scratch"
venv/bin/python - <<'PYTHON'
import io

import av
import numpy as np


def times(name: str) -> tuple[list[float], list[int]]:
    file = io.BytesIO()
    with av.open(file, "w", format=name) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt, stream.options = "yuv420p", {"bf": "2", "b-adapt": "0"}
        for n in range(12):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 20 * n, np.uint8), format="rgb24")
            frame.pts = n
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file) as container:
        frames = list(container.decode(video=0))
    return [round(float(f.pts * f.time_base), 3) for f in frames], [int(f.to_ndarray(format="gray")[3, 3]) for f in frames]


for name, rises in (("matroska", True), ("mp4", True), ("avi", False), ("asf", False)):
    found, greys = times(name)
    print(f"PyAV {av.__version__}, {name}: {found}")
    assert greys == sorted(greys)
    assert (found == sorted(found)) is rises
    assert rises or found[:4] == [0.04, 0.12, 0.16, 0.08]
PYTHON
