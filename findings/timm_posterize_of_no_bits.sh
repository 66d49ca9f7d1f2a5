#!/usr/bin/env bash
# timm 1.0.31 with pillow 13.0.0: RandAugment's usual policy ends a training after some hundred images.
#
# Input: `rand-m9-mstd0.5-inc1`, the policy of timm's own recipes, on images of one colour.
# Expected: 2,000 images are augmented, as with pillow 11.3.0, where an image posterized to 0 bits is black.
# Seen: `PosterizeIncreasing` asks for 0 bits where the magnitude is drawn as 10, and pillow 13 raises `ValueError: bits
#   must be between or equal to 1 and 8`.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet \
  torch==2.13.0 torchvision==0.28.0 timm==1.0.31 pillow==11.3.0
cat > "$dir/augment.py" <<'PYTHON'
import random
import sys

import numpy as np
import PIL
import torch
from PIL import Image

try:
    import torchvision  # noqa: F401
except RuntimeError:  # one for CUDA beside a torch for the CPU
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    for name in [name for name in sys.modules if name.startswith("torchvision")]:
        del sys.modules[name]

from timm.data.auto_augment import rand_augment_transform

random.seed(0)
np.random.seed(0)
augment = rand_augment_transform("rand-m9-mstd0.5-inc1", {"translate_const": 14, "img_mean": (124, 116, 104)})
image = Image.new("RGB", (32, 32), (200, 100, 50))
for number in range(2000):
    try:
        augment(image)
    except ValueError as error:
        print(f"pillow {PIL.__version__}: image {number}: ValueError: {error}")
        sys.exit(1)
print(f"pillow {PIL.__version__}: 2,000 images augmented")
PYTHON
"$dir/venv/bin/python" "$dir/augment.py"
"$dir/venv/bin/pip" install --quiet pillow==13.0.0
if "$dir/venv/bin/python" "$dir/augment.py"; then
  echo "This has changed."
  exit 1
fi
