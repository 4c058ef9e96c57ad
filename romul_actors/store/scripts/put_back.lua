-- Queue a leased trial again, as if it had not been leased.
-- KEYS: the lease's stream, trials   ARGV: worker, entry id, message
-- Returns 1; 0 if the worker no longer holds the lease.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
if not redis.call('XPENDING', KEYS[1], 'workers', ARGV[2], ARGV[2], 1, ARGV[1])[1] then
  return 0
end
redis.call('XADD', KEYS[2], '*', 'm', ARGV[3])
redis.call('XACK', KEYS[1], 'workers', ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[2])
return 1
