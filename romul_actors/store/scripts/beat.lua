-- Heartbeat: record the worker's presence, and renew its lease if it still holds it.
-- KEYS: workers, the lease's stream (trials, for a worker without one), settled
-- ARGV: worker, presence (JSON), entry id or '', slot, trial, meta
-- meta is not declared as a key: a user must have the right to write every declared key, and a
-- worker may not write this one.
-- Without the check of the holder, XCLAIM would take the lease back from an actor that claimed it.
-- Returns {kept, status, outdated, before}: outdated means that another attempt at the trial has a
-- result, before is the presence that this one replaces.
local now = redis.call('TIME')
local seen = now[1] * 1000 + math.floor(now[2] / 1000)
local status = redis.call('HGET', ARGV[6], 'status')
if not status then
  return {0, '', 0, ''}
end
-- Before the first write: a presence that cannot be encoded (NaN) must not renew the lease.
local presence = ''
if ARGV[2] ~= '' then
  local said = cjson.decode(ARGV[2])
  said.seen_ms = seen
  presence = cjson.encode(said)
end
-- Write the lease first: a server that is out of memory rejects a script whose first write may need
-- more memory, and this one needs none. But check the type of the next key before that.
local before = redis.call('HGET', KEYS[1], ARGV[1]) or ''
local kept = ARGV[3] ~= ''
  and redis.call('XPENDING', KEYS[2], 'workers', ARGV[3], ARGV[3], 1, ARGV[1])[1] ~= nil
if kept then
  redis.call('XCLAIM', KEYS[2], 'workers', ARGV[1], 0, ARGV[3], 'JUSTID')
end
if presence == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
  -- Names are not reused: without this, the group would grow with every worker.
  -- Not while an entry is pending: it would belong to no consumer, and no sweep would find it.
  local targeted, affinity = ARGV[6] .. ':targeted', ARGV[6] .. ':affinity'
  for _, stream in ipairs({KEYS[2], targeted}) do
    if redis.call('EXISTS', stream) == 1
      and #redis.call('XPENDING', stream, 'workers', '-', '+', 1, ARGV[1]) == 0 then
      redis.call('XGROUP', 'DELCONSUMER', stream, 'workers', ARGV[1])
    end
  end
  -- Offers to the worker go to all workers.
  local held = redis.pcall('HGET', affinity, 'w ' .. ARGV[1])
  if type(held) == 'string' then
    redis.call('HDEL', affinity, 'w ' .. ARGV[1], 'c ' .. held)
    redis.call('PEXPIRE', ARGV[6] .. ':bell:' .. ARGV[1], 1)
  end
  local offer = redis.pcall('HGET', ARGV[6] .. ':offers', ARGV[1])
  local at, body = string.match(type(offer) == 'string' and offer or '', '^(%d+) %d+ (.*)$')
  if at then
    redis.call('XADD', ARGV[6] .. ':trials', '*', 'm', body)
    redis.call('HDEL', ARGV[6] .. ':offers', ARGV[1])
    redis.pcall('HINCRBY', affinity, 'released', 1)
    redis.pcall('HINCRBY', affinity, 'waited_ms', math.max(0, seen - tonumber(at)))
  end
else
  redis.call('HSET', KEYS[1], ARGV[1], presence)
end
-- Only the last token counts: an earlier one may belong to a result that did not count.
local settled = string.match(kept and redis.call('HGET', KEYS[3], ARGV[4]) or '', '[^\n]*$')
local ours = string.sub(settled, 1, #ARGV[5] + 1) == ARGV[5] .. '#'
local outdated = ours and string.find(settled, ' result ', 1, true)
return {kept and 1 or 0, status, outdated and 1 or 0, before}
