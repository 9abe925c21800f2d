# Sourced by common.sh: the values of the experiment's config, and the folders and files that follow from them.
# shellcheck shell=bash disable=SC2034,SC2154  # what is set here is used where this is sourced, and the other way round

# Prints a value of the experiment's config by its key, such as distill.teacher. common.sh fills `settings`.
declare -A settings=()
setting() {
  [ -n "${settings[$1]+there}" ] || die "$exp/config.yaml has no key $1"
  echo "${settings[$1]}"
}

# Prints the name of the set that is trained on: the training set with its augmented copies. The name lists the copies,
# since the configs of a corpus may ask for different ones.
training_set() {
  local speeds copies name=$train_set
  speeds=$(setting augment.speeds) copies=$(setting augment.copies)
  [ -z "$speeds$copies" ] || name+=_aug
  [ -z "$speeds" ] || name+=_sp${speeds// /-}
  [ -z "$copies" ] || name+=_${copies// /-}$(copy_suffix)
  echo "$name"
}

# Prints the end of a copy's name: the share of utterances and the seed, where they are not 1 and 0.
copy_suffix() {
  local share seed_of_copies end=''
  share=$(setting augment.share) seed_of_copies=$(setting augment.seed)
  [ "$share" = 1.0 ] || end+=_$share
  [ "$seed_of_copies" = 0 ] || end+=_seed$seed_of_copies
  echo "$end"
}

# Whether training mixes noise into crops.
uses_noise() { [ "$(setting crop.noise.probability)" != 0.0 ]; }

# find_arks SCP: sets the array `arks` to the arks in SCP.
find_arks() {
  local lines
  lines=$(sed -E 's/^[^[:space:]]+[[:space:]]+//; s/:[0-9]+$//' "$1" | sort -u) || exit
  mapfile -t arks <<< "$lines"
}

# Sets the array `lists` to the trial lists of the test set that exist.
find_existing_lists() {
  local list
  lists=()
  for list in $trials; do
    [ ! -e "$data/trials/$list" ] || lists+=("$data/trials/$list")
  done
}

# The same; having none is an error.
find_lists() {
  find_existing_lists
  [ "${#lists[@]}" -gt 0 ] || die "$data/trials has no list of trials of $test_set: run stage 1 again"
}

# Print the number of processes of a training, on a node and on all nodes.
processes_of_node() { if [ "$processes" -gt 0 ]; then echo "$processes"; else echo "$((gpu > 0 ? gpu : 1))"; fi; }
number_of_processes() { echo "$((nodes * $(processes_of_node)))"; }

# Fails, and prints what is missing, if stage 8 lacks a package or the graph of the network.
missing_for_export() {
  local lines graph
  lines=$(python tools/requirements.py requirements-export.txt) ||
    { echo "${lines//$'\n'/, }; install it: tools/install.sh --extras export" && return 1; }
  graph=wespeaker_lite/deploy/graphs/$(setting model.name).py
  [ -e "$graph" ] || { echo "the network has no graph for ONNX files: write $graph" && return 1; }
}

# Sets the array `teachers` to those of the config: confs, or files of trained models.
find_teachers() {
  teachers=("$(setting distill.teacher)")
  [ -n "${teachers[0]}" ] || read -ra teachers <<< "$(setting distill.teachers)" || true
}

is_conf() { [[ $1 == *.yaml || $1 == *.yml ]]; }

# teacher_folder TEACHER: prints the folder of its experiment. For a trained file, that is the folder that --model uses.
teacher_folder() {
  if is_conf "$1"; then
    echo "$exps/$(basename "${1%.*}")"
  else
    echo "$exps/$(name_of_model "$1")"
  fi
}

# Prints the file of a teacher's weights: that of its experiment, or the file that the config names.
teacher_file() { if is_conf "$1"; then echo "$(teacher_folder "$1")/final.pt"; else echo "$1"; fi; }

# Prints the name of a model's experiment. A model of another corpus gets a prefix, so that it cannot overwrite one that was
# trained here.
name_of_model() {
  local trained_in prefix=''
  trained_in=$(dirname "$1")
  if [ ! "$trained_in" -ef "$exps/$(basename "$trained_in")" ]; then prefix=$(basename "$(dirname "$trained_in")")_; fi
  echo "$prefix$(basename "$trained_in")"
}

# Prints the model that training starts from, if any: the file in the config, or the model of a conf with the same seed.
starting_model() {
  local start
  start=$(setting start_from)
  if is_conf "$start"; then echo "$exps/$(basename "${start%.*}")$suffix/final.pt"; else echo "$start"; fi
}

# Prints the folder of the fbanks for a section `features`. All configs with the same section share it. The default fbanks
# are beside the lists. Others have a folder of their own, so that no experiment replaces another's fbanks.
default_features='{"sample_rate": 16000, "num_mels": 80, "frame_length_ms": 25.0, "frame_shift_ms": 10.0, "window": "povey",'
default_features+=' "dither": 0.0, "low_freq": 20.0, "high_freq": 0.0, "snip_edges": true}'
fbank_folder() {
  if [ "$1" = "$default_features" ]; then echo "$data"; else echo "$data/features_$(cksum <<< "$1" | cut -d ' ' -f 1)"; fi
}

# Prints the section `features` of the experiment in another folder, as `setting features` does for this one.
features_of() {
  local lines
  lines=$(python -m wespeaker_lite.bin.config show --out "$1/config.yaml") || return
  sed -n 's/^features\t//p' <<< "$lines"
}

# Fails unless a set has fbanks, and they are those of this config (or of this model). Adds their stamp to `current`.
check_features() {
  [ -e "$fbanks/$1/.fbank.stamp" ] || die "$fbanks/$1 has no fbanks, or stale ones: run stage 2 with this config first"
  [ "$(cat "$fbanks/$1/features.json")" = "$(setting features)" ] ||
    die "the fbanks in $fbanks/$1 do not match $exp/config.yaml: run stage 2 with this config first"
  current+=("$fbanks/$1/.fbank.stamp")
}
