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

-- Where a lead is asked for, what is answered in its seconds is not counted. Only then: a call for each answer is a
-- tenth of what a fast server takes for one.
local lead = tonumber(os.getenv("BENCH_LEAD"))
local thread

function setup(it)
  thread = it
end

if lead > 0 then
  local ffi = require("ffi")
  ffi.cdef("typedef struct { long seconds, nanoseconds; } instant; int clock_gettime(int clock, instant *now);")
  local instant, began = ffi.new("instant")
  answered, unwanted = 0, 0

  local function now()
    ffi.C.clock_gettime(1, instant) -- CLOCK_MONOTONIC
    return tonumber(instant.seconds) + tonumber(instant.nanoseconds) / 1e9
  end

  function init()
    began = now()
  end

  function response(status)
    if now() >= began + lead then
      answered = answered + 1
      unwanted = unwanted + (status > 399 and 1 or 0)
    end
  end
end

function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.timeout
  local requests, refused = summary.requests, errors.status
  if lead > 0 then
    requests, refused = thread:get("answered"), thread:get("unwanted")
  end
  io.write(string.format(
    '\n{"requests": %d, "microseconds": %d, "failed": %d, "refused": %d, "p50": %d, "p99": %d}\n',
    requests, summary.duration - lead * 1e6, failed, refused, latency:percentile(50), latency:percentile(99)))
end
