-- Move unusable entries of a queue to the dead messages.
-- KEYS: the queue   ARGV: consumer group, queue's name, most dead messages kept, dead, then for each
-- entry: id, reason, body (its beginning), its whole length
-- dead is not declared as a key: a user must have the right to read every declared key, and a worker
-- may not read this one.
-- Returns how many entries were still pending.
local n = 0
for i = 5, #ARGV, 4 do
  if redis.call('XACK', KEYS[1], ARGV[1], ARGV[i]) == 1 then
    redis.call('XDEL', KEYS[1], ARGV[i])
    redis.call('XADD', ARGV[4], 'MAXLEN', '~', ARGV[3], '*',
      'origin', ARGV[2], 'reason', ARGV[i + 1], 'body', ARGV[i + 2], 'size', ARGV[i + 3])
    n = n + 1
  end
end
return n
