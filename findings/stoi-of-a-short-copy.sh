#!/usr/bin/env bash
# pystoi 0.4.1: the STOI of a quarter of a second with itself, which should be 1, is 0.00001, with a RuntimeWarning that there
# are not enough frames: a mean over clips is pulled down by short ones, and no exception tells.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install -q numpy==2.4.6 scipy==1.17.1 pystoi==0.4.1
cd "$scratch"
venv/bin/python - <<'PYTHON'
import warnings

import numpy as np

time = np.arange(32000) / 16000
voice = np.sin(2 * np.pi * 150 * time) * np.sin(2 * np.pi * 2 * time) ** 2
voice += 0.3 * np.sin(2 * np.pi * 1500 * time) * np.sin(2 * np.pi * 3 * time) ** 2
noisy = voice + 0.3 * np.random.default_rng(0).standard_normal(32000)
from pystoi import stoi

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    short, whole = stoi(voice[:4000], voice[:4000], 16000), stoi(voice, voice, 16000)
print(f"pystoi 0.4.1: {short} for 0.25 s with itself ({caught[0].category.__name__}), {whole:.3f} for 2 s")
assert short == 1e-5
assert len(caught) == 1 and "Not enough STFT frames" in str(caught[0].message)
assert whole > 0.999
PYTHON
