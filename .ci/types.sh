#!/usr/bin/env bash
# Type-check the package as it is installed: type checkers do not follow the mapping of the side
# folders, so they are linked into place first, and the number of checked files is compared.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3}
rm -rf build/tree
mkdir -p build/tree/mmgen
for path in mmgen/*; do
  case "$path" in */__pycache__) ;; *) ln -s "$PWD/$path" build/tree/mmgen/ ;; esac
done
for folder in models sample tokenizers_vis train assets; do
  ln -s "$PWD/$folder" "build/tree/mmgen/$folder"
done
expected=$(find -L build/tree/mmgen -name '*.py' | wc -l)
cd build/tree
said=$("$python" -m mypy --config-file ../../pyproject.toml -p mmgen) || { echo "$said"; exit 1; }
echo "$said"
grep -q " $expected source files" <<<"$said" || { echo "mypy checked other files than the $expected there are"; exit 1; }
