#!/bin/sh
# Builds the WebAssembly module of each workload that has C source, and writes its digest into the
# workload.toml. With the absolute path of a folder the modules go there and nothing here changes:
# that is how a test checks that the committed modules come from the committed source.
#
# The compiler decides the bytes: the committed modules are Debian 12's clang 14 and wasi-libc.
set -eu
cd "$(dirname "$0")"

missing=
command -v "${CC:=clang}" >/dev/null || missing="$missing clang"
command -v wasm-ld >/dev/null || command -v wasm-ld-14 >/dev/null || missing="$missing lld"
[ -e /usr/lib/wasm32-wasi/libc.a ] || missing="$missing wasi-libc"
[ -z "$missing" ] && runtime=$("$CC" --target=wasm32-wasi -print-libgcc-file-name) &&
    [ ! -e "$runtime" ] && missing="$missing libclang-rt-14-dev-wasm32"
if [ -n "$missing" ]; then
    echo "build.sh: install what is missing: apt-get install$missing" >&2
    exit 1
fi

for folder in */; do
    name=${folder%/}
    ls "$name"/*.c >/dev/null 2>&1 || continue
    module=${1:-$name}/$name.wasm
    "$CC" --target=wasm32-wasi -std=c11 -O2 -Wall -Wextra -Werror -ffp-contract=off \
        -Wl,--strip-all -o "$module" "$name"/*.c
    chmod 644 "$module"
    [ $# -gt 0 ] && continue
    digest=$(sha256sum "$module" | cut -d' ' -f1)
    sed -i "s/^sha256 = .*/sha256 = \"$digest\"/" "$name/workload.toml"
    echo "$module $(wc -c <"$module") bytes, sha256 $digest"
done
