-- What wrk measured, as one line of JSON that benchmarks/wrk.py reads. Times in microseconds.
done = function(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format(
        '{"requests": %d, "duration": %d, "failed": %d, "status": %d, "p50": %d, "p99": %d, "p99.9": %d}\n',
        summary.requests, summary.duration, errors.connect + errors.read + errors.write + errors.timeout,
        errors.status, latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
