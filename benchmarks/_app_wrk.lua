-- The mixed load of app_load.py: 10 % create, 70 % update context, 20 % handoff, over 10,000 sessions.
function init(args)
  math.randomseed(tonumber(args[1]) or 1)
  body = string.rep("context ", 20)
  wrk.headers["Content-Type"] = "application/json"
end

function request()
  local dice = math.random(100)
  local session = math.random(10000)
  if dice <= 10 then
    return wrk.format("POST", "/sessions", nil, '{"customer_id": ' .. math.random(5000) .. "}")
  elseif dice <= 80 then
    return wrk.format("PUT", "/sessions/" .. session .. "/context", nil, '{"body": "' .. body .. '"}')
  end
  return wrk.format(
    "POST", "/sessions/" .. session .. "/handoff", nil, '{"agent_id": ' .. math.random(500) .. "}")
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %f, "errors": %d, "p50": %f, "p95": %f, "p99": %f}\n',
    summary.requests, summary.duration / 1e6, e.status + e.connect + e.read + e.write + e.timeout,
    latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3))
end
