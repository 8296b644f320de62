-- Sends one fixed request and writes when each answer came, in seconds, one a line, to BENCH_TIMES. For models that
-- answer tens to thousands a second: the callback takes microseconds, but it makes wrk hand every body to Lua.
local ffi = require("ffi")
ffi.cdef("typedef struct { long seconds; long nanos; } bench_time; int clock_gettime(int, bench_time *);")
local MONOTONIC = 1
local clock = ffi.new("bench_time")

local file = assert(io.open(os.getenv("BENCH_BODY"), "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
wrk.headers["Content-Type"] = os.getenv("BENCH_CONTENT_TYPE")
file:close()

local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  times, bad = {}, 0
end

function response(status, headers, body)
  ffi.C.clock_gettime(MONOTONIC, clock)
  times[#times + 1] = tonumber(clock.seconds) + tonumber(clock.nanos) / 1e9
  if status ~= 200 then bad = bad + 1 end
end

function done(summary, latency, requests)
  local out = assert(io.open(os.getenv("BENCH_TIMES"), "w"))
  local e, bad = summary.errors, 0
  for _, thread in ipairs(threads) do
    bad = bad + thread:get("bad")
    for _, time in ipairs(thread:get("times")) do out:write(string.format("%.6f\n", time)) end
  end
  out:close()
  io.write(string.format('\nREPORT {"requests":%d,"bad":%d}\n', summary.requests,
    bad + e.connect + e.read + e.write + e.timeout))
end
