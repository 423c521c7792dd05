-- Sends the requests of a file in turn and prints the result as one line of JSON.

local requests, sent = {}, 0

function init(arguments)
  for line in io.lines(arguments[1]) do
    local method, path, more = line:match("^(%S+) (%S+) ?(.*)$")
    local headers, body = {}, nil
    if more ~= "" and method == "GET" then
      local name, value = more:match("^(%S+): (.*)$")
      headers[name] = value
    elseif more ~= "" then
      headers["Content-Type"], body = "application/json", more
      headers["Authorization"] = os.getenv("BENCHMARKS_AUTHORIZATION")
    end
    requests[#requests + 1] = wrk.format(method, path, headers, body)
  end
end

function request()
  sent = sent % #requests + 1
  return requests[sent]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "max_ms": %f, "errors": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout
  ))
end
