# shellcheck shell=bash disable=SC2154
# The image as others call it: by the name of the program, by a UID that the cluster has drawn, behind a
# proxy and a private CA. Sourced by `run`.

say "the program by its name, as in \`command: [weightlift, …]\`"
equal "the program in PATH" "$(podman run --rm "${locked_down[@]}" --network none --entrypoint '["weightlift", "--version"]' \
  localhost/weightlift:test)" "$("$binary" --version)"
equal "PATH" "$(show '{{.Config.Env}}')" '[PATH=/]'

say "a UID that nobody knows, with group 0"
mkdir -m 775 "$work/drawn"
podman run --rm --read-only --cap-drop=ALL --user 1000650000:0 --security-opt=no-new-privileges --network host \
  --volume "$work/drawn:/data/models" --env "HF_ENDPOINT=$endpoint" localhost/weightlift:test fetch "$pinned" tiny
equal "the owner" "$(stat -c %u:%g "$work/drawn/tiny/model.safetensors")" 1000650000:0
podman run --rm --read-only --cap-drop=ALL --user 1000660000:0 --network none --volume "$work/drawn:/data/models" \
  localhost/weightlift:test fetch "$pinned" tiny

say "behind a proxy, by HTTPS, with a private CA"
mkdir "$work/ca"
(
  cd "$work/ca" || exit
  openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=private -keyout ca.key -out ca.pem
  openssl req -newkey rsa:2048 -nodes -subj /CN=hub.example -keyout hub.key -out hub.csr
  printf 'subjectAltName=DNS:hub.example,DNS:cdn.example\n' >names
  openssl x509 -req -in hub.csr -CA ca.pem -CAkey ca.key -days 2 -extfile names -out hub.pem
) 2>/dev/null
chmod 644 "$work/ca/ca.pem"
cdn_port="$(python3 -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])')"
"$hub" --made org/private=4:1 --public-cdn https://cdn.example --port-file "$work/private.port" \
  --cdn-port "$cdn_port" >"$work/private.log" 2>&1 &
children+=("$!")
wait_for "$work/private.port"
python3 "$here/proxy.py" "$work/proxy.port" "$work/proxy.seen" "$work/ca" \
  "$(cat "$work/private.port")" "$cdn_port" &
children+=("$!")
wait_for "$work/proxy.port"
volume private
behind() { # ENV… -- : a fetch from a Hub that only the proxy can reach
  podman run --rm "${locked_down[@]}" --network host --volume "$work/private:/data/models" \
    --volume "$work/ca/ca.pem:/etc/weightlift-ca/ca.pem:ro" --env HF_ENDPOINT=https://hub.example \
    --env WEIGHTLIFT_RETRY_TIMEOUT=2s "$@" localhost/weightlift:test fetch hf://org/private private
}
proxy="http://127.0.0.1:$(cat "$work/proxy.port")"
equal "standard output" "$(behind --env "HTTPS_PROXY=$proxy" --env SSL_CERT_FILE=/etc/weightlift-ca/ca.pem)" \
  /data/models/private
equal "what the proxy was asked for" "$(sort -u "$work/proxy.seen" | tr '\n' ' ')" "cdn.example:443 hub.example:443 "
rm -rf "$work/private"
volume private
status=0
behind --env "HTTPS_PROXY=$proxy" 2>"$work/stderr" || status=$?
tail -1 "$work/stderr"
[ "$status" != 0 ] || fail "a certificate of a CA that nobody trusts was taken"
grep -qi certificate "$work/stderr" || fail "the certificate is not named"
