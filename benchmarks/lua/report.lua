-- Sends one fixed request and prints the totals as a JSON line. Variables of the environment say which request.
-- With BENCH_EXPECT every answer is compared as well, which costs the client time: for checked runs, not timed ones.
local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

local expected = os.getenv("BENCH_EXPECT")
local threads = {}

wrk.method = "POST"
wrk.body = read(os.getenv("BENCH_BODY"))
wrk.headers["Content-Type"] = os.getenv("BENCH_CONTENT_TYPE")

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  checked, wrong, sample = 0, 0, ""
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

function done(summary, latency, requests)
  local checked, wrong, sample = 0, 0, ""
  for _, thread in ipairs(threads) do
    checked = checked + thread:get("checked")
    wrong = wrong + thread:get("wrong")
    if thread:get("sample") ~= "" then sample = thread:get("sample") end
  end
  local e = summary.errors
  io.write(string.format(
    '\nREPORT {"requests":%d,"seconds":%.6f,"p50_ms":%.4f,"p99_ms":%.4f,"mean_ms":%.4f,' ..
    '"bad_status":%d,"socket_errors":%d,"timeouts":%d,"checked":%d,"wrong":%d,"sample":"%s"}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    latency.mean / 1e3, e.status, e.connect + e.read + e.write, e.timeout, checked, wrong,
    (sample:gsub('["\\]', "'"))))
end
