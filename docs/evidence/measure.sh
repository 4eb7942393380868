#!/usr/bin/env bash
# Measures docs/evidence anew: argmax against RankSEG on the probabilities in ../shared/data.
set -euo pipefail
cd "$(dirname "$0")/../.."

decoders=(--decoder argmax)
for metric in dice iou; do
    for pruning_prob in 0.5 0.3 0.1; do
        decoders+=(--decoder "rankseg(metric=$metric, pruning_prob=$pruning_prob)")
    done
    decoders+=(--decoder "rankseg(metric=$metric, solver=exact)")
done

measure() {
    local out="docs/evidence/$1"
    rm -rf "$out"
    rankseg-plugins compare --probs "../shared/data/$2" "${decoders[@]}" "${@:3}" --panels 0 --out "$out"
    # Only what can be read in the repository is kept.
    rm "$out"/{report.html,report.json,images.csv,results.jsonl}
}

measure camvid camvid/probs_val.npz
measure horses voc21_horses/probs.npz
measure horses_present_in_truth voc21_horses/probs.npz --present label
