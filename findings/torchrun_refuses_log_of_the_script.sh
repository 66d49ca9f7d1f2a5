#!/usr/bin/env bash
# torch 2.13.0 on Python 3.11: torchrun refuses an option that comes after the script and is the script's own.
#
# Input: `torchrun train.py --log csv`, a script that has the option `--log`.
# Expected: all after the script's name is the script's, as torchrun's usage has it (`training_script ...`), and as
#   happens with `--lr 0.1`.
# Seen: `error: ambiguous option: --log could match --log-dir, --log_dir, --logs-specs, --logs_specs`; the script never
#   runs. argparse looks for beginnings of torchrun's own options in all words, before it knows which are the script's.
#   `torchrun -- train.py --log csv` works.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3.11}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
echo 'import sys; print("the script runs with", sys.argv[1:])' > "$dir/train.py"
"$dir/venv/bin/python" --version
cd "$dir"
venv/bin/torchrun --nproc-per-node 1 train.py --lr 0.1 | grep "the script runs"
venv/bin/torchrun --nproc-per-node 1 -- train.py --log csv | grep "the script runs"
if venv/bin/torchrun --nproc-per-node 1 train.py --log csv 2> error.txt; then
  echo "This has changed."
  exit 1
fi
tail -1 error.txt
grep --quiet "ambiguous option: --log could match" error.txt
