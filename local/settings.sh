# Sourced by common.sh: the values of the experiment's config, and the folders and files that follow from them.
# shellcheck shell=bash disable=SC2034,SC2154  # what is set here is used where this is sourced, and the other way round

# A value of the experiment's config, by a key such as distill.teacher; common.sh reads them.
declare -A settings=()
setting() {
  [ -n "${settings[$1]+there}" ] || die "$exp/config.yaml has no key $1"
  echo "${settings[$1]}"
}

# What training reads: the training set, with its copies at other speeds, noisy or reverberant where the config asks for them.
# The name says what is in it, since configs of one corpus may differ in this.
training_set() {
  local speeds copies name=$train_set
  speeds=$(setting augment.speeds) copies=$(setting augment.copies)
  [ -z "$speeds$copies" ] || name+=_aug
  [ -z "$speeds" ] || name+=_sp${speeds// /-}
  [ -z "$copies" ] || name+=_${copies// /-}$(drawn)
  echo "$name"
}

# The end of a copy's name: the share that is drawn, and the seed, where they are not 1 and 0.
drawn() {
  local share seed_of_copies end=''
  share=$(setting augment.share) seed_of_copies=$(setting augment.seed)
  [ "$share" = 1.0 ] || end+=_$share
  [ "$seed_of_copies" = 0 ] || end+=_seed$seed_of_copies
  echo "$end"
}

# Whether noise is mixed into crops while training.
uses_noise() { [ "$(setting crop.noise.probability)" != 0.0 ]; }

# find_arks SCP: the arks that it names, in the array `arks`.
find_arks() {
  local lines
  lines=$(sed -E 's/^[^[:space:]]+[[:space:]]+//; s/:[0-9]+$//' "$1" | sort -u) || exit
  mapfile -t arks <<< "$lines"
}

# The trial lists of the test set, in the array `lists`.
find_lists() {
  local list
  lists=()
  for list in $trials; do
    [ ! -e "$data/trials/$list" ] || lists+=("$data/trials/$list")
  done
  [ "${#lists[@]}" -gt 0 ] || die "$data/trials has no list of trials of $test_set: run stage 1 again"
}

# How many processes a node has for a training, and how many all nodes have.
processes_of_node() { if [ "$processes" -gt 0 ]; then echo "$processes"; else echo "$((gpu > 0 ? gpu : 1))"; fi; }
number_of_processes() { echo "$((nodes * $(processes_of_node)))"; }

# Says what stage 8 lacks, and fails if it lacks anything: a package, or the graph of a network that is new here.
missing_for_export() {
  local lines graph
  lines=$(python tools/requirements.py requirements-export.txt) ||
    { echo "${lines//$'\n'/, }; get it by: tools/install.sh --extras export" && return 1; }
  graph=wespeaker_lite/deploy/graphs/$(setting model.name).py
  [ -e "$graph" ] || { echo "the network has no graph for ONNX files: write $graph" && return 1; }
}

# The teachers that the config names, in the array `teachers`: confs, or files of trained models.
find_teachers() {
  teachers=("$(setting distill.teacher)")
  [ -n "${teachers[0]}" ] || read -ra teachers <<< "$(setting distill.teachers)" || true
}

is_conf() { [[ $1 == *.yaml || $1 == *.yml ]]; }

# teacher_folder TEACHER: its experiment; that of a trained file has the name that --model would give it.
teacher_folder() {
  if is_conf "$1"; then
    echo "$exps/$(basename "${1%.*}")"
  else
    echo "$exps/$(name_of_model "$1")"
  fi
}

# The weights of a teacher: those of its experiment, or the file that is named.
teacher_file() { if is_conf "$1"; then echo "$(teacher_folder "$1")/final.pt"; else echo "$1"; fi; }

# A model of another corpus gets a folder of its own name, so that it cannot write over one that was trained here.
name_of_model() {
  local trained_in prefix=''
  trained_in=$(dirname "$1")
  if [ ! "$trained_in" -ef "$exps/$(basename "$trained_in")" ]; then prefix=$(basename "$(dirname "$trained_in")")_; fi
  echo "$prefix$(basename "$trained_in")"
}

# The trained model that training begins with, if any: a file as it is named, or what comes of a conf with the same seed.
starting_model() {
  local start
  start=$(setting start_from)
  if is_conf "$start"; then echo "$exps/$(basename "${start%.*}")$suffix/final.pt"; else echo "$start"; fi
}

# The folder of the fbanks that a section `features` asks for: all configs with the same section share it. Those of the
# defaults lie beside the lists; others have a folder of their own, so that no experiment replaces another's fbanks.
default_features='{"sample_rate": 16000, "num_mels": 80, "frame_length_ms": 25.0, "frame_shift_ms": 10.0, "window": "povey",'
default_features+=' "dither": 0.0, "low_freq": 20.0, "high_freq": 0.0, "snip_edges": true}'
fbank_folder() {
  if [ "$1" = "$default_features" ]; then echo "$data"; else echo "$data/features_$(cksum <<< "$1" | cut -d ' ' -f 1)"; fi
}

# The section `features` of an experiment in another folder, as `setting features` gives that of this one.
features_of() {
  local lines
  lines=$(python -m wespeaker_lite.bin.config show --out "$1/config.yaml") || return
  sed -n 's/^features\t//p' <<< "$lines"
}

# The fbanks of a set must be there, and those that this config (or this model) asks for. Their stamp is added to `current`.
check_features() {
  [ -e "$fbanks/$1/.fbank.stamp" ] || die "$fbanks/$1 has no fbanks, or stale ones: run stage 2 with this config first"
  [ "$(cat "$fbanks/$1/features.json")" = "$(setting features)" ] ||
    die "the fbanks in $fbanks/$1 are not those that $exp/config.yaml asks for: run stage 2 with this config first"
  current+=("$fbanks/$1/.fbank.stamp")
}
