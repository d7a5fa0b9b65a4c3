# To be sourced. Another release's packages, from the mirror that this machine's apt uses, with nothing installed.

debian_mirror() {
  local sources mirror
  sources=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2> /dev/null || true)
  mirror=$(sed -nE 's#^(URIs:|deb)( .*)? ([^ ]+/debian/?)( .*)?$#\3#p' <<< "$sources" | head -1)
  [ -n "$mirror" ] || { echo 'No mirror of Debian is configured in /etc/apt.' >&2; return 1; }
  echo "$mirror"
}

use_suite() { # SUITE DIRECTORY: sets `apt`, options for apt-get and apt-cache whose state lies in DIRECTORY
  local mirror
  mirror=$(debian_mirror) || return
  mkdir -p "$2"/{lists/partial,cache/archives/partial}
  touch "$2/status"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $1 main" > "$2/sources.list"
  apt=(-qq -o Dir::Etc::sourcelist="$2/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::Lists="$2/lists"
    -o Dir::Cache="$2/cache" -o Dir::State::status="$2/status" -o APT::Sandbox::User=root -o APT::Install-Recommends=0)
  apt-get "${apt[@]}" update
}
