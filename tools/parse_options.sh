# shellcheck shell=bash
# Parses the options of a script, which are the variables that it has set. Source it after the defaults:
#
#   nj=4; cmd=tools/run.pl; resume=true; sets=()
#   help_message="usage ..."
#   . tools/parse_options.sh         # --nj 8 --resume false --sets a=1 --sets b=2 first-positional ...
#
# --foo-bar X and --foo_bar X set foo_bar. The type is that of the default: true or false, a whole number, or any text.
# The option of an array may be repeated. Positional arguments stay in "$@". --help prints $help_message.
# Only lower-case variables that the script has set are options. No value is ever run as code.

# All names here begin with _, which no option name does: a local variable must not hide one of the script.

_options_fail() {
  echo "${0##*/}: $1" >&2
  exit 1
}

# Whether the script has set the variable. If it has the same value in the environment, it counts only if a sourced script
# assigns it.
_options_has() {
  local _declared
  [[ $1 =~ ^[a-z][a-z0-9_]*$ && $1 != help_message ]] && _declared=$(declare -p "$1" 2>/dev/null) || return 1
  [[ $_declared =~ ^declare\ -[a-zA-Z]*x ]] && grep -qszxF -- "$1=${!1}" /proc/$$/environ || return 0
  grep -qsE "(^|[[:space:];])$1=" "${BASH_SOURCE[@]}"
}

# Prints the options with the smallest edit distance to $1, as ` --a --b`. Prints none if the distance is large.
_options_nearest() {
  local _name
  for _name in $(compgen -v); do
    ! _options_has "$_name" || echo "$_name"
  done | awk -v word="$1" '
    function min(a, b) { return a < b ? a : b }
    function edits(a, b,    i, j, row, above, diagonal) {
      for (j = 0; j <= length(b); j++) row[j] = j
      for (i = 1; i <= length(a); i++) {
        diagonal = row[0]; row[0] = i
        for (j = 1; j <= length(b); j++) {
          above = row[j]
          row[j] = min(diagonal + (substr(a, i, 1) != substr(b, j, 1)), 1 + min(above, row[j - 1]))
          diagonal = above
        }
      }
      return row[length(b)]
    }
    { d = edits(word, $1); if (d <= (length(word) + 2) / 3 && (!found || d <= best)) {
        names = (found && d == best ? names : "") " --" $1; best = d; found = 1 } }
    END { gsub("_", "-", names); print names }'
}

_options_set() {
  local _option=$1 _name=$2 _value=$3 _declared
  _declared=$(declare -p "$_name")
  if [[ $_declared =~ ^declare\ -[A-Za-z]*a ]]; then
    local -n _array=$_name
    _array+=("$_value")
    return
  fi
  case ${!_name-} in
    true | false)
      [[ $_value == true || $_value == false ]] || _options_fail "$_option needs true or false, not '$_value'" ;;
    *)
      if [[ ${!_name-} =~ ^-?[0-9]+$ && ! $_value =~ ^-?(0|[1-9][0-9]{0,17})$ ]]; then
        _options_fail "$_option needs a whole number, not '$_value'"
      fi ;;
  esac
  printf -v "$_name" %s "$_value"
}

# Reads options up to the first word that is not one. Sets _options_read to the number of words read.
_options_parse() {
  local _option _name _next _nearest
  _options_read=0
  while [[ $# -gt 0 && ($1 == --* || $1 == -h) ]]; do
    _option=$1
    case $_option in
      --help | -h) printf '%s\n' "${help_message:-${0##*/} has no help text}"; exit 0 ;;
      --) _options_read=$((_options_read + 1)); return ;;
      --*=*) _options_fail "write '${_option%%=*} ${_option#*=}', not '$_option'" ;;
    esac
    _name=${_option#--}
    _name=${_name//-/_}
    if ! _options_has "$_name"; then
      _nearest=$(_options_nearest "$_name")
      _options_fail "unknown option $_option${_nearest:+; the nearest:$_nearest} (--help lists all)"
    fi
    [[ $# -ge 2 ]] || _options_fail "$_option needs a value"
    _next=${2#--}
    [[ $2 != --* ]] || ! _options_has "${_next//-/_}" || _options_fail "$_option needs a value, but $2 follows"
    _options_set "$_option" "$_name" "$2"
    _options_read=$((_options_read + 2))
    shift 2
  done
}

_options_parse "$@"
shift "$_options_read"
unset _options_read
unset -f _options_fail _options_has _options_nearest _options_set _options_parse
