# env.sh, sourced: the tools of setup-tools.sh come first on the path; compilations are cached when sccache is there
# (it saves nothing on a machine's first build, and nearly all of it in the next clone).
export PATH="${COMITY_CACHE:-$HOME/.cache/comity}/tools/bin:$PATH"
if [ -z "${RUSTC_WRAPPER:-}" ] && command -v sccache >/dev/null; then
  export RUSTC_WRAPPER=sccache
fi
export CARGO_INCREMENTAL=0
