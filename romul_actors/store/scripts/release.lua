-- Put trials into the queue that were offered to a worker and not taken in time.
-- KEYS: offers, trials, affinity   ARGV: a worker that is gone, or ''
-- Returns the time until the next release is due, in ms; -1 if there are no offers.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local next = -1
-- A worker may write anything into offers and affinity, even a time in the far future.
local offers = redis.pcall('HGETALL', KEYS[1])
if offers.err then
  return -1
end
for i = 1, #offers, 2 do
  local at, ms, body = string.match(offers[i + 1], '^(%d+) (%d+) (.*)$')
  local left = at and tonumber(at) + tonumber(ms) - now or 0
  if not at then
    redis.call('HDEL', KEYS[1], offers[i])
  elseif left <= 0 or left > 100000 or offers[i] == ARGV[1] then
    redis.call('XADD', KEYS[2], '*', 'm', body)
    redis.call('HDEL', KEYS[1], offers[i])
    redis.pcall('HINCRBY', KEYS[3], 'released', 1)
    redis.pcall('HINCRBY', KEYS[3], 'waited_ms', math.max(0, now - tonumber(at)))
  elseif next < 0 or left < next then
    next = left
  end
end
return next
