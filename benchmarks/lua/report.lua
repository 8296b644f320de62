-- Sends one request, or several in turn, and prints the totals as a JSON line. Variables of the environment say which:
-- BENCH_BODIES (files) and BENCH_HEADERS, one a line. A single request is built once, by wrk itself.
-- With BENCH_EXPECT every answer is compared as well, which costs the client time: for checked runs, not timed ones.
-- With BENCH_TIMES the moment of each answer is written to that file, in seconds, one a line: microseconds each, but wrk
-- hands every body to Lua then, so it is for models that answer tens to thousands a second.
local ffi = require("ffi")
ffi.cdef("typedef struct { long seconds; long nanos; } bench_time; int clock_gettime(int, bench_time *);")
local MONOTONIC, clock, written = 1, ffi.new("bench_time"), os.getenv("BENCH_TIMES")

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

local expected = os.getenv("BENCH_EXPECT")
local threads = {}

wrk.method = "POST"
for name, value in os.getenv("BENCH_HEADERS"):gmatch("([^:\n]+): ([^\n]+)") do
  wrk.headers[name] = value
end
local bodies, prepared, turn = {}, {}, 0
for file in os.getenv("BENCH_BODIES"):gmatch("[^\n]+") do
  table.insert(bodies, read(file))
end
wrk.body = bodies[1]

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  checked, wrong, sample, times = 0, 0, "", {}
  for i, body in ipairs(bodies) do
    prepared[i] = wrk.format(nil, nil, nil, body)
  end
end

if #bodies > 1 then
  function request()
    turn = turn % #prepared + 1
    return prepared[turn]
  end
end

if expected then
  function response(status, headers, body)
    checked = checked + 1
    if status ~= 200 or not body:find(expected, 1, true) then
      wrong = wrong + 1
      sample = status .. " " .. body:sub(1, 120):gsub("[^%w%p ]", " ")
    end
  end
end

if written then
  function response(status, headers, body)
    ffi.C.clock_gettime(MONOTONIC, clock)
    times[#times + 1] = tonumber(clock.seconds) + tonumber(clock.nanos) / 1e9
  end
end

function done(summary, latency, requests)
  local checked, wrong, sample = 0, 0, ""
  for _, thread in ipairs(threads) do
    checked = checked + thread:get("checked")
    wrong = wrong + thread:get("wrong")
    if thread:get("sample") ~= "" then sample = thread:get("sample") end
  end
  local out = written and assert(io.open(written, "w"))
  for _, thread in ipairs(out and threads or {}) do
    for _, time in ipairs(thread:get("times")) do out:write(string.format("%.6f\n", time)) end
  end
  if out then out:close() end
  local e = summary.errors
  io.write(string.format(
    '\nREPORT {"requests":%d,"seconds":%.6f,"p50_ms":%.4f,"p99_ms":%.4f,"mean_ms":%.4f,' ..
    '"bad_status":%d,"socket_errors":%d,"timeouts":%d,"checked":%d,"wrong":%d,"sample":"%s"}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    latency.mean / 1e3, e.status, e.connect + e.read + e.write, e.timeout, checked, wrong,
    (sample:gsub('["\\]', "'"))))
end
