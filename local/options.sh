# Sourced by common.sh: the options of run.sh and of every stage, with defaults and help.
# shellcheck shell=bash disable=SC2034,SC2154  # what is set here is used where this is sourced, and the other way round

# parse_options.sh makes an option of each lower-case variable that is set here. These three are not options.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CALLER_DIR=$PWD
ARGUMENTS=("$@") # parse_options.sh removes them from $@

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
Each stage is a script in local/. A finished stage is skipped. It runs again when its config or inputs have changed.

Options:
  --corpus NAME       a folder of egs/ ($corpus)
  --corpus-dir DIR    the folder of the corpus (default: data/<corpus>/corpus, which stage 0 fills)
  --data-name NAME    use data/NAME and exp/NAME instead of data/<corpus> and exp/<corpus>, to keep a second --corpus-dir
  --vox1-dir DIR, --vox2-dir DIR   VoxCeleb1 and 2, for --corpus voxceleb; stage 0 keeps links to them
  --musan-dir DIR     noise, music and speech of MUSAN, for augmentation
  --rirs-dir DIR      room impulse responses of RIRS_NOISES, for copies (augment.copies)
  --config YAML       the student's conf (default: the one in egs/<corpus>/corpus.conf)
  --model FILE        evaluate this final.pt: nothing is trained
  --name NAME         the experiment's folder in exp/<corpus>/ (default: the YAML's stem, with _s<seed> if the seed is not 0;
                      with --model the folder of the model, after the name of its corpus if that is another one)
  --seed N            random seed of the student's weights and crops ($seed)
  --set KEY=VALUE     change a key of the student's config; may be repeated
  --teacher-set KEY=VALUE   the same for the configs of its teacher and of the model that it starts from
  --stage N, --stop-stage N   first and last stage ($stage to $stop_stage)
  --nj N              number of parallel jobs in stages 2 and 5 ($nj)
  --cmd CMD           the job runner, with its options ($cmd)
  --gpu N             number of GPUs for training; if not 0, each extraction job uses one ($gpu)
  --processes N       processes that share a training (0: one per GPU); with train.batch_norm=shared the result is that of one
  --nodes N           Slurm nodes that share a training, each with --gpu GPUs or --processes processes ($nodes)
  --sets 'A B'        the data dirs that stage 5 extracts (default: those that scoring needs)
  --front-end DIR     stage 2 computes the fbanks that the experiment in DIR uses, such as a teacher, not its own
  --max-bad N         number of unreadable utterances that each job of stage 2 may leave out ($max_bad)
  --no-pipes true     run no commands of a wav.scp: a 'command |' in it is an error ($no_pipes)"

# shellcheck source=tools/parse_options.sh
. "$ROOT/tools/parse_options.sh"
if [ $# -gt 0 ]; then
  echo "$(basename "$0"): unexpected argument '$1'; see --help" >&2
  exit 1
fi

# Tables, configs and stamps contain these paths, and are UTF-8 text.
if ! printf '%s\n' "$ROOT" "$CALLER_DIR" "${ARGUMENTS[@]}" | iconv -f UTF-8 -t UTF-8 > /dev/null 2>&1; then
  echo "$(basename "$0"): not UTF-8: a path of $(printf '%q ' "$ROOT" "$CALLER_DIR" "${ARGUMENTS[@]}"): rename it" >&2
  exit 1
fi

# Prints the absolute path of a file or folder. Each has only one: another name for it would look like a changed list.
absolute() { [ -z "$1" ] || (cd "$CALLER_DIR" && realpath --canonicalize-missing --no-symlinks -- "$1"); }

# Paths are relative to the caller's folder. That of a conf may also be relative to the root of the repository.
corpus_dir=$(absolute "$corpus_dir")
vox1_dir=$(absolute "$vox1_dir")
vox2_dir=$(absolute "$vox2_dir")
musan_dir=$(absolute "$musan_dir")
rirs_dir=$(absolute "$rirs_dir")
model=$(absolute "$model")
if [ -n "$config" ] && [ -e "$(absolute "$config")" ]; then config=$(absolute "$config"); fi

# check_options: call it in the root of the repository.
check_options() {
  if [[ ! $corpus =~ ^[[:alnum:]_-]+$ || ! -e egs/$corpus/corpus.conf ]]; then
    die "--corpus $corpus: no egs/$corpus/corpus.conf; there are: $(cd egs && dirname -- */corpus.conf | paste -sd ' ')"
  fi
  [ -z "$vox1_dir$vox2_dir" ] || [ "$corpus" = voxceleb ] || die "--vox1-dir and --vox2-dir need --corpus voxceleb"
  [[ $nodes =~ ^[1-9][0-9]*$ && $processes =~ ^[0-9]+$ ]] || die "--nodes $nodes --processes $processes: expected whole numbers"
  if [ "$nodes" != 1 ] && [[ $cmd != *slurm.pl* ]]; then
    die "--nodes $nodes needs --cmd tools/slurm.pl: Slurm starts training on several nodes (this is --cmd '$cmd')"
  fi
  for dir in "$vox1_dir" "$vox2_dir" "$musan_dir" "$rirs_dir"; do
    [ -z "$dir" ] || [ -d "$dir" ] || die "$dir: no such folder"
  done
  place=${data_name:-$corpus}
  if [[ ! $place =~ ^[[:alnum:]_-]+$ ]] || { [ "$place" != "$corpus" ] && [ -e "egs/$place" ]; }; then
    die "--data-name $place: expected letters, digits, _ and -, and no name of another corpus of egs/"
  fi
}
