# Sourced by common.sh: the options of run.sh and of every stage, with their defaults and their help.
# shellcheck shell=bash disable=SC2034,SC2154  # what is set here is used where this is sourced, and the other way round

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

# check_options: once the shell is in the repository's root.
check_options() {
  if [[ ! $corpus =~ ^[[:alnum:]_-]+$ || ! -e egs/$corpus/corpus.conf ]]; then
    die "--corpus $corpus: no egs/$corpus/corpus.conf; there are: $(cd egs && dirname -- */corpus.conf | paste -sd ' ')"
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
}
