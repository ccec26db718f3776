# synapse.sh, sourced: $synapse is a virtual environment with Synapse, the bench's own.
synapse=${COMITY_CACHE:-$HOME/.cache/comity}/synapse
if ! "$synapse/bin/python" -c 'import synapse' 2>/dev/null; then
  echo "Installing Synapse from PyPI"
  python3 -m venv "$synapse"
  "$synapse/bin/pip" install --quiet --disable-pip-version-check matrix-synapse psycopg2-binary
fi
