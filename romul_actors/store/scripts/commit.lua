-- Apply a batch of decisions, whole or not at all.
-- KEYS: meta, inbox, trials, history, garbage, then the hash of each changed slot
-- ARGV: actor, MessagePack of {version, entries, meta, slots, trials, history, keep, garbage, nonce}
-- Returns the new version; nil if the version has moved on, or an entry is no longer pending with
-- this actor.
local c = cmsgpack.unpack(ARGV[2])
local epoch, version, nonce = unpack(redis.call('HMGET', KEYS[1], 'epoch', 'version', 'nonce'))
if not epoch or epoch .. '.' .. version .. '.' .. nonce ~= c.version then
  return nil
end
local n = #c.entries
if n > 0 then
  local pending = redis.call('XPENDING', KEYS[2], 'actors', c.entries[1], c.entries[n], n, ARGV[1])
  local mine = {}
  for _, entry in ipairs(pending) do
    mine[entry[1]] = true
  end
  for _, id in ipairs(c.entries) do
    if not mine[id] then
      return nil
    end
  end
end
if #c.meta > 0 then
  redis.call('HSET', KEYS[1], unpack(c.meta))
end
for i, fields in ipairs(c.slots) do
  redis.call('HSET', KEYS[5 + i], unpack(fields))
end
for _, body in ipairs(c.trials) do
  redis.call('XADD', KEYS[3], '*', 'm', body)
end
for _, line in ipairs(c.history) do
  redis.call('XADD', KEYS[4], 'MAXLEN', '~', c.keep, '*', 'json', line)
end
if #c.garbage > 0 then
  local now = redis.call('TIME')
  for _, checkpoint in ipairs(c.garbage) do
    redis.call('ZADD', KEYS[5], 'NX', now[1] * 1000 + math.floor(now[2] / 1000), checkpoint)
  end
end
if n > 0 then
  redis.call('XACK', KEYS[2], 'actors', unpack(c.entries))
  redis.call('XDEL', KEYS[2], unpack(c.entries))
end
redis.call('HSET', KEYS[1], 'nonce', c.nonce)
return epoch .. '.' .. redis.call('HINCRBY', KEYS[1], 'version', 1) .. '.' .. c.nonce
