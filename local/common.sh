# Sourced by run.sh and by every stage: options, corpus, environment, experiment. Leaves the shell in the repository's root.
# shellcheck shell=bash disable=SC2034  # what is set here is used where this is sourced

# What the caller exports under these names is not meant: `cd` would print where it went, and an array stay exported.
unset -v CDPATH set teacher_set

# Options are the variables in lower case that are set before parse_options.sh; these are none.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CALLER_DIR=$PWD
ARGUMENTS=("$@") # parse_options.sh takes them out of $@

corpus=mini
data_name=
corpus_dir=
vox1_dir=
vox2_dir=
musan_dir=
rirs_dir=
config=
model=
name=
seed=0
set=()
teacher_set=()
stage=0
stop_stage=8
nj=2
cmd=tools/run.pl
gpu=0
processes=0
nodes=1
max_bad=0
no_pipes=false
sets=
front_end=

help_message="Usage: bash run.sh [options]
       bash local/<stage>.sh [options]

  bash run.sh                                                       # all stages on the mini corpus, nothing downloaded
  bash run.sh --corpus speechocean762 --config conf/ecapa_c128.yaml --nj 4
  bash run.sh --stage 3 --stop-stage 5 --set train.epochs=20 --seed 1
  bash run.sh --corpus own --corpus-dir my_speech --stage 0 --model exp/speechocean762/ecapa_c128/final.pt

Stages: 0 get the corpus, 1 data dirs and trials, 2 fbanks, 3 teacher, 4 student, 5 embeddings, 6 scores, 7 report,
8 export.
Each is a script of local/. What is done is skipped; what a changed config or list makes stale is done again.

Options:
  --corpus NAME       a folder of egs/ ($corpus)
  --corpus-dir DIR    where the corpus lies (by default it is put into data/<corpus>/corpus)
  --data-name NAME    data/NAME and exp/NAME in place of data/<corpus> and exp/<corpus>: a second --corpus-dir beside the first
  --vox1-dir DIR, --vox2-dir DIR   VoxCeleb1 and 2, of --corpus voxceleb; stage 0 keeps links to them
  --musan-dir DIR     noise, music and speech of MUSAN, for augmentation
  --rirs-dir DIR      room impulse responses of RIRS_NOISES, for copies (augment.copies)
  --config YAML       the student's conf (by default the one that egs/<corpus>/corpus.conf names)
  --model FILE        evaluate this final.pt: nothing is trained
  --name NAME         the experiment's folder in exp/<corpus>/ (by default the YAML's stem, with _s<seed> for a seed but 0;
                      for a --model its own, with that of its corpus before it if it is another)
  --seed N            of the student's weights and crops ($seed)
  --set KEY=VALUE     change a key of the student's config; may be repeated
  --teacher-set KEY=VALUE   the same for the configs of its teacher and of the model that it starts from
  --stage N, --stop-stage N   first and last stage ($stage to $stop_stage)
  --nj N              jobs of stages 2 and 5 ($nj)
  --cmd CMD           how jobs run: tools/run.pl, with its options ($cmd)
  --gpu N             GPUs for training; if not 0, each job of extraction has one ($gpu)
  --processes N       processes that share a training (0: one for each GPU); with train.batch_norm=shared they give what one would
  --nodes N           nodes of Slurm that share a training, each with so many GPUs or processes ($nodes)
  --sets 'A B'        the data dirs that stage 5 extracts (by default those that scoring needs)
  --front-end DIR     stage 2 makes fbanks for the features of this experiment, such as a teacher's, and not of its own
  --max-bad N         unreadable utterances that stage 2 may leave out, per job ($max_bad)
  --no-pipes true     run no command that a wav.scp names: one that has a 'command |' is refused ($no_pipes)"

