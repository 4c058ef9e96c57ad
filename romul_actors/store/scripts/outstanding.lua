-- All messages in the two queues, read or not, at one version.
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
return {epoch .. '.' .. version .. '.' .. nonce, bodies(KEYS[2]), bodies(KEYS[3])}
