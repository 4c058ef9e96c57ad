-- Move an unusable entry to the dead ones.
-- KEYS: the queue, dead   ARGV: consumer group, entry id, queue's name, reason, body
-- Returns 1; 0 if the entry is not pending any more.
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then
  return 0
end
redis.call('XDEL', KEYS[1], ARGV[2])
redis.call('XADD', KEYS[2], 'MAXLEN', '~', 10000, '*',
  'origin', ARGV[3], 'reason', ARGV[4], 'body', ARGV[5])
return 1
