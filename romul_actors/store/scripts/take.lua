-- Give a worker the trial that is offered to it, as a lease.
-- KEYS: offers, targeted, affinity, the worker's bell   ARGV: worker
-- Every entry of targeted is pending from the start, so the one just added is what the next group
-- read returns. The bell is emptied, and kept for as long as the worker asks.
-- Returns {entry id, message}; nil if there is no offer to the worker.
if redis.call('EXISTS', KEYS[4]) == 0 then
  redis.call('XGROUP', 'CREATE', KEYS[4], 'workers', '$', 'MKSTREAM')
end
for _, ring in ipairs(redis.call('XPENDING', KEYS[4], 'workers', '-', '+', 10, ARGV[1])) do
  redis.call('XACK', KEYS[4], 'workers', ring[1])
  redis.call('XDEL', KEYS[4], ring[1])
end
redis.call('PEXPIRE', KEYS[4], 60000)
-- A worker may have written something else into the key.
local offer = redis.pcall('HGET', KEYS[1], ARGV[1])
if type(offer) ~= 'string' then
  return nil
end
local at, body = string.match(offer, '^(%d+) %d+ (.*)$')
if not at then
  redis.call('HDEL', KEYS[1], ARGV[1])
  return nil
end
if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('XGROUP', 'CREATE', KEYS[2], 'workers', '$', 'MKSTREAM')
end
local id = redis.call('XADD', KEYS[2], '*', 'm', body)
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('XREADGROUP', 'GROUP', 'workers', ARGV[1], 'COUNT', 1, 'STREAMS', KEYS[2], '>')
local now = redis.call('TIME')
local waited = now[1] * 1000 + math.floor(now[2] / 1000) - tonumber(at)
redis.pcall('HINCRBY', KEYS[3], 'waited_ms', math.max(0, waited))
return {id, body}
