#!/usr/bin/env bash
# Generates the Go stubs from the repository's .proto files. Usage: generate.sh [TARGET], by default this folder.
# Needs protoc; the plugins are those that go.mod pins.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target=${1:-$here}
protos=$here/../../../proto
plugins=$(mktemp -d)
trap 'rm -rf "$plugins"' EXIT

cd "$here/.."
go build -o "$plugins/" google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc

# The .proto files name no Go package: which one they become is this module's affair.
module=loggregator/interop/gen
packages=
for file in $(cd "$protos" && find . -name '*.proto' -printf '%P\n' | sort); do
    case $file in
    dropsonde/events/*) package=events ;;
    loggregator/v2/*) package=v2 ;;
    plumbing/*) package=plumbing ;;
    *) echo "generate.sh: no Go package for $file" >&2; exit 1 ;;
    esac
    packages+=,M$file=$module/$package
done
find "$protos" -name '*.proto' -printf '%P\n' | sort | xargs env PATH="$plugins:$PATH" protoc -I "$protos" \
    --go_out="module=$module$packages:$target" --go-grpc_out="module=$module$packages:$target"
