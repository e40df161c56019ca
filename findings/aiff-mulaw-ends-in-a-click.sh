#!/usr/bin/env bash
# An AIFF of mu-law speech with an odd number of samples gains one more: a full-scale click.
#
# Versions:  soundfile 0.14.0 (libsndfile 1.2.2), av 18.1.0 (FFmpeg 8.1.2), numpy 2.4.6
# Behaviour: AIFF chunks have even length, so libsndfile pads one zero byte, but counts it as a sample in the
#            header too. The mu-law byte 0 is the most negative value there is. FFmpeg, too, reads the click.
#            WAV, padded alike, has no such sample.
# Seen:      7001 samples of value 0 -> 7002 samples in AIFF, the last of them -0.980; WAV: 7001 and 0.
# So:        The peak of a file of silence is 0.98, and pairs of equal length differ by one sample.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 soundfile==0.14.0 av==18.1.0
cd "$work"
"$work/venv/bin/python" - <<'EOF'
import av
import numpy as np
import soundfile as sf

def expect(what, seen, known):
    print(f"{what}: {seen}")
    if seen != known:
        raise SystemExit(f"CHANGED: {what} was {known}, is now {seen}")

def ffmpeg(path):
    with av.open(path) as file:
        return np.concatenate([f.to_ndarray()[0] for f in file.decode(audio=0)]) / 32768

for name, known in {"x.wav": (7001, 0.0), "x.aiff": (7002, -0.98)}.items():
    sf.write(name, np.zeros(7001), 8000, subtype="ULAW")
    for reader, x in {"libsndfile": sf.read(name)[0], "FFmpeg": ffmpeg(name)}.items():
        expect(f"{name} by {reader} (samples, last sample)", (len(x), round(float(x[-1]), 3)), known)
sf.write("even.aiff", np.zeros(7000), 8000, subtype="ULAW")
expect("even number of samples in AIFF", len(sf.read("even.aiff")[0]), 7000)
EOF
