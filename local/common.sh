# Sourced by run.sh and by every stage. Sets up options, environment, corpus and experiment, in this order. Changes to the
# root of the repository.
# shellcheck shell=bash disable=SC2034  # what is set here is used where this is sourced

# Ignore exported variables of these names: with CDPATH, `cd` would print its target, and the arrays would stay exported.
unset -v CDPATH set teacher_set

# shellcheck source=local/options.sh
. "$(dirname "${BASH_SOURCE[0]}")/options.sh"
cd "$ROOT" || exit 1
config=${config#"$ROOT/"}
. ./path.sh
. tools/lock.sh

# The config sections that trained weights depend on.
training_sections=(seed pretrained start_from features augment crop model head distill train)

say() { echo "$(date '+%Y-%m-%d %H:%M:%S') $(basename "$0" .sh): $*"; }
die() { echo "$(basename "$0"): $*" >&2; exit 1; }

check_options
data=data/$place exps=exp/$place
# Prints the sets of this corpus that stage 1 has made. A corpus may have no training set.
made_sets() { for set_name in $train_set $test_set; do [ ! -e "$data/$set_name/wav.scp" ] || echo "$set_name"; done; }
. local/made_from.sh
. local/settings.sh
. local/stamps.sh
. local/jobs.sh
read_made_from
default_config='' train_set='' test_set='' cohort_set='' trials=''
mean_trials='' # stage 6 also writes the mean over these lists, one for each test set
# The variables and options, besides --corpus-dir, that stages 0 and 1 depend on; how the stamp of stage 1 checks the corpus
# for changes; the options of prepare.sh.
corpus_variables='' corpus_stamp=--trees corpus_arguments=()
# shellcheck source=/dev/null
. "egs/$corpus/corpus.conf"
for variable in default_config train_set test_set cohort_set; do
  [ -n "${!variable}" ] || die "egs/$corpus/corpus.conf does not set $variable"
done
corpus_dir=${corpus_dir#"$ROOT/"}
[ -n "$corpus_dir" ] || [ "$place" = "$corpus" ] ||
  die "--data-name $place needs --corpus-dir: generated and downloaded corpora are in data/$corpus/corpus"
corpus_dir=${corpus_dir:-$data/corpus}
check_made_from
config=${config:-$default_config}

pipes=()
if $no_pipes; then pipes=(--no-pipes); fi

trained=true suffix=''
if [ -n "$model" ]; then
  [ -e "$model" ] || die "--model $model: no such file"
  [ "${#set[@]}" -eq 0 ] || die "--set changes training only: leave it out with --model, which has its own config"
  trained=false
  name=${name:-$(name_of_model "$model")}
else
  if [ "$seed" -ne 0 ]; then set+=("seed=$seed") suffix=_s$seed; fi
  name=${name:-$(basename "$config" .yaml)$suffix}
fi
# A name is one folder, and is also used in NAME=FILE, so it has no / and no =. Job runners replace JOB by a number.
[[ $name =~ ^[^[:cntrl:]/=.-][^[:cntrl:]/=]*$ && $name != *JOB* ]] ||
  die "--name '$name': expected the name of a folder in $exps, without / or = or JOB, and no - or . at its start"
[[ $model != *JOB* ]] || die "--model $model: rename it: runners replace JOB by the number of a job"
exp=$exps/$name
lock "$exp" || true
if ! $trained; then
  resolving=(from-model --model "$model") basis_files=("$model")
else
  model=$exp/final.pt
  resolving=(resolve --config "$config" --overrides "egs/$corpus/overrides.yaml" "${set[@]/#/--set=}") # with =, no value can be read as an option
  basis_files=("$config" "egs/$corpus/overrides.yaml")
fi
# Stages use the settings that run.sh has read while the files are unchanged: starting Python costs 0.1 s.
settings_inputs() {
  printf '%q ' "${resolving[@]}"
  stat -c '%n %s %y %z %i' -- "$exp/config.yaml" "${basis_files[@]}" 2>&1 || true # a corpus may have no overrides
}
if [ "$(settings_inputs)" != "${WESPEAKER_LITE_SETTINGS_OF-}" ]; then
  WESPEAKER_LITE_SETTINGS=$(python -m wespeaker_lite.bin.config "${resolving[@]}" --out "$exp/config.yaml") || exit
  WESPEAKER_LITE_SETTINGS_OF=$(settings_inputs)
  export WESPEAKER_LITE_SETTINGS WESPEAKER_LITE_SETTINGS_OF
fi
while IFS=$'\t' read -r key value; do settings[$key]=$value; done <<< "$WESPEAKER_LITE_SETTINGS"
case $(basename "$0") in
  train_student.sh | extract_embeddings.sh | score.sh | report.sh | export.sh) if $trained; then check_clips && check_teacher_set; fi ;;
esac
if [ -n "$front_end" ]; then settings[features]=$(features_of "$front_end") || exit; fi
front_end=${front_end:-$exp}
fbanks=$(fbank_folder "$(setting features)")
