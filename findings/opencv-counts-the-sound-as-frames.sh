#!/usr/bin/env bash
# OpenCV counts frames where there is only sound.
#
# Versions:  opencv-python-headless 4.14.0.94, av 18.1.0 (FFmpeg 8.1.2), numpy 2.4.6
# Behaviour: `CAP_PROP_FRAME_COUNT` is taken from the stream in MP4 and MOV. Matroska, WebM and MPEG-TS hold no
#            count, and OpenCV takes the length of the whole file times the frame rate, although one second of
#            picture is followed by two of sound only.
# Seen:      25 pictures, 3 s of sound: MP4 and MOV 25; Matroska and MPEG-TS 76, WebM 75; reading gives 25 in
#            each.
# So:        An array made for that many frames keeps 51 that no picture was read into; a rate of frames over
#            seconds is wrong too.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 opencv-python-headless==4.14.0.94 av==18.1.0
cd "$work"
"$work/venv/bin/python" - <<'EOF'
import av
import cv2
import numpy as np

def expect(what, seen, known):
    print(f"{what}: {seen}")
    if seen != known:
        raise SystemExit(f"CHANGED: {what} was {known}, is now {seen}")

def write(path, video_codec, sound_codec):
    x = (3000 * np.random.default_rng(0).standard_normal((1, 3 * 48000))).astype(np.int16)
    with av.open(path, "w") as file:
        video = file.add_stream(video_codec, rate=25)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        sound = file.add_stream(sound_codec, rate=48000, layout="mono")
        for i in range(25):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 7 * i, np.uint8), format="rgb24")
            frame.pts = i
            file.mux(video.encode(frame))
        file.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray(x, format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48000, 0
        for part in av.AudioResampler(sound.codec_context.format.name, "mono", 48000).resample(frame):
            file.mux(sound.encode(part))
        file.mux(sound.encode(None))

def count(path):
    capture = cv2.VideoCapture(path)
    told, seen = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0
    while capture.read()[0]:
        seen += 1
    return told, seen

for ending, known in {"mp4": 25, "mov": 25, "mkv": 76, "ts": 76, "webm": 75}.items():
    codecs = ("libvpx", "libopus") if ending == "webm" else ("libx264", "aac")
    write(f"x.{ending}", *codecs)
    expect(f"{ending} (frames by CAP_PROP_FRAME_COUNT, frames read)", count(f"x.{ending}"), (known, 25))
EOF
