#!/bin/sh
# Generates the stubs of protos/ into DIR (default: services). Usage: protos/generate.sh [DIR]
set -eu
out=${1:-services}
python=${PYTHON:-.venv/bin/python}
export PATH="$(dirname "$python"):$PATH"
"$python" -m grpc_tools.protoc -Iprotos --python_out="$out" --mypy_out=quiet:"$out" protos/paquebot/v1/*.proto
"$python" -m grpc_tools.protoc -Iprotos --grpc_python_out="$out" --mypy_grpc_out=quiet:"$out" \
    protos/paquebot/v1/recipient_validation.proto protos/paquebot/v1/authentication.proto protos/paquebot/v1/directory.proto
