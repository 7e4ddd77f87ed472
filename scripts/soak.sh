#!/usr/bin/env bash
# Long and random runs: all tests again and again, the properties with many more cases, each round with its own seed.
# SOAK_MINUTES says how long (a round that has begun is finished), SEED repeats the first round of an earlier run.
set -euo pipefail
# shellcheck source=env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$root"
scripts/setup.sh soak
site
guest/debian.sh

minutes=${SOAK_MINUTES:-30}
seed=${SEED:-$((RANDOM << 15 | RANDOM))}
round=0
while ((round == 0 || SECONDS < minutes * 60)); do
    round=$((round + 1))
    echo "soak: round $round, seed $seed, after $((SECONDS / 60)) of $minutes minutes; again with: make soak SEED=$seed"
    PROPTEST_CASES=${PROPTEST_CASES:-20000} PROPTEST_RNG_SEED=$seed OFFSHOOT_SOAK_SEED=$seed \
        "$cargo" nextest run --locked --release --workspace --profile soak --run-ignored all || {
        echo "soak: failed in round $round; again with: make soak SEED=$seed"
        exit 1
    }
    seed=$((seed + 1))
done
echo "soak: $round rounds in $((SECONDS / 60)) minutes, none failed"
