-- Requests for wrk: wrk -s requests.lua URL -- PATHS [BODY]
--
-- PATHS is a file with one path a line, from which each request takes one at random, in the same order in every run.
-- BODY is a file with a JSON document: with it, requests are POST, without it GET.
-- After the run, one line of JSON has the figures; times are in microseconds.

local requests = {}

function init(args)
    math.randomseed(20260101)
    local method, body = "GET", nil
    if args[2] then
        method, body = "POST", assert(io.open(args[2])):read("*a")
        wrk.headers["Content-Type"] = "application/json"
    end
    for path in assert(io.open(args[1])):lines() do
        requests[#requests + 1] = wrk.format(method, path, nil, body)
    end
end

function request()
    return requests[math.random(#requests)]
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        '{"requests": %d, "duration": %d, "p50": %d, "p99": %d, "max": %d, "failed": %d, "refused": %d}\n',
        summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
        errors.status, errors.connect + errors.read + errors.write + errors.timeout
    ))
end
