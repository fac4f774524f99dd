#!/usr/bin/env bash
# Quantize the model that lies somewhere under FOLDER to TYPE, verify the written file and let it write, showing each command.
# Usage: tools/demo.sh FOLDER TYPE   (`make demo` calls it with quantrs on the PATH)
set -euo pipefail

source_file=$(find "$1" -name '*.gguf' | head -n 1)
written=models/$(basename "$source_file" .gguf | sed 's/\.Q[0-9_]*$//').$2.gguf

show() {
    printf '\n$'
    for word in "$@"; do [[ $word == *\ * ]] && printf ' "%s"' "$word" || printf ' %s' "$word"; done
    printf '\n'
    "$@"
}

# The plan has a row per tensor, all layers alike: the first rows and the totals say it.
show quantrs plan "$source_file" --to "$2" --allow-requantize |
    awk 'NR <= 14 || totals; NR == 15 { print "..." } NR > 15 && /^$/ { totals = 1; print }'
show quantrs quantize "$source_file" "$written" --to "$2" --allow-requantize --error --force
show quantrs verify "$written"
show quantrs run "$written" -p "Once upon a time, in a small village," -n 48 --temp 0
show quantrs chat "$written" --message "Explain in one sentence what a neural network is." -n 64 --temp 0
ls -l "$source_file" "$written"
