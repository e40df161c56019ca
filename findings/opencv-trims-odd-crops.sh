#!/usr/bin/env bash
# OpenCV writes mouth crops of 67 x 67 as 66 x 66, lossless codecs included.
#
# Versions:  opencv-python-headless 4.14.0.94, av 18.1.0 (FFmpeg 8.1.2), numpy 2.4.6
# Behaviour: `cv2.VideoWriter` with FFmpeg takes an odd size, says that it is open, and drops a row and a column
#            of each frame, whatever the codec: also FFV1 and Motion JPEG, which can store odd sizes, as the
#            same FFmpeg does through PyAV.
# Seen:      67 x 67 in; 66 x 66 out for mp4v, MJPG, XVID, HFYU and FFV1; PyAV with FFV1: 67 x 67.
# So:        Crops of 67 x 67, common for lips, change their shape on the way through a file, and nothing warns.
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

picture = np.random.default_rng(0).integers(0, 255, (67, 67, 3), dtype=np.uint8)

def by_opencv(path, codec):
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*codec), 25, (67, 67))
    opened = writer.isOpened()
    for _ in range(5):
        writer.write(picture)
    writer.release()
    return opened

def by_pyav(path):
    with av.open(path, "w") as file:
        stream = file.add_stream("ffv1", rate=25)
        stream.width = stream.height = 67
        stream.pix_fmt = "yuv444p"
        file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")) + stream.encode(None))

def size(path):
    with av.open(path) as file:
        frame = next(file.decode(video=0))
    return frame.width, frame.height

for codec, path in {"mp4v": "x.mp4", "MJPG": "m.avi", "XVID": "x.avi", "HFYU": "h.avi", "FFV1": "f.mkv"}.items():
    expect(f"OpenCV, {codec} (opened, size)", (by_opencv(path, codec), size(path)), (True, (66, 66)))
by_pyav("pyav.mkv")
expect("PyAV, FFV1, size", size("pyav.mkv"), (67, 67))
EOF
