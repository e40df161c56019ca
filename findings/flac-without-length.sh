#!/usr/bin/env bash
# soundfile 0.14.0 (libsndfile 1.2.2): a FLAC whose header says nothing of its length, as every encoder writes it into a pipe
# (STREAMINFO's total samples = 0, which RFC 9639 calls unknown), is one of 9223372036854775807 frames; reading it raises
# ValueError. PyAV 18.1.0 reads all 32000 samples.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install -q numpy==2.4.6 soundfile==0.14.0 av==18.1.0
cd "$scratch"
venv/bin/python - <<'PYTHON'
import io

import av
import numpy as np
import soundfile

sound = 0.5 * np.sin(2 * np.pi * 440 * np.arange(32000) / 16000)
file = io.BytesIO()
soundfile.write(file, sound, 16000, format="FLAC")
data = bytearray(file.getvalue())
# Bytes 21 to 25 of the file end in the 36 bits of "total samples".
data[21] &= 0xF0
data[22:26] = bytes(4)
frames = soundfile.SoundFile(io.BytesIO(bytes(data))).frames
try:
    soundfile.read(io.BytesIO(bytes(data)))
    said = "nothing"
except ValueError as error:
    said = type(error).__name__
with av.open(io.BytesIO(bytes(data))) as container:
    heard = sum(frame.samples for frame in container.decode(audio=0))
print(f"soundfile {soundfile.__version__}: {frames} frames, reading raises {said}; PyAV {av.__version__}: {heard} samples")
assert (frames, said, heard) == (2**63 - 1, "ValueError", 32000)
PYTHON
