#!/usr/bin/env bash
# pillow 13.0.0: 16-bit greyscale TIFF files in which 0 is white are read as their negatives; 8-bit ones are not.
#
# Input: the same four shades as TIFF of 8 and of 16 bits, photometric interpretation 0 (WhiteIsZero), as the format
#   allows it.
# Expected: 0 is the largest value in both, or in neither.
# Seen: 8 bits are inverted when they are read, so that 0 is black as in any image of mode L; 16 bits come as stored,
#   so that code which takes them for brightness sees the negative.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet pillow==13.0.0
cd "$dir"
"$dir/venv/bin/python" - <<'PYTHON'
import io
import struct
import sys

from PIL import Image


def tiff(values, bits):
    """One row of greyscale: a header, one directory, one strip."""
    strip = struct.pack(f"<{len(values)}{'B' if bits == 8 else 'H'}", *values)
    tags = [(256, len(values)), (257, 1), (258, bits), (259, 1), (262, 0), (273, 122), (277, 1), (278, 1)]
    tags.append((279, len(strip)))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + strip


firsts = {}
for bits in (8, 16):
    largest = 2**bits - 1
    stored = [0, largest // 3, largest * 2 // 3, largest]
    with Image.open(io.BytesIO(tiff(stored, bits))) as image:
        read = [image.getpixel((column, 0)) for column in range(4)]
        print(f"{bits:>2} bits, mode {image.mode:<4}  stored {stored}  read {read}")
    firsts[bits] = read[0]
sys.exit(0 if firsts == {8: 255, 16: 0} else "This has changed.")
PYTHON
