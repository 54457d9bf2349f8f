# Shared by tools/demo and tools/test (bash): packages, whose files these are, and times. Sets $root, the repository.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cores=$(nproc 2>/dev/null || echo 2)
fuzzer_runtime=/usr/lib/llvm-19/lib/clang/19/lib/linux/libclang_rt.fuzzer-$(uname -m).a # of libclang-rt-19-dev

die() { echo "$(basename "$0"): $*" >&2; exit 1; }

# need PACKAGE COMMAND... : the package will be installed unless all commands are there; /… means a file.
missing=()
need() {
    local package=$1 what
    shift
    for what; do
        if [[ $what == /* ]]; then [[ -e $what ]] || { missing+=("$package"); return; }
        else command -v "$what" >/dev/null || { missing+=("$package"); return; }
        fi
    done
}

need_build_tools() {
    need cmake cmake
    need gcc cc
    need libc6-dev /usr/include/stdlib.h
    command -v ninja >/dev/null || need make make
    need clang-19 clang-19
    need lld-19 wasm-ld-19
    need libstb-dev /usr/include/stb/stb_image_write.h
    need libjsmn-dev /usr/include/jsmn.h
    need libdnnl-dev /usr/include/dnnl.h # with zlib: bitbrush train and distill
    need zlib1g-dev /usr/include/zlib.h
}

need_other_builds() {
    need wasi-libc /usr/lib/wasm32-wasi/libc.a
    need libclang-rt-19-dev-wasm32 /usr/lib/llvm-19/lib/clang/19/lib/wasi/libclang_rt.builtins-wasm32.a
    need emscripten emcmake
    if [[ $(uname -m) != aarch64 ]]; then
        need gcc-aarch64-linux-gnu aarch64-linux-gnu-gcc
        need libc6-dev-arm64-cross /usr/aarch64-linux-gnu/include/stdlib.h
        need qemu-user qemu-aarch64
    fi
}

# Installs what need() found missing, once and without questions; touches no package manager if that is nothing.
install_missing() {
    [[ ${#missing[@]} -eq 0 ]] && return
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -y -q)
    command -v apt-get >/dev/null ||
        die "please install: ${missing[*]} (named as in Debian 12; there is no apt-get here)"
    if [[ $(id -u) != 0 ]]; then
        command -v sudo >/dev/null && sudo -n true 2>/dev/null ||
            die "please install: apt-get install ${missing[*]} (neither root nor sudo without a password here)"
        apt=(sudo -n "${apt[@]}")
    fi
    echo "Installing ${missing[*]}"
    "${apt[@]}" update >/dev/null || die "apt-get update failed; needed: ${missing[*]}"
    "${apt[@]}" install --no-install-recommends "${missing[@]}" </dev/null >/dev/null ||
        die "apt-get install ${missing[*]} failed"
    missing=()
}

# As root in someone else's clone (sudo, a container's mount), goes on as the owner, so that nothing built belongs to
# root. Call after install_missing with the script's own arguments.
continue_as_owner() {
    local uid gid home
    uid=$(stat -c %u "$root")
    gid=$(stat -c %g "$root")
    [[ $(id -u) != 0 || $uid == 0 ]] && return
    [[ -d $root/build ]] && chown -R "$uid:$gid" "$root/build" # from an earlier run as root
    home=$(getent passwd "$uid" | cut -d: -f6) || true
    exec setpriv --reuid="$uid" --regid="$gid" --clear-groups env HOME="${home:-$root/build/home}" \
        "$root/tools/$(basename "$0")" "$@"
}

now_ms() { date +%s%3N; }
seconds_since() { awk -v a="$1" -v b="$(now_ms)" 'BEGIN { printf "%.1f", (b - a) / 1000 }'; }

# stage TEXT COMMAND... : runs it, quiet unless it fails, and prints its time.
stage() {
    local text=$1 start log
    shift
    start=$(now_ms)
    log=$(mktemp)
    if "$@" >"$log" 2>&1 </dev/null; then
        printf '%-52s %7s s\n' "$text" "$(seconds_since "$start")"
        rm -f "$log"
    else
        cat "$log"
        rm -f "$log"
        die "$text failed: $*"
    fi
}
