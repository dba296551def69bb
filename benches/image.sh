#!/usr/bin/env bash
# Usage: benches/image.sh IMAGE [RUNS]
#
# Backs IMAGE up, backs it up again unchanged, verifies and restores it, in turn with what bounds each of these:
# zstd, b3sum, cp. Prints the median of RUNS (3) for each: wall seconds, CPU seconds, peak memory in KiB,
# and the ratio to its bound in the same run. IMAGE should fit into the page cache. Works beside IMAGE.
set -euo pipefail
image="$(realpath "${1:?image}")"
runs="${2:-3}"
root="$(cd "$(dirname "$0")/.." && pwd)"
backy="${BACKY:-$root/target/release/backy}"
for program in "$backy" zstd b3sum /usr/bin/time; do
    command -v "$program" >/dev/null || { echo "error: $program is missing" >&2; exit 2; }
done
work="$(mktemp -d "$(dirname "$image")/image-bench.XXXXXX")"
trap 'rm -rf "$work"' EXIT
cd "$work"

measure() {
    local name="$1"
    shift
    /usr/bin/time -a -o times -f "$name %e %U %S %M" "$@" >/dev/null
}

cat "$image" >/dev/null
for _ in $(seq "$runs"); do
    rm -rf store
    sync
    measure first "$backy" -q -b store backup --source "file:$image"
    sync
    measure zstd zstd -q -1 -T2 -c "$image"
    measure unchanged "$backy" -q -b store backup
    measure b3sum b3sum "$image"
    measure verify "$backy" -q -b store verify
    measure restore "$backy" -q -b store restore restored
    cmp restored "$image"
    rm restored
    sync
    # shellcheck disable=SC2016  # the inner shell expands it
    measure cp sh -c 'cp --sparse=always "$1" copy && sync copy' sh "$image"
    rm copy
    sync
done

median() { awk -v name="$1" '$1 == name' times | sort -k2n | sed -n "$(((runs + 1) / 2))p"; }
wall() { median "$1" | awk '{ print $2 }'; }
row() {
    median "$1" | awk -v bound="$2" -v other="$(wall "$2")" \
        '{ printf "| %s | %.2f | %.2f | %d | %.2f x %s |\n", $1, $2, $3 + $4, $5, $2 / other, bound }'
}
echo "| what | wall s | CPU s | peak KiB | to its bound |"
echo "|---|---|---|---|---|"
row first zstd
row unchanged b3sum
row verify b3sum
row restore cp
echo
echo "bounds: zstd -1 -T2 $(wall zstd) s, b3sum $(wall b3sum) s, cp --sparse=always and sync $(wall cp) s"
echo "image: $(stat -c %s "$image") bytes, $(du -k "$image" | cut -f 1) KiB allocated; store: $(du -sk store | cut -f 1) KiB"
