-- Move unusable entries of a queue to the dead letters.
-- KEYS: the queue   ARGV: consumer group, queue's name, number of dead letters to keep, dead, then
-- for each entry: id, reason, beginning of the body, full length of the body
-- dead is not declared as a key: a user must have the right to read every declared key, and a worker
-- may not read this one.
-- An entry is removed from its queue after it has been stored.
-- Returns the number of entries that were still pending.
local n = 0
for i = 5, #ARGV, 4 do
  if redis.call('EXISTS', KEYS[1]) == 1
    and redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1)[1] then
    local kept = redis.pcall('XADD', ARGV[4], 'MAXLEN', '~', ARGV[3], '*',
      'origin', ARGV[2], 'reason', ARGV[i + 1], 'body', ARGV[i + 2], 'size', ARGV[i + 3])
    if type(kept) == 'table' and kept.err then
      local wrong = string.find(kept.err, 'WRONGTYPE', 1, true)
      return wrong and redis.error_reply('WRONGTYPE of ' .. ARGV[4]) or kept
    end
    redis.call('XACK', KEYS[1], ARGV[1], ARGV[i])
    redis.call('XDEL', KEYS[1], ARGV[i])
    n = n + 1
  end
end
return n
