#!/usr/bin/env bash
# Scoring with ESTOI changes the random numbers that come after it.
#
# Versions:  pystoi 0.4.1, numpy 2.4.6, scipy 1.17.1
# Behaviour: `pystoi.stoi(..., extended=True)` adds random numbers of the size of the machine epsilon before it
#            normalises, drawn from NumPy's global generator. So it moves that generator on, and for a silent
#            estimate the score itself is only noise. STOI draws nothing.
# Seen:      the next np.random.rand() after seed 0: 0.5488 with STOI or without a score, another with ESTOI;
#            ESTOI of silence: two values near 0.
# So:        Validating with ESTOI between epochs changes the batches drawn from np.random; its value on silence
#            cannot be a test.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 scipy==1.17.1 pystoi==0.4.1
cd "$work"
"$work/venv/bin/python" - <<'EOF'
import numpy as np
from pystoi import stoi

def expect(what, seen, known):
    print(f"{what}: {seen}")
    if seen != known:
        raise SystemExit(f"CHANGED: {what} was {known}, is now {seen}")

generator = np.random.default_rng(0)
time = np.arange(48000) / 16000
speech = sum(np.cos(2 * np.pi * 120 * k * time + k) / k for k in range(1, 30)) * np.clip(np.sin(13 * time), 0, 1)
noisy = speech + 0.1 * generator.standard_normal(len(speech))

def next_draw(**options):
    np.random.seed(0)
    print("score:", round(float(stoi(speech, noisy, 16000, **options)), 4))
    return np.random.rand()

np.random.seed(0)
first = np.random.rand()
expect("the draw after STOI is the first of the seed", next_draw(extended=False) == first, True)
expect("the draw after ESTOI is the first of the seed", next_draw(extended=True) == first, False)
one, two = (float(stoi(speech, 0 * speech, 16000, extended=True)) for _ in range(2))
print("ESTOI of a silent estimate, twice:", one, two)
expect("the two are equal", one == two, False)
expect("STOI of a silent estimate", float(stoi(speech, 0 * speech, 16000)), 0.0)
EOF
