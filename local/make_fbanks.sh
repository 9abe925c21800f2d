#!/usr/bin/env bash
# Stage 2: fbanks into arks; of the training set also speed-perturbed copies, where the config asks for them.
set -euo pipefail
. "$(dirname "$0")/common.sh"

# make_fbank SET FROM SPEED: features of data/<corpus>/FROM, played at SPEED, in data/<corpus>/SET.
make_fbank() {
  local dir=$data/$1 from=$data/$2 speed=$3 jobs
  local inputs=("$from/audio.list" "$from/utt2spk")
  [ ! -e "$from/segments" ] || inputs+=("$from/segments")
  if fresh "$dir/.fbank.stamp" --files "${inputs[@]}" --words "$speed" "$ROOT" \
    --config "$exp/config.yaml" --sections features; then return; fi
  rm -rf "$dir/fbank"
  split_for_jobs "$from" "$dir/split"
  say "fbanks of $1 by $jobs jobs, logs in $dir/log/make_fbank.*.log"
  $cmd "JOB=1:$jobs" "$dir/log/make_fbank.JOB.log" \
    python -m wespeaker_lite.bin.make_fbank --data "$dir/split/JOB" --out "$dir/fbank/feats.JOB" \
    --features "$(setting features)" --speed "$speed" --max-bad "$max_bad"
  python -m wespeaker_lite.bin.gather_feats --from "$from" --speed "$speed" --parts "$dir/fbank" --out "$dir"
  rm -rf "$dir/split"
  setting features > "$dir/features.json"
  stamp "$dir/feats.scp" "$dir/utt2num_frames" "$dir"/fbank/*.ark
}

[ -n "$(made_sets)" ] || die "$data has neither $train_set nor $test_set: run stage 1 first"
for set_name in $(made_sets); do make_fbank "$set_name" "$set_name" 1.0; done

speeds=$(setting augment.speeds)
if $trained && [ -n "$speeds" ] && [ -e "$data/$train_set/wav.scp" ]; then
  parts=("$data/$train_set")
  for speed in $speeds; do
    make_fbank "${train_set}_sp$speed" "$train_set" "$speed"
    parts+=("$data/${train_set}_sp$speed")
  done
  if fresh "$data/${train_set}_aug/.fbank.stamp" --files "${parts[@]/%//.fbank.stamp}" --words "$speeds"; then exit; fi
  python -m wespeaker_lite.bin.data_dir combine "$data/${train_set}_aug" "${parts[@]}"
  cp "$data/$train_set/features.json" "$data/${train_set}_aug/"
  stamp "$data/${train_set}_aug/feats.scp"
fi
