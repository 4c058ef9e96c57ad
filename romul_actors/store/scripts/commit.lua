-- Apply a batch of decisions, completely or not at all.
-- KEYS: meta, inbox, trials, history, garbage, then the hash of each changed slot
-- ARGV: actor, MessagePack of {version, entries, meta, slots, trials, parents, history, keep,
-- garbage, nonce}
-- A trial whose parent is in the memory of an idle worker is offered to that worker alone.
-- Returns {the new version, longest time of an offer in ms or -1}; nil if the stored version is
-- another one, or an entry is no longer pending with this actor.
local c = cmsgpack.unpack(ARGV[2])
local epoch, version, nonce = unpack(redis.call('HMGET', KEYS[1], 'epoch', 'version', 'nonce'))
if not epoch then
  return nil
end
if not nonce or not string.match(version or '', '^%d+$') then
  return redis.error_reply('DAMAGED ' .. KEYS[1] .. ' has no version (epoch, version, nonce)')
end
if epoch .. '.' .. version .. '.' .. nonce ~= c.version then
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
-- Before the first write: a key of a wrong type must end the script here, not half-way.
local looks = {{'XLEN', KEYS[3]}, {'XLEN', KEYS[4]}, {'ZRANGEBYSCORE', KEYS[5], 0, 0}}
for i = 6, #KEYS do
  looks[i - 2] = {'HLEN', KEYS[i]}
end
for _, look in ipairs(looks) do
  local found = redis.pcall(unpack(look))
  if type(found) == 'table' and found.err then
    local wrong = string.find(found.err, 'WRONGTYPE', 1, true)
    return wrong and redis.error_reply('WRONGTYPE of ' .. look[2]) or found
  end
end
if #c.meta > 0 then
  redis.call('HSET', KEYS[1], unpack(c.meta))
end
for i, fields in ipairs(c.slots) do
  redis.call('HSET', KEYS[5 + i], unpack(fields))
end
local affinity, offers = KEYS[1] .. ':affinity', KEYS[1] .. ':offers'
local holds = #c.parents > 0 and redis.call('EXISTS', affinity) == 1
local longest = -1
-- A worker may write anything into these keys, and a commit must not fail half-way because of that.
local function try(...)
  local reply = redis.pcall(...)
  return not (type(reply) == 'table' and reply.err) and reply or false
end
local function is_busy(stream, worker)
  return redis.call('EXISTS', stream) == 1
    and #(try('XPENDING', stream, 'workers', '-', '+', 1, worker) or {stream}) > 0
end
local function offer(body, parent)
  local held = holds and parent ~= '' and try('HGET', affinity, 'c ' .. parent) or ''
  local ms, worker = string.match(held, '^(%d%d?%d?%d?%d?) (.*)$')
  if not ms or try('HEXISTS', offers, worker) ~= 0 or is_busy(KEYS[3], worker)
    or is_busy(KEYS[1] .. ':targeted', worker) then
    return false
  end
  local bell = KEYS[1] .. ':bell:' .. worker
  if not try('XADD', bell, 'NOMKSTREAM', 'MAXLEN', 1, '*', 'm', '') then
    return false
  end
  local now = redis.call('TIME')
  local at = string.format('%d %d ', now[1] * 1000 + math.floor(now[2] / 1000), ms)
  if not try('HSET', offers, worker, at .. body) then
    return false
  end
  try('HINCRBY', affinity, 'offers', 1)
  longest = math.max(longest, tonumber(ms))
  return true
end
for i, body in ipairs(c.trials) do
  if not offer(body, c.parents[i] or '') then
    redis.call('XADD', KEYS[3], '*', 'm', body)
  end
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
return {epoch .. '.' .. redis.call('HINCRBY', KEYS[1], 'version', 1) .. '.' .. c.nonce, longest}
