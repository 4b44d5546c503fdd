# shellcheck shell=bash
# What scripts/test and scripts/demo share, to be sourced: finds Python, installs what is missing.

step() { printf '\n==> %s\n' "$*" >&2; }
fail() { printf '\nerror: %s\n' "$*" >&2; exit 1; }

as_root() { if ((EUID == 0)); then "$@"; else sudo "$@"; fi; }

# apt_install PACKAGE...: fails where that is not possible. No service is started meanwhile.
apt_install() {
    command -v apt-get >/dev/null || return 1
    step "Installing with apt-get: $*"
    # shellcheck disable=SC2016  # the expressions are for the inner shell
    as_root bash -euc '
        export DEBIAN_FRONTEND=noninteractive
        policy=/usr/sbin/policy-rc.d
        if [[ ! -e $policy ]]; then
            trap "rm -f $policy" EXIT
            printf "#!/bin/sh\nexit 101\n" >"$policy"
            chmod +x "$policy"
        fi
        apt-get -qq update || echo "apt-get update failed; going on with the known packages" >&2
        apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@" >/dev/null
    ' bash "$@" </dev/null >&2
}

# find_python: prints the interpreter to use, $PYTHON or the first one that is new enough.
find_python() {
    local candidate candidates=(python3 python3.14 python3.13 python3.12 python3.11)
    [[ -z ${PYTHON:-} ]] || candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        # The interpreter itself, not a launcher or the virtual environment that calls it.
        "$candidate" -Ic 'if 1:
            import sys
            if sys.version_info < (3, 11): sys.exit(1)
            print(sys._base_executable)' 2>/dev/null && return
    done
    fail "no Python 3.11 or newer among: ${candidates[*]}. Install one, or set PYTHON to its path."
}

# make_venv FOLDER PYTHON [EXTRAS]: a virtual environment with the project, made again when the
# interpreter or the dependencies have changed.
make_venv() {
    local venv=$1 python=$2 extras=${3:-} want minor
    want=$({ pwd; "$python" -VV; echo "$python"; cat setup.cfg pyproject.toml; } | sha256sum)
    if [[ $(cat "$venv/installed$extras" 2>/dev/null) == "$want" ]] && "$venv/bin/python" -c ''; then
        step "Using $venv ($("$venv/bin/python" -V))"
        return
    fi
    if ! "$python" -Ic 'import ensurepip, venv' 2>/dev/null; then
        minor=$("$python" -Ic 'import sys; print("%d.%d" % sys.version_info[:2])')
        apt_install "python$minor-venv" || true
        "$python" -Ic 'import ensurepip, venv' ||
            fail "$python cannot make virtual environments; on Debian, install python$minor-venv."
    fi
    step "Making $venv with $("$python" -V) and installing the project (.$extras) into it"
    "$python" -m venv --clear "$venv"
    "$venv/bin/python" -m pip --disable-pip-version-check install --quiet --editable ".$extras" >&2
    echo "$want" >"$venv/installed"
    echo "$want" >"$venv/installed$extras"
}

# need_rabbitmq: installs rabbitmq-server where it is missing. The project starts its own node.
need_rabbitmq() {
    # On Debian it is in a folder that is not on a user's PATH.
    local PATH="$PATH:/usr/local/sbin:/usr/sbin"
    if command -v rabbitmq-server >/dev/null; then
        step "Using $(command -v rabbitmq-server)"
        return
    fi
    apt_install rabbitmq-server ||
        fail "rabbitmq-server is missing and could not be installed with apt-get: install RabbitMQ" \
            "(https://www.rabbitmq.com/docs/download) so that rabbitmq-server is on the PATH."
    # Nor shall a broker of the system's own start at the next boot.
    [[ ! -d /run/systemd/system ]] || as_root systemctl --quiet disable rabbitmq-server
}
