-- Heartbeat: worker is present, and its lease goes on if it still is its own.
-- KEYS: workers, trials, settled   ARGV: worker, presence (JSON), entry id or '', slot, trial, meta
-- meta is no key of the call's: what a script declares it must be allowed to write, and a worker is not.
-- Claiming without asking who holds the lease would steal it back from the one who took it over.
-- Returns {kept, status, outdated}: outdated when another copy of the trial has its result.
local now = redis.call('TIME')
local seen = now[1] * 1000 + math.floor(now[2] / 1000)
local status = redis.call('HGET', ARGV[6], 'status')
if not status then
  return {0, '', 0}
end
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
  -- Names are never used again: without this the group would grow with every worker that ever was.
  -- Not while an entry is pending: it would be nobody's, and no sweep would find it.
  if #redis.call('XPENDING', KEYS[2], 'workers', '-', '+', 1, ARGV[1]) == 0 then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[2], 'workers', ARGV[1])
  end
else
  local presence = cjson.decode(ARGV[2])
  presence.seen_ms = seen
  redis.call('HSET', KEYS[1], ARGV[1], cjson.encode(presence))
end
if ARGV[3] == '' then
  return {0, status, 0}
end
local entry = redis.call('XPENDING', KEYS[2], 'workers', ARGV[3], ARGV[3], 1, ARGV[1])[1]
if not entry then
  return {0, status, 0}
end
redis.call('XCLAIM', KEYS[2], 'workers', ARGV[1], 0, ARGV[3], 'JUSTID')
local settled = redis.call('HGET', KEYS[3], ARGV[4]) or ''
local ours = string.sub(settled, 1, #ARGV[5] + 1) == ARGV[5] .. '#'
return {1, status, ours and string.find(settled, ' result ', 1, true) and 1 or 0}
