# Sourced by stages 3 and 4: what would end training or scoring with an error is said before anything is trained.
# shellcheck shell=bash disable=SC2034,SC2154  # what is set here is used where this is sourced, and the other way round

# check_settings NAME [OPTION...]: compare the experiment's config with its data, once as long as they stay; the options
# are those of bin/check_settings that name what it learns from. Scoring is looked at where stage 6 is to come.
check_settings() (
  checked=$exp/.check_$1.stamp
  shift
  train_data=$fbanks/$(training_set)
  current=() options=(--data "$train_data" "$@")
  lock "$data" shared || check_made_from
  check_features "$(training_set)"
  inputs=("$train_data/feats.sum" "$train_data/utt2spk" "$train_data/utt2num_frames")
  if [ -e "$train_data/spk2unlabelled" ]; then inputs+=("$train_data/spk2unlabelled"); fi
  for word; do [ ! -f "$word" ] || inputs+=("$word"); done
  if uses_noise; then
    check_features musan
    inputs+=("$fbanks/musan/utt2spk")
    options+=(--noise "$fbanks/musan")
  fi
  if [ "$stop_stage" -ge 6 ] && [ -e "$fbanks/$test_set/feats.scp" ]; then
    find_lists
    options+=(--test "$fbanks/$test_set" --trials "${lists[@]}")
    inputs+=("$fbanks/$test_set/utt2spk" "${lists[@]}")
    if [ -n "$cohort_set" ] && [ -e "$fbanks/$cohort_set/feats.scp" ]; then
      options+=(--cohort "$fbanks/$cohort_set")
      inputs+=("$fbanks/$cohort_set/utt2spk")
      if [ -e "$fbanks/$cohort_set/spk2unlabelled" ]; then inputs+=("$fbanks/$cohort_set/spk2unlabelled"); fi
    fi
    list=$(setting scoring.calibration.list)
    [ -z "$list" ] || inputs+=("$list")
  fi
  count=$(number_of_processes)
  if fresh "$checked" --files "${inputs[@]}" --words "$count ${options[*]}" --config "$exp/config.yaml" \
    --sections "${training_sections[@]}" runtime scoring --current "${current[@]}"; then exit; fi
  python -m wespeaker_lite.bin.check_settings --config "$exp/config.yaml" --processes "$count" "${options[@]}"
  stamp
)
