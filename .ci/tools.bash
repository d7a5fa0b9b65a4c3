# To be sourced, in the directory of the repository. Programs for checks, from PyPI: in target/lint, with links to them in target/tools. Only
# the links are in PATH: beside the programs there is a Python.
export PATH=$PWD/target/tools:$PATH

has_python() { # makes target/lint, if it is not there. Fails where Python lacks the module for that, and nobody may install it.
  [ -x target/lint/bin/pip ] || python3 -m venv --clear target/lint > /dev/null 2>&1 || {
    # Debian has the module in a package of its own.
    [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null &&
      apt-get -qq update &&
      DEBIAN_FRONTEND=noninteractive apt-get -qq --yes --no-install-recommends install python3-venv > /dev/null &&
      python3 -m venv --clear target/lint
  }
}

python_packages() { # ARGUMENT...: of pip, what to install
  target/lint/bin/pip --quiet --disable-pip-version-check install "$@"
}

prebuilt() { # PROGRAM: has it in PATH. If it is not there, it is one of those in `.ci/tools.txt`, which are for x86_64 and glibc.
  if type -P "$1" > /dev/null; then return; fi
  has_python && python_packages --no-deps --requirement <(grep -E "(^|-)$1==" .ci/tools.txt) || return
  mkdir -p target/tools
  ln -sf "../lint/bin/$1" "target/tools/$1"
}

built() { # PROGRAM: the same, and builds that version where the file is not to be had. Hardly optimized: that takes longer than all its runs.
  prebuilt "$1" ||
    CARGO_PROFILE_RELEASE_OPT_LEVEL=1 cargo install --locked --quiet "$1" --version "$(sed -nE "s/^(.*-)?$1==([^ ]+) .*/\2/p" .ci/tools.txt)"
}

not_tried() { # WHAT: ends a check that lacks what it takes. It fails, but in `.ci/run`, which goes on with what can be checked, and lists the rest.
  printf '\nNOT TRIED: %s\n' "$1"
  [ -n "${NOT_TRIED-}" ] || exit 1
  echo "$1" >> "$NOT_TRIED"
  exit 0
}

by_hand() { # COMMAND ARGUMENT...: of cargo, for the tests with `test = false`. Beside all targets, cargo leaves them out even where they are named.
  local package name tests
  for package in tests examples; do
    tests=()
    for name in $(awk -F'"' '/^\[/ { kind = $0 } /^name/ { name = $2 } /^test = false/ && kind == "[[test]]" { print name }' "$package/Cargo.toml"); do
      tests+=(--test "$name")
    done
    cargo "$1" --package "belljar-$package" "${tests[@]}" "${@:2}" || return
  done
}
