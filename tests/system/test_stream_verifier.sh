#!/bin/bash
# Xen's own verify-stream-v2 (Debian's xen-utils-4.17, unpacked into the build directory, not installed)
# reads the images that our saver writes: one live from a writing guest, one of a suspended guest.
# A cut image must be refused. BUILD=build. Ends with 77 where the package cannot be had.
set -eu
cd "$(dirname "$0")/../.."
build=$(realpath "${BUILD:-build}")
xen=$build/xen-utils
test=$build/tests/contract/test_xenops_move
[ -x "$test" ] || { echo "build $test first"; exit 1; }

if [ ! -d "$xen/root" ]; then
    mkdir -p "$xen"
    (cd "$xen" && apt-get -q download xen-utils-4.17 && dpkg -x xen-utils-4.17_*.deb unpacking && mv unpacking root) >"$xen/log" 2>&1 ||
        { echo "SKIP: no xen-utils-4.17: $(tail -n 1 "$xen/log")"; exit 77; }
fi
verifier=$(echo "$xen"/root/usr/lib/xen-*/bin/verify-stream-v2)
library=$(echo "$xen"/root/usr/lib/xen-*/lib/python)

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"$test" images "$dir/live" "$dir/suspended"

# The libxc stream inside the framing: behind the signature (15), the Xenops record and the Libxc head.
libxc_of()
{
    local state
    state=$(od -An -tu8 -j23 -N8 "$1" | tr -d ' ')
    tail -c +$((15 + 16 + state + 16 + 1)) "$1" | head -c -16
}
verify() { PYTHONPATH=$library python3 -B "$verifier" -v -f libxc -i "$1"; }

for image in live suspended; do
    [ "$(head -c 14 "$dir/$image")" = "XenSavedDomv2-" ] || { echo "FAIL: $image: signature"; exit 1; }
    libxc_of "$dir/$image" >"$dir/stream"
    verify "$dir/stream" >"$dir/log" 2>&1 || { cat "$dir/log"; echo "FAIL: $image"; exit 1; }
    grep -q "HVM context\|hvm_context\|HVM_CONTEXT" "$dir/log" || { cat "$dir/log"; echo "FAIL: $image: no context seen"; exit 1; }
    echo "$image: $(stat -c %s "$dir/$image") bytes, accepted by verify-stream-v2"
done
head -c 3000000 "$dir/stream" >"$dir/cut"
if verify "$dir/cut" >/dev/null 2>&1; then
    echo "FAIL: a cut stream is accepted: the verifier does not verify"
    exit 1
fi
echo "a cut stream is refused"
