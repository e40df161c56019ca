#!/usr/bin/env bash
# pystoi 0.4.1: nobody hears a constant offset. Where reference and estimate share one of half full scale, ESTOI rises from 0.133
# to 0.163; one on the estimate alone moves it by 0.001. So scores of recordings with an offset are not those of the same
# recordings without.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install -q numpy==2.4.6 scipy==1.17.1 pystoi==0.4.1
cd "$scratch"
venv/bin/python - <<'PYTHON'
import numpy as np

time = np.arange(32000) / 16000
voice = np.sin(2 * np.pi * 150 * time) * np.sin(2 * np.pi * 2 * time) ** 2
voice += 0.3 * np.sin(2 * np.pi * 1500 * time) * np.sin(2 * np.pi * 3 * time) ** 2
noisy = voice + 0.3 * np.random.default_rng(0).standard_normal(32000)
from pystoi import stoi

plain = stoi(voice, noisy, 16000, extended=True)
both = stoi(voice + 0.5, noisy + 0.5, 16000, extended=True)
one = stoi(voice, noisy + 0.5, 16000, extended=True)
print(f"pystoi 0.4.1: ESTOI {plain:.4f}; offset on both {both:.4f}; on the estimate {one:.4f}")
assert both - plain > 0.02
assert abs(one - plain) < 0.005
PYTHON
