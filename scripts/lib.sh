# What the set-up scripts share; sourced, never run. All that they print for a
# person goes to standard error: standard output is for results.
# shellcheck shell=bash disable=SC2034

CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/registrator

say() { printf '%s\n' "$*" >&2; }

# die MESSAGE: one line that says what, where and what to do.
die() {
    say "error: $*"
    exit 1
}

# step TEXT COMMAND...: say what is done, run it, say how many seconds it took.
# The command's own words are shown only if it fails.
step() {
    local text=$1 log started=$EPOCHREALTIME
    shift
    log=$(mktemp)
    printf '%s ... ' "$text" >&2
    if ! "$@" >"$log" 2>&1; then
        say "failed"
        tail -n 20 "$log" >&2
        rm -f "$log"
        return 1
    fi
    rm -f "$log"
    say "$(seconds_since "$started") s"
}

# seconds_since START: the time since START ($EPOCHREALTIME), with one decimal.
seconds_since() {
    local now=$EPOCHREALTIME tenths
    # Digits only, as microseconds: the decimal sign follows the locale.
    tenths=$(((${now//[!0-9]/} - ${1//[!0-9]/}) / 100000))
    printf '%d.%d' $((tenths / 10)) $((tenths % 10))
}

have() { command -v "$1" >/dev/null 2>&1; }

on_debian() { [[ -e /etc/debian_version ]] && have apt-get; }

# may_install: whether packages can be installed here without asking anybody.
may_install() { [[ $(id -u) = 0 ]] && on_debian; }

# apt_install PACKAGE...: with fresh package lists, and with no questions.
apt_install() {
    apt-get update -qq &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" </dev/null
}

# debian_source SUITE [FOLDER]: the machine's own Debian archive (by /etc/apt, or
# FOLDER), as one stanza for SUITE, so that no host name needs to be known here.
# Fails where the machine names none.
debian_source() {
    local suite=$1 folder=${2:-/etc/apt}
    if [[ -r $folder/sources.list.d/debian.sources ]]; then
        # The first stanza that is not all comments.
        awk -v suite="$suite" '
            /^#/ { next }
            /^[[:space:]]*$/ { if (seen) exit; next }
            { seen = 1 }
            tolower($1) == "suites:" { print "Suites: " suite; next }
            tolower($1) == "components:" { print "Components: main"; next }
            { print }' "$folder/sources.list.d/debian.sources"
        return
    fi
    [[ -r $folder/sources.list ]] || return 1
    # One line: deb [options] URI suite components
    awk -v suite="$suite" '
        $1 == "deb" {
            options = ""; at = 2
            if ($2 ~ /^\[/) {
                do { options = options " " $at } while ($(at++) !~ /\]$/)
                gsub(/[][]/, "", options)
            }
            print "Types: deb\nURIs: " $at "\nSuites: " suite "\nComponents: main"
            if (match(options, /signed-by=[^ ]+/)) print "Signed-By: " substr(options, RSTART + 10, RLENGTH - 10)
            found = 1; exit
        }
        END { exit !found }' "$folder/sources.list"
}
