#!/bin/sh
# publish_curl.sh CHANNEL CONTENT: publishes with nothing but curl. The content must need no JSON
# escapes.
if [ $# -ne 2 ] || [ "$1" = --help ]; then
    echo "usage: publish_curl.sh CHANNEL CONTENT   (GRIP_URL: another server)" >&2
    exit 2
fi
exec curl -sS -d '{"items": [{"channel": "'"$1"'", "formats": {
    "http-response": {"body": "'"$2"'\n"},
    "http-stream": {"content": "'"$2"'\n"},
    "ws-message": {"content": "'"$2"'"}}}]}' "${GRIP_URL:-http://localhost:5561}/publish/"