# shellcheck source=tools/parse_options.sh
. "$ROOT/tools/parse_options.sh"
if [ $# -gt 0 ]; then
  echo "$(basename "$0"): unexpected argument '$1'; see --help" >&2
  exit 1
fi

# Tables, configs and stamps are UTF-8 text, and have these names in them.
if ! printf '%s\n' "$ROOT" "$CALLER_DIR" "${ARGUMENTS[@]}" | iconv -f UTF-8 -t UTF-8 > /dev/null 2>&1; then
  echo "$(basename "$0"): not UTF-8: a path of $(printf '%q ' "$ROOT" "$CALLER_DIR" "${ARGUMENTS[@]}"): rename it" >&2
  exit 1
fi

# However a place is named, it gets one name: a changed name would look like changed lists.
absolute() { [ -z "$1" ] || (cd "$CALLER_DIR" && realpath --canonicalize-missing --no-symlinks -- "$1"); }

# A path that the user gives is relative to where the user is; a conf file may also be named as seen from the root.
corpus_dir=$(absolute "$corpus_dir")
vox1_dir=$(absolute "$vox1_dir")
vox2_dir=$(absolute "$vox2_dir")
musan_dir=$(absolute "$musan_dir")
rirs_dir=$(absolute "$rirs_dir")
model=$(absolute "$model")
if [ -n "$config" ] && [ -e "$(absolute "$config")" ]; then config=$(absolute "$config"); fi
cd "$ROOT" || exit 1
config=${config#"$ROOT/"}
. ./path.sh
. tools/lock.sh

# The config sections that trained weights depend on.
training_sections=(seed pretrained start_from features augment crop model head distill train)

say() { echo "$(date '+%Y-%m-%d %H:%M:%S') $(basename "$0" .sh): $*"; }
die() { echo "$(basename "$0"): $*" >&2; exit 1; }

if [[ ! $corpus =~ ^[[:alnum:]_-]+$ || ! -e egs/$corpus/corpus.conf ]]; then
  die "--corpus $corpus: no egs/$corpus/corpus.conf; there are: $(cd egs && echo */ | tr -d /)"
fi
[ -z "$vox1_dir$vox2_dir" ] || [ "$corpus" = voxceleb ] || die "--vox1-dir and --vox2-dir are of --corpus voxceleb"
[[ $nodes =~ ^[1-9][0-9]*$ && $processes =~ ^[0-9]+$ ]] || die "--nodes $nodes --processes $processes: expected whole numbers"
if [ "$nodes" != 1 ] && [[ $cmd != *slurm.pl* ]]; then
  die "--nodes $nodes needs --cmd tools/slurm.pl: training on several nodes is started by Slurm (this is --cmd '$cmd')"
fi
for dir in "$vox1_dir" "$vox2_dir" "$musan_dir" "$rirs_dir"; do
  [ -z "$dir" ] || [ -d "$dir" ] || die "$dir: no such folder"
done
place=${data_name:-$corpus}
if [[ ! $place =~ ^[[:alnum:]_-]+$ ]] || { [ "$place" != "$corpus" ] && [ -e "egs/$place" ]; }; then
  die "--data-name $place: expected letters, digits, _ and -, and no name of another corpus of egs/"
fi
data=data/$place exps=exp/$place
# The sets of this corpus that stage 1 has made; a corpus may come without a training set.
made_sets() { for set_name in $train_set $test_set; do [ ! -e "$data/$set_name/wav.scp" ] || echo "$set_name"; done; }
. local/made_from.sh
take_made_from
default_config='' train_set='' test_set='' cohort_set='' trials=''
mean_trials='' # the lists, one of each test set, whose figures stage 6 also gives the mean of
# The variables and options that stages 0 and 1 depend on, besides --corpus-dir; how the corpus is looked at for changes;
# options of its prepare.sh.
corpus_variables='' corpus_stamp=--trees corpus_arguments=()
# shellcheck source=/dev/null
. "egs/$corpus/corpus.conf"
corpus_dir=${corpus_dir#"$ROOT/"}
[ -n "$corpus_dir" ] || [ "$place" = "$corpus" ] ||
  die "--data-name $place needs --corpus-dir: what is made or downloaded lies in data/$corpus/corpus"
corpus_dir=${corpus_dir:-$data/corpus}
check_made_from
config=${config:-$default_config}

pipes=()
if $no_pipes; then pipes=(--no-pipes); fi

# A value of the experiment's config, by a key such as distill.teacher; see its end for where they come from.
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

# Says what is not installed, with the command that installs it, and fails if anything is.
missing_for_export() {
  local lines
  lines=$(python tools/requirements.py requirements-export.txt) ||
    { echo "${lines//$'\n'/, }; get it by: tools/install.sh --extras export" && false; }
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

# Reads the data beside others; who had to wait looks again whether they are still those of the corpus that is meant.
lock_for_reading() { lock "$data" shared || check_made_from; }

# split_for_jobs SET_DIR OUT: parts OUT/1, OUT/2 ... for the jobs, and their number in `jobs`: nj, or fewer for a small set.
split_for_jobs() {
  rm -rf "$2"
  python -m wespeaker_lite.bin.data_dir split "$1" "$nj" "$2" --per-utt --at-most
  jobs=$(find "$2" -mindepth 1 -maxdepth 1 -type d | wc -l)
}

# arrived FILE: wait until the files of all jobs, whose number stands for JOB, are seen here; a file server may show late what
# was made on other machines. They come in the array `arrivals`, numbers in order.
arrived() {
  local number file second
  arrivals=()
  for ((number = 1; number <= ${jobs:-1}; number++)); do
    file=${1//JOB/$number}
    for ((second = 0; second < 90; second++)); do
      ls "$(dirname "$file")" &> /dev/null || true # which makes NFS look anew
      [ ! -e "$file" ] || break
      sleep 1
    done
    [ -e "$file" ] || die "$file: the job that makes it has ended well, but it is not there"
    arrivals+=("$file")
  done
}

# fresh STAMP INPUTS...: true, and says so, where STAMP was left by the same inputs; an input that is not there ends the stage.
fresh() {
  local code=0
  stamp_and_inputs=("$@")
  python -m wespeaker_lite.bin.stamp check "$@" || code=$?
  # What experiments share is made by one of them at a time, and while none reads it; who had to wait looks again.
  if [ "$code" -eq 3 ] && [[ $1 == "$data"/* ]] && ! lock "$data"; then
    code=0
    check_made_from
    python -m wespeaker_lite.bin.stamp check "$@" || code=$?
  fi
  [ "$code" -ne 3 ] || rm -f -- "$1" # a stale stamp must not outlive a stage that fails
  [ "$code" -eq 0 ] || [ "$code" -eq 3 ] || exit "$code"
  [ "$code" -ne 0 ] || say "done already ($1)"
  return "$code"
}
# stamp OUTPUTS... [--editable OUTPUTS...]: leave the stamp that `fresh` was last asked about.
stamp() { python -m wespeaker_lite.bin.stamp write "${stamp_and_inputs[@]}" --outputs "$@"; }

# run_jobs WORD...: what --cmd names, with these words. Kaldi's own runners give bash a word without spaces as it stands:
# a runner that is not one of ours gets only words in which bash finds nothing to do.
run_jobs() {
  local runner word
  read -rd "" -a runner <<< "$cmd" || true
  if [ ! "$(dirname -- "${runner[0]}")" -ef tools ]; then
    for word; do
      [[ $word =~ ^[[:alnum:]_./:=,+@%-]*$ ]] || die "--cmd ${runner[0]} cannot be given '$word': rename it, or use tools/*.pl"
    done
  fi
  "${runner[@]}" "$@"
}

# follow LOG PATTERN COMMAND...: run a job whose output goes to LOG, and show here what matches, since it may take hours.
follow() {
  local log=$1 pattern=$2 code=0 tail_pid
  shift 2
  mkdir -p "$(dirname "$log")" && : > "$log"
  tail --pid=$$ -n +1 -F "$log" 2> /dev/null > >(grep --line-buffered -E "$pattern") &
  tail_pid=$!
  "$@" || code=$?
  sleep 0.2 # for tail to read the last lines
  kill "$tail_pid" 2> /dev/null || true
  return "$code"
}

trained=true suffix=''
if [ -n "$model" ]; then
  [ -e "$model" ] || die "--model $model: no such file"
  [ "${#set[@]}" -eq 0 ] || die "--set changes what is trained; a --model keeps the config that it carries"
  trained=false
  name=${name:-$(name_of_model "$model")}
else
  if [ "$seed" -ne 0 ]; then set+=("seed=$seed") suffix=_s$seed; fi
  name=${name:-$(basename "$config" .yaml)$suffix}
fi
# A name is one folder of its own, and what stands before the = in a NAME=FILE; runners put numbers in the place of JOB.
[[ $name =~ ^[^[:cntrl:]/=.-][^[:cntrl:]/=]*$ && $name != *JOB* ]] ||
  die "--name '$name': expected the name of a folder in $exps, without / or = or JOB, and no - or . at its start"
[[ $model != *JOB* ]] || die "--model $model: JOB stands for the number of a job: call it by another name"
exp=$exps/$name
lock "$exp" || true
if ! $trained; then
  resolving=(from-model --model "$model")
else
  model=$exp/final.pt
  resolving=(resolve --config "$config" --overrides "egs/$corpus/overrides.yaml" "${set[@]/#/--set=}") # none of them is another option
fi
lines=$(python -m wespeaker_lite.bin.config "${resolving[@]}" --out "$exp/config.yaml") || exit
while IFS=$'\t' read -r key value; do settings[$key]=$value; done <<< "$lines"
case $(basename "$0") in
  train_student.sh | extract_embeddings.sh | score.sh | report.sh | export.sh) if $trained; then check_clips && check_teacher_set; fi ;;
esac
if [ -n "$front_end" ]; then settings[features]=$(features_of "$front_end") || exit; fi
front_end=${front_end:-$exp}
fbanks=$(fbank_folder "$(setting features)")
