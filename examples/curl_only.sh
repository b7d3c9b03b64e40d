#!/usr/bin/env bash
# From a job to its bounds with curl alone. Run `clr serve` in another terminal first.
set -euo pipefail
url=${CLR_URL:-http://127.0.0.1:8000}
auth=(${CLR_TOKEN:+-H "Authorization: Bearer $CLR_TOKEN"})

call() { curl -sS --fail-with-body "${auth[@]}" "$@"; }

# The key makes this safe to repeat: however often it is sent, it is one job.
id=$(call "$url/v1/jobs" -H 'Content-Type: application/json' -H "Idempotency-Key: $$-$(date +%s)" \
    -d '{"task": "digits", "epochs": 20, "search": null}' \
    | grep -o '"id":"[^"]*"' | cut -d '"' -f 4)
echo "job $id"

# The stream of events ends with the job. Of each change of state, the line with its data:
call -N "$url/v1/jobs/$id/events" | sed -n '/^event: state/ { n; p; }'

# Lines to paste into a training script:
call "$url/v1/jobs/$id/recommendation?format=python"

# Bounds from a curve of one's own. Nothing is stored.
call "$url/v1/bounds" -H 'Content-Type: text/csv' --data-binary "@$(dirname "$0")/curve.csv"
echo
