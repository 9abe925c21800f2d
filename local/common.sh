# Sourced by run.sh and by every stage: options, environment, corpus, experiment, in this order. Leaves the shell in the
# repository's root.
# shellcheck shell=bash disable=SC2034  # what is set here is used where this is sourced

# What the caller exports under these names is not meant: `cd` would print where it went, and an array stay exported.
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
# The sets of this corpus that stage 1 has made; a corpus may come without a training set.
made_sets() { for set_name in $train_set $test_set; do [ ! -e "$data/$set_name/wav.scp" ] || echo "$set_name"; done; }
. local/made_from.sh
. local/settings.sh
. local/stamps.sh
. local/jobs.sh
take_made_from
default_config='' train_set='' test_set='' cohort_set='' trials=''
mean_trials='' # the lists, one of each test set, whose figures stage 6 also gives the mean of
# The variables and options that stages 0 and 1 depend on, besides --corpus-dir; how the corpus is looked at for changes;
# options of its prepare.sh.
corpus_variables='' corpus_stamp=--trees corpus_arguments=()
# shellcheck source=/dev/null
. "egs/$corpus/corpus.conf"
for variable in default_config train_set test_set cohort_set; do
  [ -n "${!variable}" ] || die "egs/$corpus/corpus.conf does not set $variable"
done
corpus_dir=${corpus_dir#"$ROOT/"}
[ -n "$corpus_dir" ] || [ "$place" = "$corpus" ] ||
  die "--data-name $place needs --corpus-dir: what is made or downloaded lies in data/$corpus/corpus"
corpus_dir=${corpus_dir:-$data/corpus}
check_made_from
config=${config:-$default_config}

pipes=()
if $no_pipes; then pipes=(--no-pipes); fi

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
  resolving=(from-model --model "$model") basis_files=("$model")
else
  model=$exp/final.pt
  resolving=(resolve --config "$config" --overrides "egs/$corpus/overrides.yaml" "${set[@]/#/--set=}") # none of them is another option
  basis_files=("$config" "egs/$corpus/overrides.yaml")
fi
# Stages take the settings that run.sh has read, as long as the files are as they were then: each Python costs 0.1 s.
basis() {
  printf '%q ' "${resolving[@]}"
  stat -c '%n %s %y %z %i' -- "$exp/config.yaml" "${basis_files[@]}" 2>&1 || true # a corpus may have no overrides
}
if [ "$(basis)" != "${WESPEAKER_LITE_SETTINGS_OF-}" ]; then
  WESPEAKER_LITE_SETTINGS=$(python -m wespeaker_lite.bin.config "${resolving[@]}" --out "$exp/config.yaml") || exit
  WESPEAKER_LITE_SETTINGS_OF=$(basis)
  export WESPEAKER_LITE_SETTINGS WESPEAKER_LITE_SETTINGS_OF
fi
while IFS=$'\t' read -r key value; do settings[$key]=$value; done <<< "$WESPEAKER_LITE_SETTINGS"
case $(basename "$0") in
  train_student.sh | extract_embeddings.sh | score.sh | report.sh | export.sh) if $trained; then check_clips && check_teacher_set; fi ;;
esac
if [ -n "$front_end" ]; then settings[features]=$(features_of "$front_end") || exit; fi
front_end=${front_end:-$exp}
fbanks=$(fbank_folder "$(setting features)")
