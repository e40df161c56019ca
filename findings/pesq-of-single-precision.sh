#!/usr/bin/env bash
# pesq 0.0.4: the wide-band score of the same samples is 1.0146 in double and 1.0431 in single precision. A
# table made from arrays of both kinds compares more than it says.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install -q numpy==2.4.6 setuptools==81.0.0 pesq==0.0.4
cd "$scratch"
venv/bin/python - <<'PYTHON'
import numpy as np

time = np.arange(32000) / 16000
voice = np.sin(2 * np.pi * 150 * time) * np.sin(2 * np.pi * 2 * time) ** 2
voice += 0.3 * np.sin(2 * np.pi * 1500 * time) * np.sin(2 * np.pi * 3 * time) ** 2
noisy = voice + 0.3 * np.random.default_rng(0).standard_normal(32000)
from pesq import pesq

double = pesq(16000, voice, noisy, "wb")
single = pesq(16000, voice.astype(np.float32), noisy.astype(np.float32), "wb")
again = pesq(16000, voice.astype(np.float32), noisy.astype(np.float32), "wb")
print(f"pesq 0.0.4: {double:.4f} in double, {single:.4f} in single precision")
assert single == again
assert abs(double - single) > 0.02
PYTHON
