#!/usr/bin/env bash
# An HTK file cannot say 44100 Hz, and soundfile writes one without a word.
#
# Versions:  soundfile 0.14.0 (libsndfile 1.2.2), numpy 2.4.6
# Behaviour: The HTK header holds the sample period as a whole number of 100 ns. `soundfile.write(...,
#            format="HTK")` takes any rate, cuts the period down and raises nothing; the file comes back with
#            another rate. The samples are the same.
# Seen:      8000 -> 8000, 16000 -> 16000, 22050 -> 22075, 44100 -> 44247, 48000 -> 48076 Hz.
# So:        At 44247 Hz speech is 0.33 % too fast and high: 20 ms of drift against the picture after 6 s.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 soundfile==0.14.0
cd "$work"
"$work/venv/bin/python" - <<'EOF'
import numpy as np
import soundfile as sf

def expect(what, seen, known):
    print(f"{what}: {seen}")
    if seen != known:
        raise SystemExit(f"CHANGED: {what} was {known}, is now {seen}")

x = 0.1 * np.random.default_rng(0).standard_normal(5000)
for rate, known in {8000: 8000, 16000: 16000, 22050: 22075, 44100: 44247, 48000: 48076}.items():
    sf.write("x.htk", x, rate, format="HTK", subtype="PCM_16")
    sf.write("x.wav", x, rate, subtype="PCM_16")
    back, seen = sf.read("x.htk")
    same = np.array_equal(back, sf.read("x.wav")[0])
    expect(f"{rate} Hz written as HTK, read back as (Hz, same samples as WAV)", (seen, same), (known, True))
EOF
