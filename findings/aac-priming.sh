#!/usr/bin/env bash
# PyAV 18.1.0: 50,000 samples of sound through the same AAC encoder. MP4 and Matroska note that its first 1,024 samples are
# priming, and FFmpeg drops them: 50,176 samples. ADTS and MPEG-TS cannot, and give 51,200, which are 21 ms late at 48 kHz,
# while the first frame's time is 0 in all four.
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


def decoded(name: str) -> tuple[int, float]:
    file = io.BytesIO()
    with av.open(file, "w", format=name) as container:
        stream = container.add_stream("aac", rate=48000, layout="mono")
        sound = (9000 * np.sin(np.arange(50000) / 20)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(sound[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file) as container:
        frames = list(container.decode(audio=0))
    # MPEG-TS begins at a time of its own, so that times are counted from the stream's beginning.
    with av.open(io.BytesIO(file.getvalue())) as container:
        begin = float((container.streams.audio[0].start_time or 0) * container.streams.audio[0].time_base)
    return sum(f.samples for f in frames), float(frames[0].pts * frames[0].time_base) - begin


for name, samples in (("mp4", 50176), ("matroska", 50176), ("adts", 51200), ("mpegts", 51200)):
    found, time = decoded(name)
    print(f"PyAV {av.__version__}, {name}: {found} samples, the first at {time} s")
    assert (found, time) == (samples, 0.0)
PYTHON
