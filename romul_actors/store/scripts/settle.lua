-- End a lease and put a message into the inbox, once: a result, a failure, a release or an expiry.
-- KEYS: trials or targeted, settled   ARGV: holder, entry id, token, message, slot, inbox; and for a
-- worker with affinity: affinity, its bell, the checkpoint that it has in memory or '', for how long in ms,
-- how it restored ('warm', 'cold' or '')
-- inbox is not declared as a key: a user must have the right to read every declared key, and a
-- worker may not read this one.
-- The last eight tokens of the slot's last trial are kept, including those of second copies, so that a
-- call that is repeated because its reply was lost returns 1 again.
-- Returns 1; 0 if the holder has lost the lease; -1 if it has no lease and the slot has advanced since:
-- then this call may have ended the lease before.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
local before = redis.call('HGET', KEYS[2], ARGV[5]) or ''
local trial = string.match(ARGV[3], '^[^#]*#') or ''
local same = string.sub(before, 1, #trial) == trial
if not redis.call('XPENDING', KEYS[1], 'workers', ARGV[2], ARGV[2], 1, ARGV[1])[1] then
  if same then
    return string.find('\n' .. before .. '\n', '\n' .. ARGV[3] .. '\n', 1, true) and 1 or 0
  end
  local function step(token)
    return tonumber(string.match(token, '^%d+%-(%d+)#')) or 0
  end
  return step(before) > step(ARGV[3]) and -1 or 0
end
local kept = ARGV[3]
if same then
  if select(2, string.gsub(before, '\n', '\n')) >= 7 then
    before = string.gsub(before, '^[^\n]*\n', '')
  end
  kept = before .. '\n' .. ARGV[3]
end
-- In this order: if the token cannot be stored, the message is not queued either.
redis.call('HSET', KEYS[2], ARGV[5], kept)
redis.call('XADD', ARGV[6], '*', 'm', ARGV[4])
redis.call('XACK', KEYS[1], 'workers', ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[2])
local affinity = ARGV[7]
if not affinity then
  return 1
end
-- The lease has ended: from here on nothing may fail, whatever a worker has written into these keys.
local held_before = redis.pcall('HGET', affinity, 'w ' .. ARGV[1])
if type(held_before) == 'string' then
  redis.pcall('HDEL', affinity, 'w ' .. ARGV[1], 'c ' .. held_before)
end
if ARGV[11] ~= '' then
  redis.pcall('HINCRBY', affinity, 'restores', 1)
  redis.pcall('HINCRBY', affinity, 'warm', ARGV[11] == 'warm' and 1 or 0)
end
if ARGV[9] ~= '' then
  local held = {'w ' .. ARGV[1], ARGV[9], 'c ' .. ARGV[9], ARGV[10] .. ' ' .. ARGV[1]}
  redis.pcall('HSET', affinity, unpack(held))
  if redis.call('EXISTS', ARGV[8]) == 0 then
    redis.call('XGROUP', 'CREATE', ARGV[8], 'workers', '$', 'MKSTREAM')
  end
  redis.call('PEXPIRE', ARGV[8], 60000)
end
return 1
