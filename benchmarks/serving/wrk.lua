-- The request comes from files that the benchmark wrote; what wrk counted goes out as one line of JSON.
local function read(name)
  local file = assert(io.open(os.getenv(name), "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

wrk.method = "POST"
wrk.path = os.getenv("BENCH_PATH")
wrk.body = read("BENCH_BODY")
for name, value in read("BENCH_HEADERS"):gmatch("([^:\n]+): ([^\n]+)") do
  wrk.headers[name] = value
end

function done(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format(
    '\n{"requests": %d, "microseconds": %d, "failed": %d, "refused": %d, "p50": %d, "p99": %d}\n',
    summary.requests, summary.duration, failed, errors.status, latency:percentile(50), latency:percentile(99)))
end
