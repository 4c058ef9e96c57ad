-- Move unusable entries to the dead ones.
-- KEYS: the queue   ARGV: consumer group, queue's name, most kept, dead, then for each entry:
-- id, reason, body (its beginning), its whole length
-- dead is no key of the call's: a worker must not read it.
-- Returns how many were still pending.
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
