-- The whole population at one version.
-- KEYS: meta. The slots' keys share its hash tag, so they are on the same server.
-- Returns version, meta, {slot, ...}; nil if there is no such experiment.
local meta = redis.call('HGETALL', KEYS[1])
if #meta == 0 then
  return nil
end
local epoch, version, nonce, slots =
  unpack(redis.call('HMGET', KEYS[1], 'epoch', 'version', 'nonce', 'slots'))
if not epoch or not nonce or not string.match(version or '', '^%d+$') then
  return redis.error_reply('DAMAGED ' .. KEYS[1] .. ' has no version (epoch, version, nonce)')
end
-- The number may be damaged: stop after a thousand missing hashes in a row.
local rows, missing = {}, 0
for i = 0, (tonumber(slots) or 0) - 1 do
  local row = redis.pcall('HGETALL', KEYS[1] .. ':slot:' .. i)
  if row.err then
    local wrong = string.find(row.err, 'WRONGTYPE', 1, true)
    return wrong and redis.error_reply('WRONGTYPE of ' .. KEYS[1] .. ':slot:' .. i) or row
  end
  rows[#rows + 1] = row
  missing = #row == 0 and missing + 1 or 0
  if missing == 1000 then
    break
  end
end
return {epoch .. '.' .. version .. '.' .. nonce, meta, rows}
