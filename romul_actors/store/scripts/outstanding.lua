-- All messages in the two queues, whether they have been read or not, and all offers, at one version.
-- KEYS: meta, trials, inbox   Returns {version, {trial, ...}, {inbox entry, ...}}; nil if there is
-- no such experiment.
local epoch, version, nonce = unpack(redis.call('HMGET', KEYS[1], 'epoch', 'version', 'nonce'))
if not epoch then
  return nil
end
local function bodies(key)
  local found = {}
  for _, entry in ipairs(redis.call('XRANGE', key, '-', '+')) do
    found[#found + 1] = entry[2][2]
  end
  return found
end
local trials = bodies(KEYS[2])
for _, body in ipairs(bodies(KEYS[1] .. ':targeted')) do
  trials[#trials + 1] = body
end
for i, offer in ipairs(redis.call('HGETALL', KEYS[1] .. ':offers')) do
  if i % 2 == 0 then
    trials[#trials + 1] = string.match(offer, '^%d+ %d+ (.*)$')
  end
end
return {epoch .. '.' .. version .. '.' .. nonce, trials, bodies(KEYS[3])}
