# To be sourced from the repository's root: makes .venv if there is none, installs requirements.txt and the packages
# named as arguments unless that was done before, and activates it. PYTHON says which Python makes it (3.11 or newer).
#
#   . scripts/environment.sh pytest==9.2.0
#
# Takes minutes the first time (PyTorch), no time after that.

STAMP=.venv/installed # a line for each set of packages that is in
WANTED="$(cksum < requirements.txt) $*"

if ! grep -qxF "$WANTED" "$STAMP" 2> /dev/null; then
  "${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "${PYTHON:-python3}: expected Python 3.11 or newer; set PYTHON to one" >&2
    return 1
  }
  echo "installing requirements.txt${*:+ and $*} into .venv (minutes the first time)"
  [ -x .venv/bin/pip ] || "${PYTHON:-python3}" -m venv .venv
  .venv/bin/python -m pip install -qq --disable-pip-version-check -r requirements.txt "$@"
  { grep -F "${WANTED%% *} " "$STAMP" 2> /dev/null || true; echo "$WANTED"; } > "$STAMP.part"
  mv "$STAMP.part" "$STAMP"
fi
. .venv/bin/activate
