#!/usr/bin/env bash
# Stage 2: writes fbanks into arks. Where the config asks for them, also writes the fbanks of augmented copies of the training
# set (speeds, noise, music, babble, reverberation) and those of the noise that training mixes into crops.
set -euo pipefail
. "$(dirname "$0")/common.sh"

# make_fbank SET FROM [SPEED [KIND]]: computes the fbanks of data/<corpus>/FROM, or of its copy by SPEED and KIND. Writes them
# to SET in the folder of this front end.
make_fbank() {
  local dir=$fbanks/$1 from=$data/$2 speed=${3:-1.0} kind=${4-} table jobs clips
  local inputs=("$from/audio.list" "$from/utt2spk") words=("$speed" "$ROOT") options=() current=("$data/.lists.stamp")
  [ "$2" != musan ] || current=("$from/.list.stamp")
  for table in segments spk2unlabelled; do [ ! -e "$from/$table" ] || inputs+=("$from/$table"); done
  if [ -n "$kind" ]; then
    words+=("$kind" "$seed_of_copies" "$share")
    options+=(--copy "$kind" --seed "$seed_of_copies")
    if [ "$kind" = reverb ]; then clips=rirs; else clips=musan; fi
    if [ -e "$data/$clips/audio.list" ]; then
      inputs+=("$data/$clips/audio.list")
      options+=("--$clips" "$data/$clips")
      current+=("$data/$clips/.list.stamp")
    fi
  fi
  if fresh "$dir/.fbank.stamp" --files "${inputs[@]}" --words "${words[@]}" \
    --config "$front_end/config.yaml" --sections features --current "${current[@]}"; then return; fi
  rm -rf "$dir"/{fbank,feats.scp,feats.sum,utt2num_frames,utt2dur,features.json}
  if [ -n "$kind" ] && [ "$share" != 1.0 ]; then
    draw_subset "$from" "$dir/chosen" "$kind"
    from=$dir/chosen
  fi
  split_for_jobs "$from" "$dir/split"
  say "fbanks of $1 by $jobs jobs, logs in $dir/log/make_fbank.*.log"
  run_jobs "JOB=1:$jobs" "$dir/log/make_fbank.JOB.log" \
    python -m wespeaker_lite.bin.make_fbank --data "$dir/split/JOB" --out "$dir/fbank/feats.JOB" \
    --config "$front_end/config.yaml" --speed "$speed" "${options[@]}" --max-bad "$max_bad" "${pipes[@]}"
  wait_for_outputs "$dir/fbank/feats.JOB.utt2dur" # a job writes it last
  python -m wespeaker_lite.bin.gather_feats --from "$from" --speed "$speed" --copy "$kind" --parts "$dir/fbank" --out "$dir"
  rm -rf "$dir/split" "$dir/chosen"
  setting features > "$dir/features.json"
  stamp_fbanks "$dir" "$dir"
}

# stamp_fbanks DIR PART...: writes the stamp of DIR, whose arks are in the PARTs. The stamp lists all tables, since --max-bad
# may have removed lines from those of stage 1.
stamp_fbanks() {
  local files tables
  find_files "$1" -maxdepth 1 -type f ! -name '.*'
  tables=("${files[@]}")
  find_files "${@:2}" -path '*/fbank/*.ark'
  stamp "${tables[@]}" "${files[@]}"
}

# draw_subset FROM OUT KIND: draws a share of the utterances of FROM, a different one for each kind of copy.
draw_subset() {
  local number kind_seed
  number=$(awk -v share="$share" 'END { count = int(NR * share + 0.5); print count ? count : 1 }' "$1/utt2spk")
  kind_seed=$(cksum <<< "$3 $seed_of_copies" | cut -d ' ' -f 1)
  python -m wespeaker_lite.bin.data_dir subset "$1" "$2" --num-utts "$number" --seed "$kind_seed"
}

# list_clips NAME DIR: lists the audio files of DIR in data/<corpus>/NAME. Without DIR, keeps an existing list.
list_clips() {
  if [ -z "$2" ] || fresh "$data/$1/.list.stamp" --trees "$2"; then return; fi
  python -m wespeaker_lite.bin.list_clips "--$1-dir" "$2" --out "$data/$1"
  echo "$2" > "$data/$1/made_from"
  stamp "$data/$1"/{audio.list,wav.scp,utt2spk,spk2utt,utt2dur,made_from}
}

[ -n "$(made_sets)" ] || die "$data has neither $train_set nor $test_set: run stage 1 first"
trains=false speeds='' copies='' share='' seed_of_copies=''
if $trained && [ -e "$data/$train_set/wav.scp" ]; then
  trains=true speeds=$(setting augment.speeds) copies=$(setting augment.copies)
  share=$(setting augment.share) seed_of_copies=$(setting augment.seed)
fi
if [[ $copies =~ noise|music|babble ]] || { $trains && uses_noise; }; then
  list_clips musan "$musan_dir"
  [ -e "$data/musan/wav.scp" ] || die "$exp/config.yaml asks for noise (augment.copies or crop.noise):" \
    "name the folder of MUSAN, or one like it, by --musan-dir"
fi
if [[ $copies =~ reverb ]]; then
  list_clips rirs "$rirs_dir"
  [ -e "$data/rirs/wav.scp" ] || say "no --rirs-dir: impulse responses are simulated"
fi

for set_name in $(made_sets); do make_fbank "$set_name" "$set_name"; done
if ! $trains; then exit; fi
if uses_noise; then make_fbank musan musan; fi
parts=()
for speed in 1.0 $speeds; do
  set_name=$train_set
  if [ "$speed" != 1.0 ]; then
    set_name=${train_set}_sp$speed
    make_fbank "$set_name" "$train_set" "$speed"
  fi
  parts+=("$fbanks/$set_name")
  for kind in $copies; do
    make_fbank "${set_name}_$kind$(copy_suffix)" "$train_set" "$speed" "$kind"
    parts+=("$fbanks/${set_name}_$kind$(copy_suffix)")
  done
done
if [ ${#parts[@]} -gt 1 ]; then
  joined=$fbanks/$(training_set)
  if fresh "$joined/.fbank.stamp" --files "${parts[@]/%//.fbank.stamp}"; then exit; fi
  python -m wespeaker_lite.bin.data_dir combine "$joined" "${parts[@]}"
  cat "${parts[@]/%//feats.sum}" > "$joined/feats.sum"
  rm -f "$joined/left_out"
  for part in "${parts[@]}"; do
    [ ! -e "$part/left_out" ] || cat "$part/left_out" >> "$joined/left_out"
  done
  cp "$fbanks/$train_set/features.json" "$joined/"
  stamp_fbanks "$joined" "${parts[@]}"
fi
